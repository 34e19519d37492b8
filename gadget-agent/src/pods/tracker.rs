//! Follows the cgroup hierarchy.
//!
//! The programs are attached first and the hierarchy is walked second, so nothing is missed in between; both are merged
//! by cgroup id. The kernel tells of a new cgroup before it can be entered. Whoever meets an unknown id in a record
//! therefore only has to read the tracker's ring to its end ([`Tracker::get`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use gadgets::record::Header;
use gadgets::spec::Selector;
use gadgets::wire::Gap;
use libbpf_rs::MapHandle;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bundle::Bundles;
use super::cgroup::Cgroup;
use super::directory::Directory;
use super::hierarchy::Hierarchy;
use super::kernel::{Filter, Kernel, Trouble};
use super::pod::Pod;
use crate::clock;
use crate::error::AgentError;
use crate::sync::lock;

/// How often names that are missing are looked for.
const NAMING_RETRY: Duration = Duration::from_millis(20);
/// How often the rest is looked after.
const TICK: Duration = Duration::from_secs(2);
/// Gaps that are remembered for sessions to pick up.
const MAX_GAPS: usize = 64;
/// Room in the kernel's map for cgroups: four times what there is, and at least this.
const MIN_CGROUPS: usize = 16384;

/// What is known of the hierarchy, kept up to date by a thread of its own.
pub(crate) struct Tracker {
    /// What gadgets share with it.
    pub(crate) filter: Filter,
    hierarchy: Hierarchy,
    ring: Arc<MapHandle>,
    directory: Mutex<Directory>,
    gaps: Mutex<Gaps>,
    /// Changes whenever an answer of [`Tracker::get`] may.
    generation: AtomicU64,
}

/// What the API server says of the node's pods.
pub(crate) enum PodNews {
    /// These there are.
    All(Vec<Pod>),
    /// This one is new, or has changed.
    Changed(Pod),
    /// The one with this UID is gone.
    Deleted(String),
    /// These are the names of the containers of the one with this UID, by their ids.
    Containers(String, HashMap<String, String>),
}

/// Times in which containers may have been missed: the last ones, numbered.
struct Gaps {
    recent: VecDeque<(u64, Gap)>,
    count: u64,
    checked_ns: u64,
}

impl Tracker {
    /// Loads and attaches the tracker, and learns what there is.
    ///
    /// # Errors
    /// If the kernel refuses its programs.
    pub(crate) fn start(hierarchy: Hierarchy, bundles: Bundles) -> Result<Arc<Self>, AgentError> {
        let mut existing = 0;
        hierarchy.walk(&mut |_| existing += 1);
        let room = (existing * 4).max(MIN_CGROUPS);
        let parts = Kernel::attach(u32::try_from(room).unwrap_or(u32::MAX), hierarchy.kernel_ids()?)?;
        let mut directory = Directory::new(hierarchy.clone(), parts.kernel, parts.slots, bundles);
        directory.merge_walk();
        let tracker = Arc::new(Self {
            filter: parts.filter,
            hierarchy,
            ring: Arc::new(parts.ring),
            directory: Mutex::new(directory),
            gaps: Mutex::new(Gaps { recent: VecDeque::new(), count: 0, checked_ns: clock::boot_ns() }),
            generation: AtomicU64::new(1),
        });
        let weak = Arc::downgrade(&tracker);
        std::thread::Builder::new()
            .name("tracker".into())
            .spawn(move || keep_up(&weak))
            .map_err(|error| AgentError::internal("start a thread", error))?;
        Ok(tracker)
    }

    /// Changes whenever an answer of [`Tracker::get`] may.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The cgroup with this id; `None` if it belongs to no container and nobody named it.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Cgroup>> {
        let mut directory = self.lock();
        if let Some(known) = directory.get(id) {
            return Some(Arc::clone(known));
        }
        // The kernel told of it before the record was written: catch up, and it is known or it is the host's.
        self.catch_up(&mut directory);
        directory.get(id).cloned()
    }

    /// Whose a record is: its cgroup's, or if it names none that of all in its slot.
    pub(crate) fn owner(&self, header: &Header) -> Option<Arc<Cgroup>> {
        if header.cgroup == 0 { Cgroup::of_all(&self.in_slot(header.slot)) } else { self.get(header.cgroup) }
    }

    /// Whether the cgroup with this id is still remembered.
    pub(crate) fn remembers(&self, id: u64) -> bool {
        self.lock().get(id).is_some()
    }

    /// The cgroups in a slot.
    pub(crate) fn in_slot(&self, slot: u32) -> Vec<Arc<Cgroup>> {
        let mut directory = self.lock();
        self.catch_up(&mut directory);
        directory.in_slot(slot)
    }

    /// Says what the instance with this bit wants; nothing any more if `None`.
    pub(crate) fn set_interest(&self, bit: u32, selectors: Option<Vec<Selector>>) {
        self.lock().set_interest(bit, selectors);
    }

    /// Follows a cgroup because a user named it, until [`Tracker::unfollow`]. Takes a path in the hierarchy, or one
    /// through its mount point, and returns the former.
    ///
    /// # Errors
    /// If there is no such cgroup.
    pub(crate) fn follow(&self, path: &str) -> Result<String, AgentError> {
        let path = self.hierarchy.resolve(path).ok_or_else(|| {
            AgentError::NotFound(format!(
                "no cgroup {path:?} below {}; give a path as in /proc/PID/cgroup",
                self.root()
            ))
        })?;
        self.lock().follow(&path);
        self.changed();
        Ok(path)
    }

    /// Takes back one [`Tracker::follow`].
    pub(crate) fn unfollow(&self, path: &str) {
        self.lock().unfollow(path);
        self.changed();
    }

    /// Which part of the hierarchy is this node's.
    pub(crate) fn root(&self) -> &str {
        self.hierarchy.root()
    }

    /// Whether what is outside of containers is this node's too.
    pub(crate) fn owns_kernel(&self) -> bool {
        self.hierarchy.is_whole_kernel()
    }

    /// How many containers are known; and how many pods, if the API server is asked.
    pub(crate) fn count(&self) -> (usize, Option<usize>) {
        self.lock().count()
    }

    /// What costs more than it should, in words.
    pub(crate) fn degraded(&self) -> Vec<String> {
        self.lock().degraded()
    }

    /// How many cgroups let their events through for these: those of a pod do so together.
    pub(crate) fn count_wanted(&self, selectors: &[Selector]) -> usize {
        self.lock().count_wanted(selectors)
    }

    /// Cgroups that are gone, and remembered nevertheless.
    pub(crate) fn removed(&self) -> HashSet<u64> {
        self.lock().removed()
    }

    /// The containers whose cgroups were made after this, CLOCK_BOOTTIME ns.
    pub(crate) fn made_after(&self, after_ns: u64) -> Vec<Arc<Cgroup>> {
        let mut directory = self.lock();
        self.catch_up(&mut directory);
        directory.made_after(after_ns)
    }

    /// Takes in what the API server says of the node's pods.
    pub(crate) fn learn(&self, news: PodNews) {
        let mut directory = self.lock();
        let changed = match news {
            PodNews::All(pods) => directory.replace_pods(pods),
            PodNews::Changed(pod) => directory.set_pod(pod),
            PodNews::Deleted(uid) => {
                directory.remove_pod(&uid);
                false
            }
            PodNews::Containers(uid, names) => directory.name_containers(&uid, &names),
        };
        self.catch_up(&mut directory);
        if changed {
            self.changed();
        }
    }

    /// The ids of a pod's containers whose names nobody has told.
    pub(crate) fn unnamed_containers(&self, uid: &str) -> Vec<String> {
        self.lock().unnamed_containers(uid)
    }

    /// Looks now for what went wrong in the kernel, and not only when it is time.
    pub(crate) fn look_for_gaps(&self) {
        self.check(&mut self.lock());
    }

    /// Times in which containers may have been missed, after the `seen` first ones; and how many there are by now.
    pub(crate) fn gaps(&self, seen: u64) -> (Vec<Gap>, u64) {
        let gaps = lock(&self.gaps);
        let new = gaps.recent.iter().filter(|(number, _)| *number >= seen).map(|(_, gap)| gap.clone()).collect();
        (new, gaps.count)
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        lock(&self.directory)
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn catch_up(&self, directory: &mut Directory) {
        if directory.catch_up() {
            self.changed();
        }
    }

    /// Mends and reports what went wrong in the kernel.
    fn check(&self, directory: &mut Directory) {
        directory.place_left_out();
        let troubles = directory.new_troubles();
        let mut gaps = lock(&self.gaps);
        let from_ns = std::mem::replace(&mut gaps.checked_ns, clock::boot_ns());
        for trouble in troubles {
            tracing::warn!("{}", trouble.reason());
            if trouble == Trouble::EventsFull {
                directory.merge_walk();
                self.changed();
            }
            // A pod without a slot of its own costs time, and no events.
            if trouble != Trouble::NoSlot {
                let gap = Gap { from_ns, to_ns: gaps.checked_ns, reason: trouble.reason().to_owned() };
                let number = gaps.count;
                gaps.recent.push_back((number, gap));
                gaps.count += 1;
            }
        }
        let excess = gaps.recent.len().saturating_sub(MAX_GAPS);
        gaps.recent.drain(..excess);
    }
}

/// The tracker's thread. It ends with the tracker.
fn keep_up(tracker: &Weak<Tracker>) {
    let mut last_check = Instant::now();
    loop {
        let Some(strong) = tracker.upgrade() else { return };
        let mut directory = strong.lock();
        strong.catch_up(&mut directory);
        if last_check.elapsed() >= TICK {
            last_check = Instant::now();
            strong.check(&mut directory);
        }
        let rest = match (directory.stock_slots(), directory.has_pending()) {
            (true, _) => Duration::ZERO,
            (_, true) => NAMING_RETRY,
            (false, false) => TICK,
        };
        drop(directory);
        // While this thread rests it keeps only the ring's descriptor, so that the tracker can go.
        let ring = Arc::clone(&strong.ring);
        drop(strong);
        let mut polled = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut polled, PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX));
    }
}
