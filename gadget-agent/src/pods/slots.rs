//! The filter's slots: the user space side of `bpf/include/filter.h`.
//!
//! A slot goes round: free (in the kernel's queue, its mask all ones so that a pod that takes it is seen at once), in
//! use, free again when the last cgroup in it is gone.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use libbpf_rs::{MapCore, MapFlags, MapHandle};

/// Slots there are. Pods beyond that share one, which costs filtering in the kernel and nothing else.
pub(crate) const COUNT: u32 = 4096;
/// Everything outside pods and containers: `SLOT_HOST`.
pub(crate) const HOST: u32 = 0;
/// Pods that found no free slot: `SLOT_SHARED`.
pub(crate) const SHARED: u32 = 1;
const FIRST: u32 = 2;

/// The mask of a slot about which nothing is decided.
const EVERYONE: u64 = u64::MAX;
/// Slots that the kernel is given at a time: each takes a system call, and who starts an agent waits for the first.
const STOCK: u32 = 512;

/// Who has which slot.
pub(crate) struct Slots {
    masks: MapHandle,
    free: MapHandle,
    /// Slots that the kernel was not given yet.
    unused: Range<u32>,
    by_unit: HashMap<String, u32>,
    members: HashMap<u32, BTreeSet<u64>>,
    /// Slots that are kept though nobody may be in them, and how often that was asked for.
    pins: HashMap<u32, usize>,
}

impl Slots {
    /// Opens the masks of all slots, and gives the kernel the first.
    pub(crate) fn new(masks: MapHandle, free: MapHandle) -> libbpf_rs::Result<Self> {
        let all: Vec<u32> = (SHARED..COUNT).collect();
        let keys: Vec<u8> = all.iter().flat_map(|slot| slot.to_ne_bytes()).collect();
        let values = EVERYONE.to_ne_bytes().repeat(all.len());
        masks.update_batch(&keys, &values, COUNT - SHARED, MapFlags::ANY, MapFlags::ANY)?;
        let (unused, by_unit) = (FIRST..COUNT, HashMap::new());
        let mut slots = Self { masks, free, unused, by_unit, members: HashMap::new(), pins: HashMap::new() };
        slots.stock();
        Ok(slots)
    }

    /// Gives the kernel more slots. Returns whether there are still more.
    pub(crate) fn stock(&mut self) -> bool {
        for slot in self.unused.by_ref().take(STOCK as usize) {
            if let Err(error) = self.free.update(&[], &slot.to_ne_bytes(), MapFlags::ANY) {
                tracing::warn!("slot {slot} is lost: {error}");
            }
        }
        !self.unused.is_empty()
    }

    /// The slot of a unit (see [`super::path::Identity`]). One that has none gets the one that the kernel chose for
    /// it, or any free one.
    pub(crate) fn of_unit(&mut self, unit: &str, chosen: Option<u32>) -> u32 {
        if let Some(slot) = self.by_unit.get(unit) {
            return *slot;
        }
        let slot = chosen.filter(|slot| *slot != HOST).unwrap_or_else(|| self.take_free());
        // Those in the shared slot may each get one of their own when they come again.
        if slot != SHARED {
            self.by_unit.insert(unit.to_owned(), slot);
        }
        slot
    }

    fn take_free(&mut self) -> u32 {
        let mut popped = self.free.lookup_and_delete(&[]).ok().flatten();
        if popped.is_none() && !self.unused.is_empty() {
            self.stock();
            popped = self.free.lookup_and_delete(&[]).ok().flatten();
        }
        popped.and_then(|bytes| bytes.try_into().ok()).map_or(SHARED, u32::from_ne_bytes)
    }

    /// Counts a cgroup as being in a slot.
    pub(crate) fn add(&mut self, slot: u32, cgroup: u64) {
        self.members.entry(slot).or_default().insert(cgroup);
    }

    /// Takes a cgroup out of its slot, and frees the slot with its last.
    pub(crate) fn remove(&mut self, slot: u32, cgroup: u64) {
        if let Some(members) = self.members.get_mut(&slot) {
            members.remove(&cgroup);
        }
        self.release_if_empty(slot);
    }

    /// Frees a slot that no cgroup is in.
    pub(crate) fn release_if_empty(&mut self, slot: u32) {
        let is_used = self.members.get(&slot).is_some_and(|members| !members.is_empty());
        if slot < FIRST || is_used || self.pins.contains_key(&slot) {
            return;
        }
        self.members.remove(&slot);
        self.by_unit.retain(|_, taken| *taken != slot);
        if let Err(error) = self.release(slot) {
            tracing::warn!("slot {slot} is lost: {error}");
        }
    }

    /// Keeps a slot until [`Slots::unpin`].
    pub(crate) fn pin(&mut self, slot: u32) {
        *self.pins.entry(slot).or_default() += 1;
    }

    /// Takes back one [`Slots::pin`], and frees the slot if nobody needs it any more.
    pub(crate) fn unpin(&mut self, slot: u32) {
        if let Some(count) = self.pins.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&slot);
                self.release_if_empty(slot);
            }
        }
    }

    fn release(&self, slot: u32) -> libbpf_rs::Result<()> {
        self.set_mask(slot, EVERYONE)?;
        self.free.update(&[], &slot.to_ne_bytes(), MapFlags::ANY)
    }

    /// The cgroups in a slot.
    pub(crate) fn members(&self, slot: u32) -> impl Iterator<Item = u64> + Clone + '_ {
        self.members.get(&slot).into_iter().flatten().copied()
    }

    /// The slots that cgroups are in.
    pub(crate) fn in_use(&self) -> Vec<u32> {
        self.members.keys().copied().collect()
    }

    /// Says which instances a slot's events go to.
    pub(crate) fn set_mask(&self, slot: u32, mask: u64) -> libbpf_rs::Result<()> {
        self.masks.update(&slot.to_ne_bytes(), &mask.to_ne_bytes(), MapFlags::ANY)
    }
}
