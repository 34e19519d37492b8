//! What is known of the hierarchy: whose each cgroup is, which slot it is in, and who wants that slot.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gadgets::spec::Selector;

use super::bundle::{Bundles, Names};
use super::cgroup::{Cgroup, Naming};
use super::kernel::{Event, Kernel, Level, Trouble};
use super::path::identify;
use super::selection::{Verdict, is_within, slot_is_wanted, verdict};
use super::slots::{self, Slots};

/// How long a removed cgroup is remembered: its last events may still be on their way.
const REMEMBER: Duration = Duration::from_secs(30);
/// How long a new container's names are looked for.
const NAMING: Duration = Duration::from_secs(2);

/// All cgroups that belong to a pod or container, or to what a user named.
pub(crate) struct Directory {
    kernel: Kernel,
    slots: Slots,
    bundles: Bundles,
    cgroups: HashMap<u64, Arc<Cgroup>>,
    /// Cgroups whose names are still looked for.
    pending: Vec<u64>,
    /// Cgroups that are gone, and when to forget them.
    removed: VecDeque<(Instant, u64)>,
    /// What users named, and how many sessions did.
    followed: BTreeMap<String, usize>,
    /// What each instance's sessions want, by the instance's bit.
    interests: BTreeMap<u32, Vec<Selector>>,
}

impl Directory {
    /// For programs that were just attached. Knows nothing before the first [`Directory::merge_walk`].
    pub(crate) fn new(kernel: Kernel, slots: Slots, bundles: Bundles) -> Self {
        Self {
            kernel,
            slots,
            bundles,
            cgroups: HashMap::new(),
            pending: Vec::new(),
            removed: VecDeque::new(),
            followed: BTreeMap::new(),
            interests: BTreeMap::new(),
        }
    }

    /// The cgroup with this id, if it is known.
    pub(crate) fn get(&self, id: u64) -> Option<&Arc<Cgroup>> {
        self.cgroups.get(&id)
    }

    /// The cgroups in a slot.
    pub(crate) fn in_slot(&self, slot: u32) -> Vec<Arc<Cgroup>> {
        self.slots.members(slot).filter_map(|id| self.cgroups.get(&id).cloned()).collect()
    }

    /// Whether names are still looked for.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes in what has happened. Returns whether anything changed.
    pub(crate) fn catch_up(&mut self) -> bool {
        self.read_events() | self.name_pending() | self.forget_removed()
    }

    /// Says what the instance with this bit wants; nothing any more if `None`.
    pub(crate) fn set_interest(&mut self, bit: u32, selectors: Option<Vec<Selector>>) {
        match selectors {
            Some(selectors) => self.interests.insert(bit, selectors),
            None => self.interests.remove(&bit),
        };
        for slot in self.slots.in_use() {
            self.set_mask(slot);
        }
        self.set_mask(slots::HOST);
    }

    /// Follows the cgroup at this path and all below, until [`Directory::unfollow`].
    pub(crate) fn follow(&mut self, path: &str, hierarchy: &Path) {
        *self.followed.entry(path.to_owned()).or_default() += 1;
        self.merge_walk(hierarchy);
    }

    /// Takes back one [`Directory::follow`].
    pub(crate) fn unfollow(&mut self, path: &str) {
        let Some(count) = self.followed.get_mut(path) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.followed.remove(path);
        let is_left =
            |cgroup: &&Arc<Cgroup>| cgroup.identity.is_none() && self.followed_ancestor(&cgroup.path).is_none();
        let left: Vec<u64> = self.cgroups.values().filter(is_left).map(|cgroup| cgroup.id).collect();
        left.into_iter().for_each(|id| self.forget(id));
    }

    /// Adds what is in the hierarchy and not yet known; parents come before their children.
    pub(crate) fn merge_walk(&mut self, hierarchy: &Path) {
        self.read_events();
        for (id, parent, path) in walk(hierarchy) {
            self.insert(id, parent, &path, None);
        }
    }

    /// What went wrong in the kernel since the last call.
    pub(crate) fn new_troubles(&mut self) -> Vec<Trouble> {
        self.kernel.new_troubles()
    }

    /// Takes in what the kernel told. Returns whether that was anything.
    fn read_events(&mut self) -> bool {
        let events = self.kernel.take_events();
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
            (Some(identity), _) if identity.pod_uid.is_some() => (identity.unit.clone(), Level::Pod),
            (Some(identity), _) => (identity.unit.clone(), Level::Container),
            (None, Some(followed)) => (followed, Level::Other),
            (None, None) => return self.reject(id, chosen),
        };
        let slot = self.slots.of_unit(&unit, chosen);
        if chosen != Some(slot)
            && let Err(error) = self.kernel.set_entry(id, slot, level)
        {
            tracing::warn!("{path} counts as the host's: {error}");
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
        self.set_mask(slot);
    }

    /// The kernel took a cgroup for a container's that is none.
    fn reject(&mut self, id: u64, chosen: Option<u32>) {
        if let Some(slot) = chosen {
            self.kernel.remove_entry(id);
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
            self.set_mask(cgroup.slot);
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
        let left = self.in_slot(slot);
        let is_pod_only = left.iter().all(|cgroup| {
            cgroup.identity.as_ref().is_some_and(|whose| whose.pod_uid.is_some() && whose.container_id.is_none())
        });
        if slot != slots::SHARED && is_pod_only {
            left.iter().for_each(|cgroup| self.forget(cgroup.id));
        }
    }

    fn forget(&mut self, id: u64) {
        let Some(cgroup) = self.cgroups.remove(&id) else { return };
        self.kernel.remove_entry(id);
        self.slots.remove(cgroup.slot, id);
        self.set_mask(cgroup.slot);
    }

    /// The path that a user named and that this one is at or below.
    fn followed_ancestor(&self, path: &str) -> Option<String> {
        self.followed.keys().find(|followed| is_within(path, followed)).cloned()
    }

    /// Says in the kernel which instances want a slot.
    fn set_mask(&self, slot: u32) {
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
}

/// All cgroups: id, parent's id, path in the hierarchy. Parents come before their children.
pub(crate) fn walk(hierarchy: &Path) -> Vec<(u64, Option<u64>, String)> {
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
