//! Sizes that grow with the machine: what is enough for two processors is not for a hundred.

use std::collections::BTreeMap;

use crate::host;
use crate::pods::hierarchy::KernelIds;
use gadgets::catalogue::{Gadget, Release, Shows};
use gadgets::spec::{RING_BYTES_DEFAULT, RING_BYTES_MAX, RING_BYTES_MIN};

/// Bytes of a gadget's ring for each processor, beyond what is the least.
const RING_PER_PROCESSOR: u32 = 128 << 10;
/// Bytes of a recorder.
const RECORDER: u32 = 64 << 20;
/// Bytes of the tracker's ring: the least, and for each processor.
const TRACKER_RING: (u32, u32) = (1 << 20, 64 << 10);
/// Processes on their way into containers: the least, and for each processor. An LRU map hands its elements to
/// processors 128 at a time, so that a small one runs out with most of it unused.
const ENTERING: (u32, u32) = (4096, 256);

/// The first kernel that keeps the cgroup of every socket, if there is a unified hierarchy.
const KEEPS_OWNERS: Release = Release(5, 15);
/// Sockets whose owners are recorded elsewhere: some 100 bytes each.
const SOCKET_OWNERS: u32 = 65536;

/// Stacks that a gadget has room for.
const STACKS: u32 = 4096;
/// Threads in system calls, or that wait for something: up to 200 bytes each.
const THREADS: u32 = 32 << 10;

/// Bytes that the rings and queues of a daemon may take: what the manifest grants, without what the agent needs itself.
pub(crate) const BUDGET: u64 = 352 << 20;
/// Bytes of memory of the process that reads symbols, beside files that it has mapped: what is left of what the manifest grants.
pub(crate) const READER: u64 = 96 << 20;
/// What of that a session may take: its records wait once in its queue and once on their way out.
pub(crate) const SESSION: u64 = 2 * QUEUE as u64;
/// Bytes of records that may wait for a client.
pub(crate) const QUEUE: usize = 8 << 20;

/// Bytes of a gadget's ring if nobody asks for another.
pub(crate) fn ring() -> u32 {
    ring_for(host::possible_processors())
}

/// What a gadget's events are kept in, in bytes, if nobody asks for another size.
pub(crate) fn buffer(gadget: &Gadget) -> u32 {
    match gadget.shows {
        Shows::Past => RECORDER,
        // Nothing comes.
        Shows::Present => RING_BYTES_MIN,
        Shows::Events | Shows::Once | Shows::Sums(_) | Shows::Profile(_) => ring(),
    }
}

/// Bytes of the tracker's ring.
pub(crate) fn tracker_ring() -> u32 {
    grown(TRACKER_RING, host::possible_processors()).next_power_of_two()
}

/// Elements of the filter's map `entering`.
pub(crate) fn entering() -> u32 {
    grown(ENTERING, host::possible_processors())
}

/// Elements of the maps of `socket.h`, for sockets whose owners the kernel does not keep.
pub(crate) fn socket_owners(hierarchy: KernelIds) -> u32 {
    let release = Release::parse(&host::kernel());
    let keeps = hierarchy == KernelIds::default() && release.is_some_and(|release| release >= KEEPS_OWNERS);
    if keeps { 1 } else { SOCKET_OWNERS }
}

/// Stacks of the kernel that an instance keeps, and those of programs, of about a kilobyte each, and programs that have such: none if it has a
/// parameter for them that is not set.
pub(crate) fn stacks(constants: &BTreeMap<&'static str, u64>) -> u32 {
    if constants.get("gadget_wants_stacks") == Some(&0) { 1 } else { STACKS }
}

/// Threads of which an instance knows what they wait for: none if nobody wants to.
pub(crate) fn waits(constants: &BTreeMap<&'static str, u64>) -> u32 {
    if constants.get("off_cpu") == Some(&1) { THREADS } else { 1 }
}

/// Threads of which an instance knows when their calls have begun: none if nobody wants to.
pub(crate) fn calls_begun(constants: &BTreeMap<&'static str, u64>) -> u32 {
    if constants.get("durations") == Some(&1) { THREADS } else { 1 }
}

fn ring_for(processors: u32) -> u32 {
    grown((RING_BYTES_DEFAULT, RING_PER_PROCESSOR), processors).next_power_of_two().min(RING_BYTES_MAX)
}

fn grown((least, each): (u32, u32), processors: u32) -> u32 {
    least.max(each.saturating_mul(processors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_machines_have_larger_rings() {
        assert_eq!(ring_for(2), 4 << 20);
        assert_eq!(ring_for(32), 4 << 20);
        assert_eq!(ring_for(96), 16 << 20);
        assert_eq!(ring_for(8192), 256 << 20);
    }
}
