//! What a recorder has, in numbers.

use std::collections::HashMap;
use std::sync::Arc;

use gadgets::wire::ProcessEnd;

use super::page::Head;
use crate::pods::cgroup::Cgroup;

/// What was recorded of those whose queues are others' now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) cgroups: u64,
    pub(crate) records: u64,
}

/// What there is of one cgroup.
pub(crate) struct Recorded {
    /// `None` for what is in no container.
    pub(crate) cgroup: Option<Arc<Cgroup>>,
    /// Memory that it has.
    pub(crate) bytes: u64,
    /// Records that are there.
    pub(crate) kept: u64,
    pub(crate) overwritten: u64,
    /// Time of the first and the last that is there, if any is.
    pub(crate) between_ns: Option<(u64, u64)>,
    pub(crate) is_gone: bool,
    pub(crate) end: Option<ProcessEnd>,
}

/// What is there of a queue.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) count: u64,
    /// Times of the first and the last of these, if there are any.
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// How many are not there any more.
    pub(super) overwritten: u64,
}

/// The same of each, by its tag, of those that have had so many records.
pub(super) fn kept(heads: &[Head], made: &[(u32, u64)]) -> HashMap<u32, Kept> {
    let mut kept = HashMap::new();
    for head in heads {
        let of_queue = kept.entry(head.queue).or_insert(Kept { first_ns: u64::MAX, ..Kept::default() });
        of_queue.count += u64::from(head.count);
        of_queue.first_ns = of_queue.first_ns.min(head.first_ns);
        of_queue.last_ns = of_queue.last_ns.max(head.last_ns);
    }
    for (tag, made) in made {
        let of_queue: &mut Kept = kept.entry(*tag).or_default();
        of_queue.overwritten = made.saturating_sub(of_queue.count);
    }
    kept
}
