//! The tracker's programs and maps: the kernel's side of following the hierarchy, `bpf/tracker.bpf.c`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, RingBuffer, RingBufferBuilder};

use super::hierarchy::KernelIds;
use super::slots::{self, Slots};
use crate::error::AgentError;
use crate::runtime::load::{self, Plan, load};
use crate::sizes;
use crate::sync::lock;

/// `enum cgroup_level` of `bpf/include/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Other = 0,
    Container = 1,
    Pod = 2,
}

/// What the kernel told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A cgroup was made and put into a slot.
    Made { id: u64, parent: u64, placed: Placed, path: String },
    /// A cgroup was removed. Its entry stays in the kernel's map.
    Removed { id: u64 },
}

/// Where the kernel put a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) slot: u32,
    /// `enum cgroup_level`, as a number.
    pub(crate) level: u32,
    /// The slot was taken for this cgroup: nobody else is in it.
    pub(crate) fresh: bool,
}

/// `enum tracker_trouble`: what went wrong in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// An event found the ring full.
    EventsFull,
    /// A pod found all slots taken.
    NoSlot,
}

const TROUBLES: [Trouble; 2] = [Trouble::EventsFull, Trouble::NoSlot];

impl Trouble {
    /// What it means, in words.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::EventsFull => "the tracker's ring was full: containers may have been noticed late",
            Self::NoSlot => "all slots are taken: further pods are filtered in the agent instead of the kernel",
        }
    }
}

/// `enum left_out` of `bpf/include/filter.h`.
const LEFT_OUT: u32 = 0;
const LEFT_OUT_MENDED: u32 = 1;

/// 2^`NOTE_ROUND_BITS` there.
const ROUNDS: u64 = 1 << 19;

/// What every gadget shares of `bpf/include/filter.h`.
pub(crate) struct Filter {
    pub(crate) hierarchy: KernelIds,
    maps: BTreeMap<&'static str, MapHandle>,
}

/// Its maps.
const SHARED: [&str; 7] =
    ["cgroups", "cgroup_notes", "cgroup_round", "left_out", "masks", "entering", "entering_count"];

impl Filter {
    /// The maps, by name.
    pub(crate) fn maps(&self) -> BTreeMap<&'static str, &MapHandle> {
        self.maps.iter().map(|(name, map)| (*name, map)).collect()
    }
}

/// The programs, attached. Dropping it detaches and unloads them.
pub(crate) struct Kernel {
    ring: RingBuffer<'static>,
    events: Arc<Mutex<VecDeque<Event>>>,
    troubles: MapHandle,
    seen_troubles: [u64; TROUBLES.len()],
    cgroups: MapHandle,
    notes: MapHandle,
    round: MapHandle,
    left_out: MapHandle,
    names: MapHandle,
    _links: Vec<Link>,
}

/// What [`Kernel::attach`] makes.
pub(crate) struct Parts {
    pub(crate) kernel: Kernel,
    pub(crate) slots: Slots,
    pub(crate) filter: Filter,
    /// Readable when there are events.
    pub(crate) ring: MapHandle,
}

impl Kernel {
    /// Loads the programs with room for this many cgroups, fills the free slots, and attaches.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub(crate) fn attach(room: u32, hierarchy: KernelIds) -> Result<Parts, AgentError> {
        let failed = |error: &dyn std::fmt::Display| AgentError::internal("follow the cgroup hierarchy", error);
        let plan = Plan {
            object: bpf::object("tracker").unwrap_or_default(),
            constants: hierarchy.constants().into(),
            entries: [
                ("cgroups", room),
                ("masks", slots::COUNT),
                ("free_slots", slots::COUNT),
                ("entering", sizes::entering()),
                ("tracker_events", sizes::tracker_ring()),
            ]
            .into(),
            ..Plan::default()
        };
        let object =
            load(&plan).map_err(|refusal| AgentError::Unsupported(format!("cannot follow containers: {refusal}")))?;
        let map = |name| load::map(&object, name).map_err(|error| failed(&error));
        let events = Arc::new(Mutex::new(VecDeque::new()));
        let sink = Arc::clone(&events);
        let ring = map("tracker_events")?;
        let mut builder = RingBufferBuilder::new();
        let take = move |bytes: &[u8]| {
            lock(&sink).extend(parse_event(bytes));
            0
        };
        builder.add(&ring, take).map_err(|error| failed(&error))?;
        let reader = builder.build().map_err(|error| failed(&error))?;
        let slots = Slots::new(map("masks")?, map("free_slots")?).map_err(|error| failed(&error))?;
        let maps = SHARED.iter().map(|name| Ok((*name, map(name)?)));
        let filter = Filter { hierarchy, maps: maps.collect::<Result<_, AgentError>>()? };
        let links = load::attach_all(&object)
            .map_err(|refusal| AgentError::Unsupported(format!("cannot follow containers: {refusal}")))?;
        let kernel = Self {
            ring: reader,
            events,
            troubles: map("troubles")?,
            seen_troubles: [0; TROUBLES.len()],
            cgroups: map("cgroups")?,
            notes: map("cgroup_notes")?,
            round: map("cgroup_round")?,
            left_out: map("left_out")?,
            names: map("names")?,
            _links: links,
        };
        Ok(Parts { kernel, slots, filter, ring })
    }

    /// All events until now.
    pub(crate) fn take_events(&self) -> VecDeque<Event> {
        self.ring.consume_raw();
        std::mem::take(&mut *lock(&self.events))
    }

    /// Puts a cgroup into a slot (`struct cgroup_entry`). Containers that are made in a new one are new, too.
    pub(crate) fn set_entry(&self, cgroup: u64, slot: u32, level: Level, is_new: bool) -> libbpf_rs::Result<()> {
        let (level, is_new) = ((level as u16).to_ne_bytes(), u16::from(is_new).to_ne_bytes());
        let entry = [&slot.to_ne_bytes()[..], &level, &is_new].concat();
        self.cgroups.update(&cgroup.to_ne_bytes(), &entry, MapFlags::ANY)?;
        self.begin_round()
    }

    /// From now on no program goes by what it noted of an entry before.
    fn begin_round(&self) -> libbpf_rs::Result<()> {
        let next = (number(&self.round, 0).unwrap_or_default() + 1) % ROUNDS;
        if next == 0 {
            // Those of the first round count again.
            let nothing = 0u64.to_ne_bytes();
            (0..self.notes.max_entries())
                .try_for_each(|at| self.notes.update(&at.to_ne_bytes(), &nothing, MapFlags::ANY))?;
        }
        self.round.update(&0u32.to_ne_bytes(), &next.to_ne_bytes(), MapFlags::ANY)
    }

    /// Where the kernel has a cgroup; `None` if it does not follow it.
    pub(crate) fn entry(&self, cgroup: u64) -> Option<Placed> {
        let entry = self.cgroups.lookup(&cgroup.to_ne_bytes(), MapFlags::ANY).ok()??;
        let (slot, level) = (entry.first_chunk()?, entry.get(4..)?.first_chunk()?);
        Some(Placed { slot: u32::from_ne_bytes(*slot), level: u16::from_ne_bytes(*level).into(), fresh: false })
    }

    /// Has cgroups of this name that are made from now on put into a slot, unless something else says where; no longer
    /// if `None`.
    pub(crate) fn set_name(&self, name: &str, slot: Option<u32>) -> libbpf_rs::Result<()> {
        // `NAME_MAX` of the program: longer names are cut there as they are here.
        let mut key = vec![0; self.names.key_size() as usize];
        let length = name.len().min(key.len() - 1);
        key[..length].copy_from_slice(&name.as_bytes()[..length]);
        match slot {
            Some(slot) => self.names.update(&key, &slot.to_ne_bytes(), MapFlags::ANY),
            None => self.names.delete(&key),
        }
    }

    /// Takes a cgroup out of the filter. One that is not there is as good as removed.
    pub(crate) fn remove_entry(&self, cgroup: u64) {
        let _ = self.cgroups.delete(&cgroup.to_ne_bytes());
        if let Err(error) = self.begin_round() {
            tracing::warn!("a cgroup that is gone may be taken for a pod's: {error}");
        }
    }

    /// How many cgroups found no room in the map, if some of them may still have none.
    pub(crate) fn left_out(&self) -> Option<u64> {
        let all = number(&self.left_out, LEFT_OUT)?;
        (number(&self.left_out, LEFT_OUT_MENDED) != Some(all)).then_some(all)
    }

    /// Says that all are in the map of the first so many that found no room; not even all, if `None`.
    pub(crate) fn set_mended(&self, left_out: Option<u64>) {
        // As many as there never are.
        let mended = left_out.unwrap_or(u64::MAX).to_ne_bytes();
        let said = self.left_out.update(&LEFT_OUT_MENDED.to_ne_bytes(), &mended, MapFlags::ANY);
        if let Err(error) = said.and_then(|()| self.begin_round()) {
            tracing::warn!("cannot say which cgroups have no room: {error}");
        }
    }

    /// What went wrong since the last call.
    pub(crate) fn new_troubles(&mut self) -> Vec<Trouble> {
        let troubles = &self.troubles;
        let is_new = |(index, seen): (usize, &mut u64)| {
            let count = number(troubles, index as u32).unwrap_or(*seen);
            (count > std::mem::replace(seen, count)).then_some(TROUBLES[index])
        };
        self.seen_troubles.iter_mut().enumerate().filter_map(is_new).collect()
    }
}

/// A number of an array.
fn number(array: &MapHandle, index: u32) -> Option<u64> {
    let value = array.lookup(&index.to_ne_bytes(), MapFlags::ANY).ok().flatten()?;
    value.try_into().ok().map(u64::from_ne_bytes)
}

/// Reads `struct tracker_event`.
fn parse_event(bytes: &[u8]) -> Option<Event> {
    let u32_at = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let id = u64_at(8)?;
    match u32_at(0)? {
        0 => {
            let path = bytes.get(32..)?;
            let path = String::from_utf8_lossy(path.strip_suffix(b"\0").unwrap_or(path)).into_owned();
            let placed = Placed { slot: u32_at(4)?, level: u32_at(24)?, fresh: u32_at(28)? != 0 };
            Some(Event::Made { id, parent: u64_at(16)?, placed, path })
        }
        1 => Some(Event::Removed { id }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_are_read_as_the_kernel_writes_them() {
        let numbers = [0u32.to_ne_bytes(), 5u32.to_ne_bytes()].concat();
        let ids = [7u64.to_ne_bytes(), 3u64.to_ne_bytes()].concat();
        let more = [2u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat();
        let bytes = [&numbers[..], &ids, &more, b"/a/b\0"].concat();
        let Some(Event::Made { id, parent, placed, path }) = parse_event(&bytes) else { panic!("no event") };
        assert_eq!((id, parent, path.as_str()), (7, 3, "/a/b"));
        assert_eq!(placed, Placed { slot: 5, level: 2, fresh: true });
    }

    proptest! {
        #[test]
        fn any_event_is_read_or_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_event(&bytes);
        }
    }
}
