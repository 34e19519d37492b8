//! Which tasks an instance is about: the user space side of `task_wanted` in `bpf/include/filter.h`.

use gadgets::tasks::{Choice, MAX_COMM, TaskFilter};

/// `enum task_field`.
enum Field {
    Pid = 0,
    Uid = 1,
    Comm = 2,
}

/// The map of the values that are listed: keys are `struct task_value`.
pub(crate) const VALUES: &str = "task_values";

/// What each list is for (`enum task_choice`), for the constant of its field.
pub(crate) fn constants(filter: &TaskFilter) -> [(&'static str, u64); 3] {
    let TaskFilter { pids, uids, comms } = filter;
    [("gadget_pids", choice(pids)), ("gadget_uids", choice(uids)), ("gadget_comms", choice(comms))]
}

/// `enum task_choice`.
pub(crate) fn choice<T: Ord>(choice: &Choice<T>) -> u64 {
    match choice {
        Choice::Any => 0,
        Choice::Only(_) => 1,
        Choice::Not(_) => 2,
    }
}

/// The values that are listed.
pub(crate) fn values(filter: &TaskFilter) -> Vec<Vec<u8>> {
    let number = |value: &u32| {
        let mut bytes = [0; MAX_COMM + 1];
        bytes[..4].copy_from_slice(&value.to_ne_bytes());
        bytes
    };
    let pids = filter.pids.values().map(|pid| key(Field::Pid, number(pid)));
    let uids = filter.uids.values().map(|uid| key(Field::Uid, number(uid)));
    let comms = filter.comms.values().map(|comm| key(Field::Comm, comm.to_kernel()));
    pids.chain(uids).chain(comms).collect()
}

fn key(field: Field, value: [u8; MAX_COMM + 1]) -> Vec<u8> {
    [&(field as u32).to_ne_bytes()[..], &value].concat()
}
