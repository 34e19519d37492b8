//! What a recorder has, in numbers.

use std::sync::Arc;

use gadgets::wire::ProcessEnd;

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
