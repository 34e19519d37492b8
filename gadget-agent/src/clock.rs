//! The clocks that records and people use.

use gadgets::wire::Clock;
use nix::time::{ClockId, clock_getres, clock_gettime};

/// CLOCK_BOOTTIME in ns, which stamps records.
pub(crate) fn boot_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

/// Both clocks, read one right after the other.
pub(crate) fn now() -> Clock {
    Clock { boot_ns: boot_ns(), wall_ns: read(ClockId::CLOCK_REALTIME) }
}

/// How long the kernel's tick is: how exact a clock is that goes by it.
pub(crate) fn tick_ns() -> u64 {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(1_000_000, |tick| tick.tv_nsec() as u64)
}

fn read(clock: ClockId) -> u64 {
    // Both clocks exist on every kernel that we support, and neither is before 1970.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
