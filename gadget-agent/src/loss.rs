//! What was dropped, counted by the slot that it was dropped for.

use std::collections::BTreeMap;

use gadgets::wire::{Gap, Loss, Stage};
use libbpf_rs::{MapHandle, Object};

use crate::clock;
use crate::error::AgentError;
use crate::pods::cgroup::Cgroup;
use crate::pods::slots;
use crate::runtime::load;
use crate::runtime::recursion::Recursion;

/// Entries of each map that a gadget counts in: one a slot, and their total.
pub(crate) const KERNEL_COUNTERS: u32 = slots::COUNT + 1;
/// Where the total is.
pub(crate) const KERNEL_TOTAL: u32 = slots::COUNT;

/// Why a recorder does not have a record any more.
pub(crate) const OVERWRITTEN: &str = "newer ones were written over them";

/// What gadgets count in the kernel, by the maps of `gadget.h` and `state.h`; not every gadget has both.
const KERNEL: [(&str, Stage, &str); 2] = [
    ("gadget_lost", Stage::KernelRing, "more came at once than the ring has room for"),
    ("gadget_unkept", Stage::KernelMap, "the kernel had no room to keep what was underway"),
];

/// Reads a gadget's counters in the kernel, which are never reset, as what has come since the last time.
pub(crate) struct KernelLoss {
    pub(crate) stage: Stage,
    pub(crate) reason: &'static str,
    counters: MapHandle,
    seen: Vec<u64>,
}

impl KernelLoss {
    /// All that a gadget counts.
    pub(crate) fn of(object: &Object) -> Vec<Self> {
        let one = |(map, stage, reason)| {
            let counters = load::map(object, map).ok()?;
            Some(Self { stage, reason, counters, seen: vec![0; KERNEL_COUNTERS as usize] })
        };
        KERNEL.into_iter().filter_map(one).collect()
    }

    /// The maps that it counts in.
    pub(crate) fn maps() -> impl Iterator<Item = &'static str> {
        KERNEL.into_iter().map(|(map, ..)| map)
    }

    /// Records that were lost since the last call, by slot.
    pub(crate) fn read(&mut self) -> Vec<(u32, u64)> {
        if self.read_one(KERNEL_TOTAL) == 0 {
            return Vec::new();
        }
        (0..KERNEL_TOTAL).map(|slot| (slot, self.read_one(slot))).filter(|(_, count)| *count > 0).collect()
    }

    fn read_one(&mut self, index: u32) -> u64 {
        let sum = load::count(&self.counters, index);
        let seen = &mut self.seen[index as usize];
        // One CPU's count may be read while another's is being raised, never lowered.
        let new = sum.saturating_sub(*seen);
        *seen = sum;
        new
    }
}

/// Runs of a gadget's programs that the kernel has left out, as of when that was told last.
pub(crate) struct Missed {
    recursion: Recursion,
    count: u64,
    as_of_ns: u64,
}

impl Missed {
    /// Those of an object that was just loaded: none yet.
    ///
    /// # Errors
    /// If there is no descriptor left to ask the kernel by.
    pub(crate) fn of(object: &Object) -> Result<Self, AgentError> {
        let failed = |error| AgentError::internal("keep the gadget's programs", error);
        Recursion::of(object).map(Self::new).map_err(failed)
    }

    fn new(recursion: Recursion) -> Self {
        Self { recursion, count: 0, as_of_ns: clock::boot_ns() }
    }

    /// A gap, if there are more by now.
    pub(crate) fn tell(&mut self) -> Option<Gap> {
        self.tell_of(self.recursion.missed_runs())
    }

    fn tell_of(&mut self, count: u64) -> Option<Gap> {
        let from_ns = std::mem::replace(&mut self.as_of_ns, clock::boot_ns());
        let before = std::mem::replace(&mut self.count, count);
        let count = count.checked_sub(before).filter(|count| *count > 0)?;
        let reason = format!("the kernel left out {count} runs of a program that was interrupted by itself");
        Some(Gap { from_ns, to_ns: self.as_of_ns, reason })
    }
}

/// Losses that one session has not been told yet.
pub(crate) struct Ledger {
    open: BTreeMap<(Stage, &'static str, u32), u64>,
    since_ns: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { open: BTreeMap::new(), since_ns: clock::boot_ns() }
    }

    /// Notes that so many records of a slot were lost.
    pub(crate) fn add(&mut self, stage: Stage, reason: &'static str, slot: u32, count: u64) {
        if count == 0 {
            return;
        }
        *self.open.entry((stage, reason, slot)).or_default() += count;
    }

    /// Takes over what another was to tell.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.since_ns = self.since_ns.min(other.since_ns);
        for ((stage, reason, slot), count) in other.open {
            self.add(stage, reason, slot, count);
        }
    }

    /// The losses since the last call. `owner` finds a cgroup of a slot.
    pub(crate) fn settle(&mut self, owner: impl Fn(u32) -> Option<Cgroup>) -> Vec<Loss> {
        let from_ns = std::mem::replace(&mut self.since_ns, clock::boot_ns());
        let loss = |((stage, reason, slot), count): ((Stage, &str, u32), u64)| {
            let entry = owner(slot).map(|cgroup| cgroup.entry()).unwrap_or_default();
            Loss {
                stage,
                reason: reason.to_owned(),
                namespace: entry.namespace,
                pod: entry.pod,
                from_ns,
                to_ns: self.since_ns,
                count,
            }
        };
        std::mem::take(&mut self.open).into_iter().map(loss).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_were_left_out_are_told_once() {
        let mut missed = Missed::new(Recursion::default());
        assert_eq!(missed.tell_of(0), None);
        let gap = missed.tell_of(3).expect("a gap");
        assert!(gap.reason.contains("left out 3 runs") && gap.to_ns >= gap.from_ns, "{gap:?}");
        assert_eq!(missed.tell_of(3), None);
    }
}
