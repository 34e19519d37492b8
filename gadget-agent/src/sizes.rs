//! Sizes that grow with the machine: what is enough for two processors is not for a hundred.

use crate::host;
use gadgets::spec::{RING_BYTES_DEFAULT, RING_BYTES_MAX};

/// Bytes of a gadget's ring for each processor, beyond what is the least.
const RING_PER_PROCESSOR: u32 = 128 << 10;
/// Bytes of the tracker's ring: the least, and for each processor.
const TRACKER_RING: (u32, u32) = (1 << 20, 64 << 10);
/// Processes on their way into containers: the least, and for each processor. An LRU map hands its elements to
/// processors 128 at a time, so that a small one runs out with most of it unused.
const ENTERING: (u32, u32) = (4096, 256);

/// Bytes that the rings and queues of a daemon may take: what the manifest grants, without what the agent needs itself.
pub(crate) const BUDGET: u64 = 448 << 20;
/// What of that a session may take: its records wait once in its queue and once on their way out.
pub(crate) const SESSION: u64 = 2 * QUEUE as u64;
/// Bytes of records that may wait for a client.
pub(crate) const QUEUE: usize = 8 << 20;

/// Bytes of a gadget's ring if nobody asks for another.
pub(crate) fn ring() -> u32 {
    ring_for(host::possible_processors())
}

/// Bytes of the tracker's ring.
pub(crate) fn tracker_ring() -> u32 {
    grown(TRACKER_RING, host::possible_processors()).next_power_of_two()
}

/// Elements of the filter's map `entering`.
pub(crate) fn entering() -> u32 {
    grown(ENTERING, host::possible_processors())
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
