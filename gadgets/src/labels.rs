//! Label selectors, as Kubernetes writes and understands them: `app in (web,api),tier!=db,!canary`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Which labels a pod must have. The default asks for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelSelector {
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: String,
    condition: Condition,
}

/// What the value must be. A label that is missing satisfies the negative ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Condition {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

/// Why a text is no selector.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}; write it as in app=web, tier!=db, 'app in (web,api)', canary or '!canary'")]
pub struct LabelSelectorError(String);

impl LabelSelector {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether a pod with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels.get(&requirement.key)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&String>) -> bool {
        let number = || value?.parse::<i64>().ok();
        match &self.condition {
            Condition::Exists => value.is_some(),
            Condition::Missing => value.is_none(),
            Condition::In(values) => value.is_some_and(|value| values.contains(value)),
            Condition::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Condition::Above(limit) => number().is_some_and(|number| number > *limit),
            Condition::Below(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<LabelSelector> for String {
    fn from(selector: LabelSelector) -> Self {
        selector.text
    }
}

impl TryFrom<String> for LabelSelector {
    type Error = LabelSelectorError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let parts = split(text)?;
        let requirements: Result<_, _> = parts.into_iter().map(|part| requirement(part.trim())).collect();
        Ok(Self { text: text.to_owned(), requirements: requirements? })
    }
}

/// Cuts at the commas that are not within parentheses.
fn split(text: &str) -> Result<Vec<&str>, LabelSelectorError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut parts = Vec::new();
    let (mut start, mut open) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' if open => return Err(LabelSelectorError("a parenthesis within another".into())),
            '(' => open = true,
            ')' if !open => return Err(LabelSelectorError("a parenthesis that was not opened".into())),
            ')' => open = false,
            ',' if !open => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err(LabelSelectorError("a parenthesis that is not closed".into()));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(part: &str) -> Result<Requirement, LabelSelectorError> {
    let (name, condition) = if let Some(name) = part.strip_prefix('!') {
        (name, Condition::Missing)
    } else if let Some((name, values)) = part.split_once("!=") {
        (name, Condition::NotIn(vec![value(values)?]))
    } else if let Some((name, values)) = part.split_once('=') {
        (name, Condition::In(vec![value(values.strip_prefix('=').unwrap_or(values))?]))
    } else if let Some((name, limit)) = part.split_once('>') {
        (name, Condition::Above(number(limit)?))
    } else if let Some((name, limit)) = part.split_once('<') {
        (name, Condition::Below(number(limit)?))
    } else if let Some((before, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(|| LabelSelectorError(format!("words after {part:?}")))?;
        let values: Result<Vec<String>, _> = list.split(',').map(value).collect();
        match before.split_whitespace().collect::<Vec<_>>()[..] {
            [name, "in"] => (name, Condition::In(values?)),
            [name, "notin"] => (name, Condition::NotIn(values?)),
            _ => return Err(LabelSelectorError(format!("neither \"in\" nor \"notin\" in {part:?}"))),
        }
    } else {
        (part, Condition::Exists)
    };
    Ok(Requirement { key: key(name.trim())?, condition })
}

/// `[PREFIX/]NAME`: a DNS name of at most 253 characters, and a name like a value that is not empty.
fn key(text: &str) -> Result<String, LabelSelectorError> {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| {
        let is_label = |label: &str| !label.is_empty() && is_word(label, "-");
        prefix.len() <= 253 && prefix.split('.').all(is_label) && !prefix.contains(char::is_uppercase)
    };
    if !prefix.is_none_or(is_prefix) || name.is_empty() || !is_value(name) {
        return Err(LabelSelectorError(format!("{text:?} is no name of a label")));
    }
    Ok(text.to_owned())
}

fn value(text: &str) -> Result<String, LabelSelectorError> {
    let text = text.trim();
    if is_value(text) {
        Ok(text.to_owned())
    } else {
        Err(LabelSelectorError(format!("{text:?} is no value of a label")))
    }
}

fn number(text: &str) -> Result<i64, LabelSelectorError> {
    text.trim().parse().map_err(|_| LabelSelectorError(format!("{:?} is no whole number", text.trim())))
}

/// At most 63 letters, digits, '-', '_' and '.', with letters or digits at both ends; or nothing.
fn is_value(text: &str) -> bool {
    text.len() <= 63 && is_word(text, "-_.")
}

fn is_word(text: &str, inner: &str) -> bool {
    let is_end = |c: char| c.is_ascii_alphanumeric();
    text.chars().all(|c| is_end(c) || inner.contains(c))
        && text.chars().next().is_none_or(is_end)
        && text.chars().next_back().is_none_or(is_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        selector.parse::<LabelSelector>().expect(selector).matches(&labels)
    }

    #[test]
    fn equality_and_sets() {
        let web = [("app", "web"), ("tier", "front"), ("app.kubernetes.io/name", "nginx"), ("rank", "3")];
        for selector in [
            "",
            "app=web",
            "app==web",
            "app = web , tier=front",
            "app in (web,api)",
            "app in (web, api),tier notin (db)",
            "app",
            "!canary",
            "canary!=yes",
            "canary notin (yes)",
            "app.kubernetes.io/name=nginx",
            "rank>2,rank<4",
        ] {
            assert!(selects(selector, &web), "{selector}");
        }
        for selector in
            ["app=db", "app!=web", "app in (db)", "app notin (web)", "canary", "!app", "app=", "rank>3", "app>1"]
        {
            assert!(!selects(selector, &web), "{selector}");
        }
        assert!(selects("empty=", &[("empty", "")]) && selects("empty in ()", &[("empty", "")]));
    }

    #[test]
    fn what_is_none() {
        for text in [
            ",",
            "app=web,",
            "=web",
            "app=we b",
            "app in web",
            "app in (web",
            "app in (web))",
            "app into (web)",
            "app in (a(b))",
            "app in (web) x",
            "!",
            "-app",
            "app=web-",
            "a/b/c",
            "A.b/c",
            "/c",
            "rank>x",
            "app=é",
            "app web",
            "! app x",
        ] {
            assert!(text.parse::<LabelSelector>().is_err(), "{text}");
        }
        let long = "x".repeat(64);
        assert!(long.parse::<LabelSelector>().is_err() && format!("app={long}").parse::<LabelSelector>().is_err());
    }

    #[test]
    fn it_travels_as_text() {
        let selector: LabelSelector = "app in (web,api)".parse().expect("a selector");
        let json = serde_json::to_string(&selector).expect("JSON");
        assert_eq!(json, r#""app in (web,api)""#);
        assert_eq!(serde_json::from_str::<LabelSelector>(&json).expect("the same"), selector);
        assert!(serde_json::from_str::<LabelSelector>(r#""app in""#).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<LabelSelector>();
        }

        #[test]
        fn any_text_of_likely_parts_is_read_or_refused(parts in proptest::collection::vec(
            proptest::sample::select(vec!["app", " in ", " notin ", "(", ")", ",", "=", "!", "<", "é", " "]), 0..10,
        )) {
            let _ = parts.concat().parse::<LabelSelector>();
        }

        #[test]
        fn in_and_notin_are_opposites(value in "[a-z]{1,3}", list in proptest::collection::vec("[a-z]{1,3}", 1..4)) {
            let list = list.join(",");
            let labels = [("app", value.as_str())];
            prop_assert_ne!(selects(&format!("app in ({list})"), &labels), selects(&format!("app notin ({list})"), &labels));
        }
    }
}
