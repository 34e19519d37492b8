//! Which tasks a run is about, beside whose pods they are: by process, user and name. The kernel decides.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Values that the lists of one run may have together.
pub const MAX_VALUES: usize = 1024;
/// Bytes of the longest name that a thread can have (`TASK_COMM_LEN` without its NUL).
pub const MAX_COMM: usize = 15;

/// The tasks whose events are wanted: those that fit every list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskFilter {
    /// Process ids, as the node has them.
    #[serde(skip_serializing_if = "Choice::is_any")]
    pub pids: Choice<u32>,
    /// User ids, as the node has them.
    #[serde(skip_serializing_if = "Choice::is_any")]
    pub uids: Choice<u32>,
    /// Names of threads (`comm`).
    #[serde(skip_serializing_if = "Choice::is_any")]
    pub comms: Choice<Comm>,
}

impl TaskFilter {
    /// Whether every task fits.
    pub fn is_any(&self) -> bool {
        self.pids.is_any() && self.uids.is_any() && self.comms.is_any()
    }

    /// How many values its lists have.
    pub fn value_count(&self) -> usize {
        self.pids.values().count() + self.uids.values().count() + self.comms.values().count()
    }
}

/// As flags.
impl Display for TaskFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("pid", self.pids.to_string()), ("uid", self.uids.to_string()), ("comm", self.comms.to_string())];
        let given: Vec<_> =
            lists.iter().filter(|(_, list)| !list.is_empty()).map(|(flag, list)| format!("--{flag} {list}")).collect();
        f.write_str(&given.join(" "))
    }
}

/// What a value may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice<T: Ord> {
    /// Anything.
    #[default]
    Any,
    /// One of these.
    Only(BTreeSet<T>),
    /// None of these.
    Not(BTreeSet<T>),
}

impl<T: Ord> Choice<T> {
    /// What a list of terms means: all of them name what is wanted, or all of them what is not.
    ///
    /// # Errors
    /// If it has both.
    pub fn of(terms: impl IntoIterator<Item = Term<T>>) -> Result<Self, MixedTerms> {
        let (not, only): (Vec<_>, Vec<_>) = terms.into_iter().partition(|term| term.is_not);
        let set = |terms: Vec<Term<T>>| terms.into_iter().map(|term| term.value).collect();
        match (only.is_empty(), not.is_empty()) {
            (true, true) => Ok(Self::Any),
            (false, true) => Ok(Self::Only(set(only))),
            (true, false) => Ok(Self::Not(set(not))),
            (false, false) => Err(MixedTerms),
        }
    }

    /// Whether it may be anything.
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    /// The values that are listed.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        let listed = match self {
            Self::Any => None,
            Self::Only(values) | Self::Not(values) => Some(values),
        };
        listed.into_iter().flatten()
    }
}

/// As it is written on a command line; nothing for anything.
impl<T: Ord + Display> Display for Choice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if matches!(self, Self::Not(_)) { "!" } else { "" };
        self.values().enumerate().try_for_each(|(index, value)| {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{mark}{value}")
        })
    }
}

/// A value of a list, as it is written: `7`, or `!7` for all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term<T> {
    value: T,
    is_not: bool,
}

impl<T: FromStr> FromStr for Term<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let value = text.strip_prefix('!');
        Ok(Self { value: value.unwrap_or(text).parse()?, is_not: value.is_some() })
    }
}

/// A list that says what is wanted and what is not.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a list has either values that are wanted, or values that are not (with !)")]
pub struct MixedTerms;

/// A name that a thread can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Comm(String);

impl Comm {
    /// Its bytes, as the kernel has them: the rest is zero.
    pub fn to_kernel(&self) -> [u8; MAX_COMM + 1] {
        let mut bytes = [0; MAX_COMM + 1];
        bytes[..self.0.len()].copy_from_slice(self.0.as_bytes());
        bytes
    }
}

/// Why no thread can have a name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no thread is called {0:?}: the kernel cuts names to {MAX_COMM} bytes")]
pub struct CommError(String);

impl FromStr for Comm {
    type Err = CommError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Comm {
    type Error = CommError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_name = (1..=MAX_COMM).contains(&text.len()) && !text.contains('\0');
        if is_name { Ok(Self(text)) } else { Err(CommError(text)) }
    }
}

impl From<Comm> for String {
    fn from(name: Comm) -> Self {
        name.0
    }
}

impl Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pids(terms: &[&str]) -> Result<Choice<u32>, MixedTerms> {
        Choice::of(terms.iter().map(|term| term.parse().expect("a term")))
    }

    #[test]
    fn a_list_is_of_what_is_wanted_or_of_what_is_not() {
        assert_eq!(pids(&[]), Ok(Choice::Any));
        assert_eq!(pids(&["7", "8", "7"]), Ok(Choice::Only([7, 8].into())));
        assert_eq!(pids(&["!7", "!8"]), Ok(Choice::Not([7, 8].into())));
        assert_eq!(pids(&["!7", "8"]), Err(MixedTerms));
        assert!("x".parse::<Term<u32>>().is_err() && "!".parse::<Term<u32>>().is_err());
    }

    #[test]
    fn it_is_written_as_it_was() {
        for terms in [&[][..], &["7", "8"], &["!7", "!8"]] {
            assert_eq!(pids(terms).map(|choice| choice.to_string()), Ok(terms.join(",")));
        }
    }

    #[test]
    fn comms_are_as_long_as_the_kernel_has_them() {
        assert!("a".repeat(MAX_COMM).parse::<Comm>().is_ok());
        assert!("a".repeat(MAX_COMM + 1).parse::<Comm>().is_err());
        assert!("".parse::<Comm>().is_err() && "a\0b".parse::<Comm>().is_err());
        let comm: Comm = "sh".parse().expect("a name");
        assert_eq!(comm.to_kernel(), *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert!(serde_json::from_str::<TaskFilter>(r#"{"comms":{"only":["a name that is far too long"]}}"#).is_err());
    }

    #[test]
    fn it_travels() {
        let filter = TaskFilter { pids: Choice::Only([7].into()), ..TaskFilter::default() };
        let text = serde_json::to_string(&filter).expect("text");
        assert_eq!(text, r#"{"pids":{"only":[7]}}"#);
        assert_eq!(serde_json::from_str::<TaskFilter>(&text).expect("a filter"), filter);
        assert_eq!(filter.to_string(), "--pid 7");
        assert!(filter.value_count() == 1 && !filter.is_any() && TaskFilter::default().is_any());
    }
}
