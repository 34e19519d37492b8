//! Which system calls an instance is about: the user space side of `call_wanted` in `bpf/traceloop.bpf.c`.

use std::collections::BTreeSet;

use gadgets::names::syscall;
use gadgets::tasks::{Choice, MAX_VALUES};

use crate::error::AgentError;
use crate::tasks::choice;

/// The map of the calls that are listed.
pub(crate) const CHOSEN: &str = "chosen_calls";
/// In its keys: a call of programs of 32 bits.
const COMPAT: u32 = 1 << 31;

/// Calls as the map has them: by number.
pub(crate) type Calls = Choice<u32>;

/// The numbers of calls.
///
/// # Errors
/// If there is no call of such a name.
pub(crate) fn numbers(names: &Choice<String>) -> Result<Calls, AgentError> {
    let mut keys = BTreeSet::new();
    if names.values().count() > MAX_VALUES {
        return Err(AgentError::Usage(format!("{} system calls: at most {MAX_VALUES}", names.values().count())));
    }
    for name in names.values() {
        let (native, compat) = (syscall::number(name), syscall::compat_number(name));
        if native.or(compat).is_none() {
            return Err(AgentError::Usage(format!("no system call is called {name:?}")));
        }
        keys.extend(native.into_iter().chain(compat.map(|number| number | COMPAT)));
    }
    Ok(match names {
        Choice::Any => Choice::Any,
        Choice::Only(_) => Choice::Only(keys),
        Choice::Not(_) => Choice::Not(keys),
    })
}

/// What the list is for.
pub(crate) fn constant(calls: &Calls) -> (&'static str, u64) {
    ("gadget_calls", choice(calls))
}

/// The calls that are listed.
pub(crate) fn values(calls: &Calls) -> Vec<Vec<u8>> {
    calls.values().map(|number| number.to_ne_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_name_stands_for_both_numbers() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(numbers(&Choice::Not(names(&["read"]))).ok(), Some(Choice::Not([0, 3 | COMPAT].into())));
        assert_eq!(numbers(&Choice::Any).ok(), Some(Choice::Any));
        assert!(numbers(&Choice::Only(names(&["read", "reed"]))).is_err());
    }
}
