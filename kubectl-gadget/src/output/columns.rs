//! Which columns a table has.

use gadgets::catalogue::{COMMON_COLUMNS, EXTRA_COLUMNS, Gadget};
use gadgets::schema::SchemaError;

/// The columns of a table, in their order, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns(pub(crate) Vec<String>);

/// The names of all columns that a gadget has.
///
/// # Errors
/// If its object does not follow `gadget.h`: a fault of the build.
pub(crate) fn names(gadget: &Gadget) -> Result<Vec<String>, SchemaError> {
    let schema = gadget.schema()?;
    let common = COMMON_COLUMNS.iter().chain(&EXTRA_COLUMNS).map(|(name, _)| (*name).to_owned());
    Ok(common.chain(schema.fields().map(|field| field.name.clone())).collect())
}

/// The names of the columns that a gadget shows if nothing else is asked for.
pub(crate) fn defaults(gadget: &Gadget) -> Vec<&'static str> {
    let common = COMMON_COLUMNS.iter().map(|(name, _)| *name);
    // It is the same for all that there is.
    let common = common.filter(|name| *name != "time" || !gadget.shows.is_present());
    common.chain(gadget.columns.iter().copied()).collect()
}

impl Columns {
    /// Those that are shown if nothing else is asked for: the gadget's, and those that parameters fill.
    pub(crate) fn usual(gadget: &Gadget, filled: impl IntoIterator<Item = &'static str>) -> Self {
        Self(defaults(gadget).into_iter().chain(filled).map(str::to_owned).collect())
    }

    /// Reads a list of names; or, if each has a sign, of changes to these.
    ///
    /// # Errors
    /// With the first name that is unknown.
    pub(crate) fn parse(self, known: &[String], list: &str) -> Result<Self, String> {
        let items: Vec<&str> = list.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        let changes_only = items.iter().all(|item| item.starts_with(['+', '-']));
        let mut columns = if changes_only { self.0 } else { Vec::new() };
        for item in items {
            let name = item.trim_start_matches(['+', '-']);
            if !known.iter().any(|known| known == name) {
                return Err(name.to_owned());
            }
            columns.retain(|column| column != name);
            if !item.starts_with('-') {
                columns.push(name.to_owned());
            }
        }
        Ok(Self(columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Columns, String> {
        let gadget = gadgets::catalogue::CATALOGUE.get("execsnoop").expect("execsnoop");
        Columns::usual(gadget, std::iter::empty()).parse(&names(gadget).expect("a schema"), list)
    }

    #[test]
    fn names_replace_and_signs_change() {
        assert_eq!(parse("pid, args"), Ok(Columns(vec!["pid".into(), "args".into()])));
        let changed = parse("+file,-node").expect("known columns").0;
        assert!(changed.ends_with(&["args".into(), "file".into()]) && !changed.contains(&"node".into()));
        assert_eq!(parse("pid,colour"), Err("colour".into()));
    }
}
