//! What is known of the hierarchy: whose each cgroup is, which slot it is in, and who wants that slot.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gadgets::spec::Selector;

use super::bundle::{Bundles, Names};
use super::cgroup::{Cgroup, Naming};
use super::hierarchy::{Found, Hierarchy};
use super::kernel::{Event, Kernel, Level, Placed, Trouble};
use super::path::{Identity, identify};
use super::pod::Pod;
use super::selection::{Verdict, is_within, slot_is_wanted, verdict};
use super::slots::{self, Slots};
use crate::clock;
use crate::runtime::memory;

/// How long a removed cgroup is remembered: its last events may still be on their way.
const REMEMBER: Duration = Duration::from_secs(30);
/// How long a new container's names are looked for.
const NAMING: Duration = Duration::from_secs(2);

/// All cgroups that belong to a pod or container, or to what a user named.
pub(crate) struct Directory {
    hierarchy: Hierarchy,
    kernel: Kernel,
    slots: Slots,
    bundles: Bundles,
    /// The node's pods by UID, as the API server has them; `None` if nobody asks it.
    pods: Option<HashMap<String, Arc<Pod>>>,
    cgroups: HashMap<u64, Arc<Cgroup>>,
    /// Cgroups whose names are still looked for.
    pending: Vec<u64>,
    /// Cgroups that are gone, and when to forget them.
    removed: VecDeque<(Instant, u64)>,
    /// Slots whose masks are to be decided anew.
    changed_slots: BTreeSet<u32>,
    /// What users named, by path.
    followed: BTreeMap<String, Followed>,
    /// What each instance's sessions want, by the instance's bit.
    interests: BTreeMap<u32, Vec<Selector>>,
}

/// A cgroup that users named.
struct Followed {
    slot: u32,
    /// How many named it.
    sessions: usize,
}

impl Directory {
    /// For programs that were just attached. Knows nothing before the first [`Directory::merge_walk`].
    pub(crate) fn new(hierarchy: Hierarchy, kernel: Kernel, slots: Slots, bundles: Bundles) -> Self {
        Self {
            hierarchy,
            kernel,
            slots,
            bundles,
            pods: None,
            cgroups: HashMap::new(),
            pending: Vec::new(),
            removed: VecDeque::new(),
            changed_slots: BTreeSet::new(),
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

    /// How many containers are known; and how many pods, if the API server is asked.
    pub(crate) fn count(&self) -> (usize, Option<usize>) {
        let containers: HashSet<&str> = self.cgroups.values().filter_map(|cgroup| cgroup.container_id()).collect();
        (containers.len(), self.pods.as_ref().map(HashMap::len))
    }

    /// How many cgroups let their events through for these: those of a pod do so together.
    pub(crate) fn count_wanted(&self, selectors: &[Selector]) -> usize {
        let may_want = |cgroup: &Cgroup| selectors.iter().any(|one| verdict(one, Some(cgroup)) != Verdict::Unwanted);
        let wanted = self.cgroups.values().filter(|cgroup| may_want(cgroup));
        let slots: HashSet<u32> = wanted.map(|cgroup| cgroup.slot).collect();
        self.cgroups.values().filter(|cgroup| slots.contains(&cgroup.slot)).count()
    }

    /// Cgroups that are gone, and remembered nevertheless.
    pub(crate) fn removed(&self) -> HashSet<u64> {
        self.removed.iter().map(|(_, id)| *id).collect()
    }

    /// The containers whose cgroups were made after this, CLOCK_BOOTTIME ns.
    pub(crate) fn made_after(&self, after_ns: u64) -> Vec<Arc<Cgroup>> {
        let is_new = |cgroup: &&Arc<Cgroup>| cgroup.made_ns.is_some_and(|made| made > after_ns);
        self.cgroups.values().filter(is_new).cloned().collect()
    }

    /// Takes in all pods of the node. From the first time on, new containers wait a moment for their pods to be known.
    /// Returns whether it changes what is known of a cgroup.
    pub(crate) fn replace_pods(&mut self, pods: Vec<Pod>) -> bool {
        self.pods = Some(HashMap::new());
        pods.into_iter().fold(false, |changed, pod| self.set_pod(pod) | changed)
    }

    /// Takes in a pod that is new or has changed. Returns whether it changes what is known of a cgroup.
    pub(crate) fn set_pod(&mut self, pod: Pod) -> bool {
        let pod = Arc::new(pod);
        let of_pod =
            |cgroup: &&Arc<Cgroup>| cgroup.pod_uid() == Some(&pod.uid) && cgroup.pod.as_deref() != Some(pod.as_ref());
        let changed: Vec<Arc<Cgroup>> = self.cgroups.values().filter(of_pod).cloned().collect();
        for cgroup in &changed {
            let known = Cgroup { pod: Some(Arc::clone(&pod)), ..(**cgroup).clone() };
            self.cgroups.insert(cgroup.id, Arc::new(known));
            self.changed_slots.insert(cgroup.slot);
        }
        if let Some(pods) = &mut self.pods {
            pods.insert(pod.uid.clone(), pod);
        }
        !changed.is_empty()
    }

    fn unnamed(&self, uid: &str) -> impl Iterator<Item = &Arc<Cgroup>> {
        self.cgroups.values().filter(move |cgroup| cgroup.pod_uid() == Some(uid) && cgroup.lacks_name())
    }

    /// The ids of a pod's containers whose names nobody has told.
    pub(crate) fn unnamed_containers(&self, uid: &str) -> Vec<String> {
        let ids: BTreeSet<&str> = self.unnamed(uid).filter_map(|cgroup| cgroup.container_id()).collect();
        ids.into_iter().map(str::to_owned).collect()
    }

    /// Takes in the names of a pod's containers, by their ids. Returns whether any of them lacked its name.
    pub(crate) fn name_containers(&mut self, uid: &str, names: &HashMap<String, String>) -> bool {
        let name_of = |cgroup: &Cgroup| names.get(cgroup.container_id()?).cloned();
        let unnamed: Vec<_> = self.unnamed(uid).cloned().collect();
        let mut named = false;
        for cgroup in unnamed {
            let Some(container) = name_of(&cgroup) else { continue };
            let names = Names { container: Some(container), ..cgroup.names().cloned().unwrap_or_default() };
            self.cgroups.insert(cgroup.id, Arc::new(Cgroup { naming: Naming::Done(names), ..(*cgroup).clone() }));
            self.changed_slots.insert(cgroup.slot);
            named = true;
        }
        named
    }

    /// Forgets a pod that was deleted. What is left of it in the hierarchy keeps its names.
    pub(crate) fn remove_pod(&mut self, uid: &str) {
        if let Some(pods) = &mut self.pods {
            pods.remove(uid);
        }
    }

    /// Whether names are still looked for.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes in what has happened. Returns whether anything changed.
    pub(crate) fn catch_up(&mut self) -> bool {
        let changed = self.read_events() | self.name_pending() | self.forget_removed();
        self.set_changed_masks();
        changed
    }

    /// Says what the instance with this bit wants; nothing any more if `None`.
    pub(crate) fn set_interest(&mut self, bit: u32, selectors: Option<Vec<Selector>>) {
        match selectors {
            Some(selectors) => self.interests.insert(bit, selectors),
            None => self.interests.remove(&bit),
        };
        self.changed_slots.extend(self.slots.in_use());
        self.changed_slots.insert(slots::HOST);
        self.set_changed_masks();
    }

    /// Follows the cgroup at this path and all below, also if it is made anew, until [`Directory::unfollow`].
    pub(crate) fn follow(&mut self, path: &str) {
        if let Some(followed) = self.followed.get_mut(path) {
            followed.sessions += 1;
            return;
        }
        let unit = self.followed_ancestor(path).unwrap_or_else(|| path.to_owned());
        let slot = self.slots.of_unit(&unit, None);
        self.slots.pin(slot);
        self.followed.insert(path.to_owned(), Followed { slot, sessions: 1 });
        if let Err(error) = self.kernel.set_name(name_of(path), Some(slot)) {
            tracing::warn!("{path} will not be followed if it is made anew: {error}");
        }
        self.merge_walk();
    }

    /// Takes back one [`Directory::follow`].
    pub(crate) fn unfollow(&mut self, path: &str) {
        let Some(followed) = self.followed.get_mut(path) else { return };
        followed.sessions -= 1;
        if followed.sessions > 0 {
            return;
        }
        let slot = followed.slot;
        self.followed.remove(path);
        let shared = self.followed.iter().find(|(other, _)| name_of(other) == name_of(path));
        // The name may serve another path that is followed; if it is not there, there is nothing to take back.
        let _ = self.kernel.set_name(name_of(path), shared.map(|(_, other)| other.slot));
        let is_left =
            |cgroup: &&Arc<Cgroup>| cgroup.identity.is_none() && self.followed_ancestor(&cgroup.path).is_none();
        let left: Vec<u64> = self.cgroups.values().filter(is_left).map(|cgroup| cgroup.id).collect();
        left.into_iter().for_each(|id| self.forget(id));
        self.slots.unpin(slot);
        self.set_changed_masks();
    }

    /// Adds what is in the hierarchy and not yet known, and notices what is gone.
    pub(crate) fn merge_walk(&mut self) {
        self.bundles.refresh();
        self.read_events();
        let mut missing: HashSet<u64> = self.cgroups.keys().copied().collect();
        self.removed.iter().for_each(|(_, id)| _ = missing.remove(id));
        let hierarchy = self.hierarchy.clone();
        hierarchy.walk(&mut |found| {
            missing.remove(&found.id);
            self.insert_found(found);
        });
        // Their removal was not told: it came before the kernel knew them, or its event was lost.
        missing.into_iter().for_each(|id| self.note_removed(id));
        self.set_changed_masks();
    }

    /// Takes in a cgroup that a walk has found.
    fn insert_found(&mut self, found: &Found<'_>) {
        if self.cgroups.contains_key(&found.id) {
            return;
        }
        let mut placed = self.kernel.entry(found.id);
        if let Some(placed) = &mut placed {
            // The kernel has told of it by now, unless that event was lost.
            self.read_events();
            placed.fresh = placed.slot > slots::SHARED && self.slots.members(placed.slot).next().is_none();
        }
        // Where nobody removes pods' directories (hybrid hosts), most of them are empty, and none needs a slot.
        let is_empty_pod = || {
            let directory = identify(found.path).is_some_and(|whose| whose.container_id.is_none());
            directory && !found.has_children()
        };
        if placed.is_none() && is_empty_pod() {
            return;
        }
        self.insert(found.id, found.parent, found.path, placed, None);
        // One that went before it was in the kernel's map had its removal told to nobody.
        if self.cgroups.contains_key(&found.id) && !found.directory.exists() {
            self.note_removed(found.id);
        }
    }

    fn note_removed(&mut self, id: u64) {
        self.removed.push_back((Instant::now() + REMEMBER, id));
    }

    /// What went wrong in the kernel since the last call.
    pub(crate) fn new_troubles(&mut self) -> Vec<Trouble> {
        self.kernel.new_troubles()
    }

    /// What costs more than it should, in words.
    pub(crate) fn degraded(&self) -> Vec<String> {
        let left_out = self.kernel.left_out().map(|count| {
            format!(
                "{count} cgroups found no room in the kernel's map, so that all of the host is filtered in the agent"
            )
        });
        let shared = self.slots.members(slots::SHARED).count();
        let shared = (shared > 0)
            .then(|| format!("{shared} cgroups found all {} slots taken, and are filtered in the agent", slots::COUNT));
        left_out.into_iter().chain(shared).collect()
    }

    /// If cgroups found no room in the kernel's map, tries again.
    pub(crate) fn place_left_out(&self) {
        let Some(left_out) = self.kernel.left_out() else { return };
        let place = |cgroup: &Arc<Cgroup>| {
            self.kernel.entry(cgroup.id).is_some()
                || self.set_entry(cgroup.id, cgroup.slot, cgroup.identity.as_ref()).is_ok()
        };
        if self.cgroups.values().all(place) {
            self.kernel.set_mended(Some(left_out));
        }
    }

    /// Takes in what the kernel told. Returns whether that was anything.
    fn read_events(&mut self) -> bool {
        let events = self.kernel.take_events();
        let any = !events.is_empty();
        if any {
            self.bundles.refresh();
        }
        for event in events {
            match event {
                Event::Made { id, parent, placed, path } => {
                    self.insert(id, Some(parent), &path, Some(placed), Some(clock::boot_ns()));
                }
                Event::Removed { id } => self.note_removed(id),
            }
        }
        any
    }

    /// Takes in a cgroup, and corrects where the kernel has placed it; `None` if it has not.
    fn insert(&mut self, id: u64, parent: Option<u64>, path: &str, placed: Option<Placed>, made_ns: Option<u64>) {
        // A slot that was taken for this cgroup alone goes back if it ends up in another. One that it inherited is its
        // parent's to keep.
        let taken = placed.filter(|placed| placed.fresh).map(|placed| placed.slot);
        if let Some(known) = self.cgroups.get(&id) {
            let unneeded = taken.filter(|slot| *slot != known.slot);
            unneeded.into_iter().for_each(|slot| self.slots.release_if_empty(slot));
            return;
        }
        // Another node's, on the same kernel.
        if !self.hierarchy.contains(path) {
            return self.reject(id, placed);
        }
        let identity = identify(path);
        let unit = match (&identity, self.followed_ancestor(path)) {
            (Some(identity), _) => identity.unit.clone(),
            (None, Some(followed)) => followed,
            (None, None) => return self.reject(id, placed),
        };
        let slot = self.slots.of_unit(&unit, taken);
        let is_right = |placed: Placed| (placed.slot, placed.level) == (slot, level_of(identity.as_ref()) as u32);
        if !placed.is_some_and(is_right)
            && let Err(error) = self.set_entry(id, slot, identity.as_ref())
        {
            tracing::warn!("{path} is filtered in the agent instead of the kernel: {error}");
            self.kernel.set_mended(None);
        }
        let pod = identity.as_ref().and_then(|identity| self.pod(identity.pod_uid.as_deref()?));
        let naming = match &identity {
            Some(Identity { container_id: Some(container), pod_uid, .. }) => {
                let lacks_pod = pod_uid.is_some() && pod.is_none() && self.pods.is_some();
                self.naming(container, parent, placed.is_some(), lacks_pod)
            }
            _ => Naming::Done(Names::default()),
        };
        if matches!(naming, Naming::Pending { .. }) {
            self.pending.push(id);
        }
        let cgroup = Cgroup { id, path: path.to_owned(), identity, naming, pod, made_ns, slot, is_whole_pod: false };
        self.cgroups.insert(id, Arc::new(cgroup));
        self.slots.add(slot, id);
        taken.filter(|taken| *taken != slot).into_iter().for_each(|slot| self.slots.release_if_empty(slot));
        self.changed_slots.insert(slot);
    }

    fn set_entry(&self, id: u64, slot: u32, identity: Option<&Identity>) -> libbpf_rs::Result<()> {
        // No program runs in a pod's own directory. A container may have started by now.
        let is_pods = identity.is_some_and(|identity| identity.pod_uid.is_some() && identity.container_id.is_none());
        self.kernel.set_entry(id, slot, level_of(identity), is_pods)
    }

    /// The kernel took a cgroup for one that is followed, and it is none.
    fn reject(&mut self, id: u64, placed: Option<Placed>) {
        let Some(placed) = placed else { return };
        self.kernel.remove_entry(id);
        if placed.fresh {
            self.slots.release_if_empty(placed.slot);
        }
    }

    fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.pods.as_ref()?.get(uid).cloned()
    }

    /// A container's names: its parent's if that is inside the same container, else the bundle's. Those of a new one
    /// may still come, and so may its pod.
    fn naming(&mut self, container: &str, parent: Option<u64>, is_new: bool, lacks_pod: bool) -> Naming {
        let parent = parent.and_then(|parent| self.cgroups.get(&parent));
        let same = parent.filter(|parent| parent.container_id() == Some(container));
        if let Some(same) = same {
            return same.naming.clone();
        }
        match self.bundles.names(container) {
            Some(names) if !(is_new && lacks_pod) => Naming::Done(names),
            _ if is_new => Naming::Pending { until: Instant::now() + NAMING },
            names => Naming::Done(names.unwrap_or_default()),
        }
    }

    /// Looks again for names. Returns whether any were decided.
    fn name_pending(&mut self) -> bool {
        let mut decided = false;
        if self.has_pending() {
            self.bundles.refresh();
        }
        for id in std::mem::take(&mut self.pending) {
            let Some(cgroup) = self.cgroups.get(&id).cloned() else { continue };
            let Naming::Pending { until } = cgroup.naming else { continue };
            let names = cgroup.container_id().and_then(|container| self.bundles.names(container));
            let lacks_pod = cgroup.pod_uid().is_some() && cgroup.pod.is_none() && self.pods.is_some();
            if (names.is_none() || lacks_pod) && Instant::now() < until {
                self.pending.push(id);
                continue;
            }
            let naming = Naming::Done(names.unwrap_or_default());
            self.cgroups.insert(id, Arc::new(Cgroup { naming, ..(*cgroup).clone() }));
            self.changed_slots.insert(cgroup.slot);
            decided = true;
        }
        decided
    }

    /// Forgets cgroups that were removed a while ago. Returns whether there were any.
    fn forget_removed(&mut self) -> bool {
        let now = Instant::now();
        let mut left = BTreeSet::new();
        while let Some(&(due, id)) = self.removed.front()
            && due <= now
        {
            self.removed.pop_front();
            left.extend(self.cgroups.get(&id).map(|cgroup| cgroup.slot));
            self.forget(id);
        }
        left.iter().for_each(|slot| self.forget_empty_pod(*slot));
        // The last of many: what they took is worth giving back, once.
        if !left.is_empty() && self.removed.is_empty() {
            memory::give_back();
        }
        !left.is_empty()
    }

    /// On a hybrid host nobody removes a pod's directory: it goes with the pod's last container.
    fn forget_empty_pod(&mut self, slot: u32) {
        let left = self.in_slot(slot);
        let is_pod_only = left.iter().all(|cgroup| cgroup.pod_uid().is_some() && cgroup.container_id().is_none());
        if slot != slots::SHARED && is_pod_only {
            left.iter().for_each(|cgroup| self.forget(cgroup.id));
        }
    }

    fn forget(&mut self, id: u64) {
        let Some(cgroup) = self.cgroups.remove(&id) else { return };
        self.kernel.remove_entry(id);
        self.slots.remove(cgroup.slot, id);
        self.changed_slots.insert(cgroup.slot);
    }

    /// The path that a user named and that this one is at or below.
    fn followed_ancestor(&self, path: &str) -> Option<String> {
        self.followed.keys().find(|followed| is_within(path, followed)).cloned()
    }

    /// Gives the kernel more slots, if there are any that it was not given yet. Returns whether there are still more.
    pub(crate) fn stock_slots(&mut self) -> bool {
        self.slots.stock()
    }

    /// Decides anew who wants the slots in which something has changed: once for however many changes.
    fn set_changed_masks(&mut self) {
        for slot in std::mem::take(&mut self.changed_slots) {
            self.set_mask(slot);
        }
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

fn level_of(identity: Option<&Identity>) -> Level {
    match identity {
        Some(identity) if identity.pod_uid.is_some() => Level::Pod,
        Some(_) => Level::Container,
        None => Level::Other,
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
