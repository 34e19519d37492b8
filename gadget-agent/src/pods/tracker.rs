//! Follows the cgroup hierarchy: the user space side of `bpf/tracker.bpf.c`.
//!
//! The programs are attached first and the hierarchy is walked second, so nothing is missed in between; both are merged
//! by cgroup id. The kernel tells of a new cgroup before it can be entered. Whoever meets an unknown id in a record
//! therefore only has to read the tracker's ring to its end ([`Tracker::get`]).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use gadgets::spec::Selector;
use gadgets::wire::Gap;
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, RingBuffer, RingBufferBuilder};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bundle::{Bundles, Names};
use super::cgroup::{Cgroup, Naming};
use super::path::identify;
use super::selection::{Verdict, is_within, slot_is_wanted, verdict};
use super::slots::{self, Slots};
use crate::clock;
use crate::error::AgentError;
use crate::runtime::load::{self, Plan, load};

/// How long a removed cgroup is remembered: its last events may still be on their way.
const REMEMBER: Duration = Duration::from_secs(30);
/// How long a new container's names are looked for.
const NAMING: Duration = Duration::from_secs(2);
/// How often they are.
const NAMING_RETRY: Duration = Duration::from_millis(20);
/// How often the rest is looked after.
const TICK: Duration = Duration::from_secs(1);
/// Gaps that are remembered for sessions to pick up.
const MAX_GAPS: usize = 64;
/// Room in the kernel's map for cgroups, beyond four times what there is.
const MIN_CGROUPS: usize = 16384;

/// `enum cgroup_level` of `bpf/include/filter.h`.
const LEVEL_OTHER: u32 = 0;
const LEVEL_CONTAINER: u32 = 1;
const LEVEL_POD: u32 = 2;

/// The maps of the filter that every gadget shares.
pub(crate) struct FilterMaps {
    pub(crate) cgroups: MapHandle,
    pub(crate) masks: MapHandle,
    pub(crate) entering: MapHandle,
}

/// What is known of the hierarchy, kept up to date by a thread of its own.
pub(crate) struct Tracker {
    pub(crate) maps: FilterMaps,
    hierarchy: PathBuf,
    ring: Arc<MapHandle>,
    inner: Mutex<Inner>,
    /// Changes whenever an answer of [`Tracker::get`] may.
    generation: AtomicU64,
}

struct Inner {
    ring: RingBuffer<'static>,
    events: Arc<Mutex<VecDeque<Event>>>,
    troubles_map: MapHandle,
    troubles: [u64; TROUBLES.len()],
    kernel_cgroups: MapHandle,
    bundles: Bundles,
    cgroups: HashMap<u64, Arc<Cgroup>>,
    slots: Slots,
    /// Cgroups whose names are still looked for.
    pending: Vec<u64>,
    removed: VecDeque<(Instant, u64)>,
    /// What users named, and how many sessions did.
    followed: BTreeMap<String, usize>,
    /// What each instance's sessions want, by the instance's bit.
    interests: BTreeMap<u32, Vec<Selector>>,
    gaps: VecDeque<(u64, Gap)>,
    gap_count: u64,
    last_check_ns: u64,
    _links: Vec<Link>,
}

/// What the kernel told.
enum Event {
    Made { id: u64, parent: u64, slot: u32, path: String },
    Removed { id: u64 },
}

/// `enum tracker_trouble`, in words.
const TROUBLES: [&str; 3] = [
    "the tracker's ring was full: containers may have been noticed late",
    "the map of cgroups is full: containers are missing",
    "all slots are taken: further pods are filtered in the agent instead of the kernel",
];
const TROUBLE_EVENTS_FULL: usize = 0;
const TROUBLE_NO_SLOT: usize = 2;

impl Tracker {
    /// Loads and attaches the tracker, and learns what there is.
    pub(crate) fn start(hierarchy: PathBuf, bundles: Bundles) -> Result<Arc<Self>, AgentError> {
        let failed = |error: &dyn std::fmt::Display| AgentError::internal("follow the cgroup hierarchy", error);
        let existing = walk(&hierarchy).len();
        let room = (existing * 4).max(MIN_CGROUPS) as u32;
        let plan = Plan {
            object: bpf::object("tracker").unwrap_or_default(),
            entries: [("cgroups", room), ("masks", slots::COUNT), ("free_slots", slots::COUNT)].into(),
            ..Plan::default()
        };
        let object = load(&plan).map_err(|error| AgentError::Unsupported(format!("{error}")))?;
        let map = |name| load::map(&object, name).map_err(|error| failed(&error));
        let maps = FilterMaps { cgroups: map("cgroups")?, masks: map("masks")?, entering: map("entering")? };

        let events = Arc::new(Mutex::new(VecDeque::new()));
        let sink = Arc::clone(&events);
        let ring_map = Arc::new(map("tracker_events")?);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(ring_map.as_ref(), move |bytes| {
                lock(&sink).extend(parse_event(bytes));
                0
            })
            .map_err(|error| failed(&error))?;
        let ring = builder.build().map_err(|error| failed(&error))?;

        let slots = Slots::new(map("masks")?, map("free_slots")?).map_err(|error| failed(&error))?;
        let links: Result<Vec<Link>, _> = object.progs_mut().map(|program| program.attach()).collect();
        let links =
            links.map_err(|error| AgentError::Unsupported(format!("cannot attach to cgroup events: {error:#}")))?;
        let mut inner = Inner {
            ring,
            events,
            troubles_map: map("troubles")?,
            troubles: [0; TROUBLES.len()],
            kernel_cgroups: map("cgroups")?,
            bundles,
            cgroups: HashMap::new(),
            slots,
            pending: Vec::new(),
            removed: VecDeque::new(),
            followed: BTreeMap::new(),
            interests: BTreeMap::new(),
            gaps: VecDeque::new(),
            gap_count: 0,
            last_check_ns: clock::boot_ns(),
            _links: links,
        };
        inner.merge_walk(&hierarchy);
        let tracker =
            Arc::new(Self { maps, hierarchy, ring: ring_map, inner: Mutex::new(inner), generation: AtomicU64::new(1) });
        let weak = Arc::downgrade(&tracker);
        std::thread::Builder::new()
            .name("tracker".into())
            .spawn(move || keep_up(&weak))
            .map_err(|error| failed(&error))?;
        Ok(tracker)
    }

    /// Changes whenever an answer of [`Tracker::get`] may.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The cgroup with this id; `None` if it belongs to no container and nobody named it.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Cgroup>> {
        let mut inner = self.lock();
        if let Some(known) = inner.cgroups.get(&id) {
            return Some(Arc::clone(known));
        }
        // The kernel told of it before the record was written: catch up, and it is known or it is the host's.
        self.catch_up(&mut inner);
        inner.cgroups.get(&id).map(Arc::clone)
    }

    /// The cgroups in a slot.
    pub(crate) fn in_slot(&self, slot: u32) -> Vec<Arc<Cgroup>> {
        let inner = self.lock();
        inner.slots.members(slot).filter_map(|id| inner.cgroups.get(&id).cloned()).collect()
    }

    /// Says what the instance with this bit wants; nothing any more if `None`.
    pub(crate) fn set_interest(&self, bit: u32, selectors: Option<Vec<Selector>>) {
        let mut inner = self.lock();
        match selectors {
            Some(selectors) => inner.interests.insert(bit, selectors),
            None => inner.interests.remove(&bit),
        };
        inner.set_all_masks();
    }

    /// Follows a cgroup because a user named it, until [`Tracker::unfollow`]. Takes a path in the hierarchy, or one
    /// through its mount point, and returns the former.
    ///
    /// # Errors
    /// If there is no such cgroup.
    pub(crate) fn follow(&self, path: &str) -> Result<String, AgentError> {
        let mount = self.hierarchy.to_string_lossy();
        let relative = if is_within(path, &mount) { &path[mount.trim_end_matches('/').len()..] } else { path };
        let relative = relative.trim_matches('/');
        let directory = self.hierarchy.join(relative);
        let stays_inside = !relative.split('/').any(|part| part == "..");
        if !stays_inside || !directory.is_dir() {
            return Err(AgentError::NotFound(format!(
                "no cgroup {path:?}: there is no directory {}; give a path as in /proc/PID/cgroup",
                directory.display()
            )));
        }
        let path = format!("/{relative}");
        let mut inner = self.lock();
        *inner.followed.entry(path.clone()).or_default() += 1;
        inner.merge_walk(&self.hierarchy);
        self.changed();
        Ok(path)
    }

    /// Takes back one [`Tracker::follow`].
    pub(crate) fn unfollow(&self, path: &str) {
        let mut inner = self.lock();
        let Some(count) = inner.followed.get_mut(path) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        inner.followed.remove(path);
        let gone: Vec<u64> = inner
            .cgroups
            .values()
            .filter(|cgroup| cgroup.identity.is_none() && inner.followed_ancestor(&cgroup.path).is_none())
            .map(|cgroup| cgroup.id)
            .collect();
        gone.into_iter().for_each(|id| inner.forget(id));
        self.changed();
    }

    /// Times in which containers may have been missed, after the `seen` first ones; and how many there are by now.
    pub(crate) fn gaps(&self, seen: u64) -> (Vec<Gap>, u64) {
        let inner = self.lock();
        let new = inner.gaps.iter().filter(|(number, _)| *number >= seen).map(|(_, gap)| gap.clone()).collect();
        (new, inner.gap_count)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Reads the ring to its end, and looks after what is due.
    fn catch_up(&self, inner: &mut Inner) {
        let changed = inner.read_events() | inner.name_pending() | inner.forget_removed();
        if changed {
            self.changed();
        }
    }

    fn check(&self, inner: &mut Inner) {
        if inner.check_troubles() {
            inner.merge_walk(&self.hierarchy);
            self.changed();
        }
    }
}

/// The tracker's thread. It ends with the tracker.
fn keep_up(tracker: &Weak<Tracker>) {
    let mut last_check = Instant::now();
    loop {
        let Some(strong) = tracker.upgrade() else { return };
        let mut inner = strong.lock();
        strong.catch_up(&mut inner);
        if last_check.elapsed() >= TICK {
            last_check = Instant::now();
            strong.check(&mut inner);
        }
        let rest = if inner.pending.is_empty() { TICK } else { NAMING_RETRY };
        drop(inner);
        // While this thread rests it keeps only the ring's descriptor, so that the tracker can go.
        let ring = Arc::clone(&strong.ring);
        drop(strong);
        let mut polled = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut polled, PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX));
    }
}

impl Inner {
    /// Takes in what the kernel told. Returns whether anything changed.
    fn read_events(&mut self) -> bool {
        self.ring.consume_raw();
        let events = std::mem::take(&mut *lock(&self.events));
        let any = !events.is_empty();
        for event in events {
            match event {
                Event::Made { id, parent, slot, path } => self.insert(id, Some(parent), &path, Some(slot)),
                Event::Removed { id } => self.removed.push_back((Instant::now() + REMEMBER, id)),
            }
        }
        any
    }

    /// Takes in a cgroup. `chosen` is the kernel's slot for one that was just made; `None` for one that was found.
    fn insert(&mut self, id: u64, parent: Option<u64>, path: &str, chosen: Option<u32>) {
        if let Some(known) = self.cgroups.get(&id) {
            // Found by a walk before its event was read: the slot that the kernel took for it is not needed.
            if let Some(other) = chosen.filter(|slot| *slot != known.slot) {
                self.slots.release_if_empty(other);
            }
            return;
        }
        let identity = identify(path);
        let (unit, level) = match (&identity, self.followed_ancestor(path)) {
            (Some(identity), _) if identity.pod_uid.is_some() => (identity.unit.clone(), LEVEL_POD),
            (Some(identity), _) => (identity.unit.clone(), LEVEL_CONTAINER),
            (None, Some(followed)) => (followed, LEVEL_OTHER),
            (None, None) => return self.reject(id, chosen),
        };
        let slot = self.slots.of_unit(&unit, chosen);
        if chosen != Some(slot) {
            self.set_entry(id, slot, level);
        }
        let naming = match identity.as_ref().and_then(|identity| identity.container_id.as_deref()) {
            None => Naming::Done(Names::default()),
            Some(container) => self.naming(container, parent, chosen.is_some()),
        };
        if matches!(naming, Naming::Pending { .. }) {
            self.pending.push(id);
        }
        let cgroup = Cgroup { id, path: path.to_owned(), identity, naming, slot };
        self.cgroups.insert(id, Arc::new(cgroup));
        self.slots.add(slot, id);
        if let Some(other) = chosen.filter(|other| *other != slot) {
            self.slots.release_if_empty(other);
        }
        self.set_masks(slot);
    }

    /// The kernel took a cgroup for a container's that is none.
    fn reject(&mut self, id: u64, chosen: Option<u32>) {
        if let Some(slot) = chosen {
            let _ = self.kernel_cgroups.delete(&id.to_ne_bytes());
            self.slots.release_if_empty(slot);
        }
    }

    /// A container's names: its parent's if that is inside the same container, else the bundle's.
    fn naming(&self, container: &str, parent: Option<u64>, is_new: bool) -> Naming {
        let parent = parent.and_then(|parent| self.cgroups.get(&parent));
        let same = parent.filter(|parent| {
            parent.identity.as_ref().and_then(|identity| identity.container_id.as_deref()) == Some(container)
        });
        if let Some(same) = same {
            return same.naming.clone();
        }
        match self.bundles.names(container) {
            Some(names) => Naming::Done(names),
            None if is_new => Naming::Pending { until: Instant::now() + NAMING },
            None => Naming::Done(Names::default()),
        }
    }

    /// Looks again for names. Returns whether any were decided.
    fn name_pending(&mut self) -> bool {
        let mut decided = false;
        for id in std::mem::take(&mut self.pending) {
            let Some(cgroup) = self.cgroups.get(&id).cloned() else { continue };
            let Naming::Pending { until } = cgroup.naming else { continue };
            let container = cgroup.identity.as_ref().and_then(|identity| identity.container_id.as_deref());
            let names = container.and_then(|container| self.bundles.names(container));
            if names.is_none() && Instant::now() < until {
                self.pending.push(id);
                continue;
            }
            let naming = Naming::Done(names.unwrap_or_default());
            self.cgroups.insert(id, Arc::new(Cgroup { naming, ..(*cgroup).clone() }));
            self.set_masks(cgroup.slot);
            decided = true;
        }
        decided
    }

    /// Forgets cgroups that were removed a while ago. Returns whether there were any.
    fn forget_removed(&mut self) -> bool {
        let now = Instant::now();
        let mut any = false;
        while let Some(&(due, id)) = self.removed.front()
            && due <= now
        {
            self.removed.pop_front();
            let slot = self.cgroups.get(&id).map(|cgroup| cgroup.slot);
            self.forget(id);
            if let Some(slot) = slot {
                self.forget_empty_pod(slot);
            }
            any = true;
        }
        any
    }

    /// On a hybrid host nobody removes a pod's directory: it goes with the pod's last container.
    fn forget_empty_pod(&mut self, slot: u32) {
        let left: Vec<Arc<Cgroup>> = self.slots.members(slot).filter_map(|id| self.cgroups.get(&id).cloned()).collect();
        let is_pod_only = left.iter().all(|cgroup| {
            cgroup.identity.as_ref().is_some_and(|whose| whose.pod_uid.is_some() && whose.container_id.is_none())
        });
        if slot != slots::SHARED && is_pod_only {
            left.iter().for_each(|cgroup| self.forget(cgroup.id));
        }
    }

    fn forget(&mut self, id: u64) {
        let Some(cgroup) = self.cgroups.remove(&id) else { return };
        let _ = self.kernel_cgroups.delete(&id.to_ne_bytes());
        self.slots.remove(cgroup.slot, id);
        self.set_masks(cgroup.slot);
    }

    /// Adds what is in the hierarchy and not yet known; parents come before their children.
    fn merge_walk(&mut self, hierarchy: &Path) {
        self.read_events();
        for (id, parent, path) in walk(hierarchy) {
            self.insert(id, parent, &path, None);
        }
    }

    /// The path that a user named and that this one is at or below.
    fn followed_ancestor(&self, path: &str) -> Option<String> {
        self.followed.keys().find(|followed| is_within(path, followed)).cloned()
    }

    /// Tells the kernel which slot a cgroup is in (`struct cgroup_entry`).
    fn set_entry(&mut self, id: u64, slot: u32, level: u32) {
        let entry = [slot.to_ne_bytes(), level.to_ne_bytes()].concat();
        if let Err(error) = self.kernel_cgroups.update(&id.to_ne_bytes(), &entry, MapFlags::ANY) {
            self.add_gap(format!("cgroup {id} is not followed: {error}"));
        }
    }

    fn set_all_masks(&mut self) {
        for slot in self.slots.in_use() {
            self.set_masks(slot);
        }
        self.set_masks(slots::HOST);
    }

    fn set_masks(&self, slot: u32) {
        let members: Vec<&Cgroup> =
            self.slots.members(slot).filter_map(|id| self.cgroups.get(&id).map(AsRef::as_ref)).collect();
        let is_wanted = |selector: &Selector| match slot {
            slots::HOST => verdict(selector, None) == Verdict::Wanted,
            _ => slot_is_wanted(selector, members.iter().copied()),
        };
        // A slot without members is free or about to be taken; the shared one holds pods that nobody can tell apart.
        if slot == slots::SHARED || (slot != slots::HOST && members.is_empty()) {
            return;
        }
        let wanting = self.interests.iter().filter(|(_, selectors)| selectors.iter().any(is_wanted));
        let mask = wanting.fold(0, |mask, (bit, _)| mask | 1 << bit);
        if let Err(error) = self.slots.set_mask(slot, mask) {
            tracing::warn!("slot {slot} keeps its mask: {error}");
        }
    }

    /// Reads the kernel's counters of what went wrong. Returns whether the hierarchy must be walked again.
    fn check_troubles(&mut self) -> bool {
        let mut missed = false;
        for (index, reason) in TROUBLES.iter().enumerate() {
            let key = (index as u32).to_ne_bytes();
            let read = self.troubles_map.lookup(&key, MapFlags::ANY).ok().flatten();
            let count = read.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
            if count <= std::mem::replace(&mut self.troubles[index], count) {
                continue;
            }
            tracing::warn!("{reason}");
            missed |= index == TROUBLE_EVENTS_FULL;
            if index != TROUBLE_NO_SLOT {
                self.add_gap((*reason).to_owned());
            }
        }
        self.last_check_ns = clock::boot_ns();
        missed
    }

    fn add_gap(&mut self, reason: String) {
        let gap = Gap { from_ns: self.last_check_ns, to_ns: clock::boot_ns(), reason };
        self.gaps.push_back((self.gap_count, gap));
        self.gap_count += 1;
        if self.gaps.len() > MAX_GAPS {
            self.gaps.pop_front();
        }
    }
}

/// Reads `struct tracker_event`.
fn parse_event(bytes: &[u8]) -> Option<Event> {
    let u32_at = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let id = u64_at(8)?;
    match u32_at(0)? {
        0 => {
            let path = bytes.get(24..)?;
            let path = String::from_utf8_lossy(path.strip_suffix(b"\0").unwrap_or(path)).into_owned();
            Some(Event::Made { id, parent: u64_at(16)?, slot: u32_at(4)?, path })
        }
        1 => Some(Event::Removed { id }),
        _ => None,
    }
}

/// All cgroups: id, parent's id, path in the hierarchy. Parents come before their children.
fn walk(hierarchy: &Path) -> Vec<(u64, Option<u64>, String)> {
    let mut found = Vec::new();
    let mut open = vec![(hierarchy.to_owned(), String::new(), None)];
    while let Some((directory, path, parent)) = open.pop() {
        // Directories come and go while this runs; one that is gone is told by the kernel.
        let Ok(metadata) = fs::symlink_metadata(&directory) else { continue };
        let id = metadata.ino();
        found.push((id, parent, if path.is_empty() { "/".to_owned() } else { path.clone() }));
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name();
                open.push((entry.path(), format!("{path}/{}", name.to_string_lossy()), Some(id)));
            }
        }
    }
    found
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_are_read_as_the_kernel_writes_them() {
        let bytes = [&0u32.to_ne_bytes()[..], &5u32.to_ne_bytes(), &7u64.to_ne_bytes(), &3u64.to_ne_bytes(), b"/a/b\0"];
        let Some(Event::Made { id, parent, slot, path }) = parse_event(&bytes.concat()) else { panic!("no event") };
        assert_eq!((id, parent, slot, path.as_str()), (7, 3, 5, "/a/b"));
    }

    proptest! {
        #[test]
        fn any_event_is_read_or_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_event(&bytes);
        }
    }
}
