//! A recorder: a gadget's last records of each container, in memory that is written over. The kernel side is
//! `bpf/include/recorder.h`, which says how; here is who has how many pages. [`super::replay`] gives out what is on them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

use gadgets::record::{HEADER_SIZE, Header};
use gadgets::spec::Past;
use gadgets::wire::ProcessEnd;
use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Object};

use super::load;
use super::page::{Head, PAGE, Page};
use super::place::{self, Place, Turns};
use super::queue::{FIRST_USE, Owner, Queue, pop};
use super::recorded::{Forgotten, Kept, Recorded, kept};
use super::replay::{Part, Replay};
use crate::clock;
use crate::error::AgentError;
use crate::pods::cgroup::Cgroup;
use crate::pods::slots;
use crate::pods::tracker::Tracker;

/// In [`Header::stream`]: no record, but a cgroup that has taken a spare queue (`RECORDER_NOTICE`), or its first process has ended
/// (`RECORDER_END`).
const NOTICE: u16 = 0xffff;
const END: u16 = 0xfffe;

/// Queues that there can be: of containers, and spare ones. A container that is gone makes room for another.
const QUEUES: u32 = 256;
/// Spare ones, for containers that are started before the next look at things.
const SPARES: usize = 32;
/// Those that are made at once.
const AT_ONCE: u32 = 64;
/// Pages of a spare one.
const SPARE_PAGES: u32 = 8;
/// Bytes of records that are read at a time.
const CHUNK: usize = 64 << 10;

/// Pages in so many bytes, of which an eighth is for queues: each has room for all pages, two bytes for each.
fn pages(bytes: u32) -> u32 {
    bytes / 8 * 7 / PAGE
}

/// Entries of the maps of a recorder that may take so many bytes.
pub(crate) fn entries(bytes: u32) -> [(&'static str, u32); 7] {
    [
        // They count from 1.
        ("recorder_pages", pages(bytes) + 1),
        ("recorder_free", pages(bytes)),
        ("recorder_queues", QUEUES),
        ("recorder_places", QUEUES),
        ("recorder_owners", QUEUES),
        ("recorder_takers", QUEUES),
        ("recorder_spares", QUEUES),
    ]
}

/// What one gadget has recorded.
pub(crate) struct Recorder {
    pages: MapHandle,
    free: MapHandle,
    by_number: MapHandle,
    places: MapHandle,
    owners: MapHandle,
    takers: MapHandle,
    spares: MapHandle,
    /// Whether nothing is to be recorded any more.
    stopped: MapHandle,
    /// By their numbers.
    queues: Vec<Queue>,
    /// Numbers of those that had no page left, and have not been given any since.
    needy: BTreeSet<usize>,
    /// Whose records these are, also of those that are gone.
    cgroups: HashMap<u64, Arc<Cgroup>>,
    /// Since when it records.
    pub(crate) began_ns: u64,
    pub(crate) forgotten: Forgotten,
}

impl Recorder {
    /// That of a gadget that was loaded, if it has one.
    ///
    /// # Errors
    /// If the kernel has no memory for it.
    pub(crate) fn of(object: &Object) -> Result<Option<Self>, AgentError> {
        let Ok(pages) = load::map(object, "recorder_pages") else { return Ok(None) };
        let failed = |error: &dyn std::fmt::Display| AgentError::internal("set up the recorder", error);
        let map = |name| load::map(object, name).map_err(|refusal| failed(&refusal));
        let recorder = Self {
            pages,
            free: map("recorder_free")?,
            by_number: map("recorder_queues")?,
            places: map("recorder_places")?,
            owners: map("recorder_owners")?,
            takers: map("recorder_takers")?,
            spares: map("recorder_spares")?,
            stopped: map("recorder_stopped")?,
            queues: Vec::new(),
            needy: BTreeSet::new(),
            cgroups: HashMap::new(),
            began_ns: clock::boot_ns(),
            forgotten: Forgotten::default(),
        };
        let mut numbers = 1..=u16::try_from(recorder.free.max_entries()).unwrap_or(u16::MAX);
        let set_up = numbers.try_for_each(|number| recorder.free.update(&[], &number.to_ne_bytes(), MapFlags::ANY));
        set_up.map_err(|error| failed(&error))?;
        Ok(Some(recorder))
    }

    /// Takes note of what came in place of a record. Returns whether it is that.
    pub(crate) fn note(&mut self, header: &Header, notice: &[u8], tracker: &Tracker) -> bool {
        let word = |at: usize| Some(u32::from_ne_bytes(*notice.get(HEADER_SIZE + at..)?.first_chunk()?));
        match header.stream {
            NOTICE => {
                if let Some(queue) = self.queues.iter_mut().find(|queue| Some(queue.tag) == word(0)) {
                    let (cgroup, slot) = (header.cgroup, header.slot);
                    queue.owner = Some(Owner { cgroup, slot, over_ns: None, end: None });
                }
                self.note_gone(tracker);
                self.make_room();
                self.restock();
            }
            END => {
                let mut owners = self.queues.iter_mut().filter_map(|queue| queue.owner.as_mut());
                if let Some(owner) = owners.find(|owner| owner.cgroup == header.cgroup) {
                    owner.end = Some(ProcessEnd::of(word(0).unwrap_or_default(), word(4) == Some(1)));
                }
            }
            _ => return false,
        }
        true
    }

    /// Looks who is in need of pages, and sees to it that there are spare queues.
    pub(crate) fn look_after(&mut self) {
        for number in 0..self.queues.len() {
            let turns: Turns = self.places(number).iter().map(|place| place.turns).sum();
            let queue = &mut self.queues[number];
            queue.pages += turns.taken.wrapping_sub(queue.turns.taken);
            let is_wanted = queue.owner.as_ref().is_some_and(|owner| owner.over_ns.is_none());
            if turns.returns != queue.turns.returns && is_wanted {
                self.needy.insert(number);
            }
            queue.turns = turns;
        }
        self.make_room();
        self.restock();
    }

    /// Gives one who is in need its share, or twice what it has. Returns whether there may be others: containers may come meanwhile,
    /// so this is not done for all at once.
    pub(crate) fn relieve(&mut self) -> bool {
        let Some(number) = self.needy.pop_first() else { return false };
        let wanting = self.owned().filter(|(_, owner)| owner.over_ns.is_none()).count().max(1) as u32;
        let (pages, share) = (self.queues[number].pages, self.free.max_entries() / wanting);
        self.give(number, pages.max(share.saturating_sub(pages)).max(1));
        true
    }

    /// If there are hardly any queues left, has those used again of whom nothing more is wanted, oldest first. What is there of
    /// them is forgotten.
    fn make_room(&mut self) {
        let missing = SPARES.saturating_sub(self.spare() + QUEUES as usize - self.queues.len());
        let over = self.owned().filter_map(|(queue, owner)| Some((owner.has_failed(), owner.over_ns?, queue.tag)));
        let mut over: Vec<_> = over.collect();
        over.sort_unstable();
        over.truncate(missing);
        // All processors are waited for: not for each container that comes.
        if over.is_empty() || missing < SPARES / 2 {
            return;
        }
        for (.., tag) in &over {
            self.disown(*tag);
        }
        // Somebody of whom nobody wants anything may be at it just now.
        self.wait_for_programs();
        for (.., tag) in over {
            if let Err(error) = self.use_again(tag) {
                tracing::warn!("a queue of the recorder is lost: {error}");
            }
        }
    }

    /// From now on nobody finds the queue.
    fn disown(&self, tag: u32) {
        let owner = self.queues.iter().find(|queue| queue.tag == tag).and_then(|queue| queue.owner.as_ref());
        if let Some(owner) = owner {
            // It may be as new as that its notice has not come; then it is not there under this name.
            let _ = self.owners.delete(&owner.cgroup.to_ne_bytes());
            let nobody = vec![0; self.takers.value_size() as usize];
            let _ = self.takers.update(&(tag % FIRST_USE).to_ne_bytes(), &nobody, MapFlags::ANY);
        }
    }

    /// Makes a queue that nobody finds a spare one.
    fn use_again(&mut self, tag: u32) -> libbpf_rs::Result<()> {
        let number = (tag % FIRST_USE) as usize;
        let places = self.places(number);
        let room = self.free.max_entries();
        let Some(queue) = self.queues.get_mut(number) else { return Ok(()) };
        let made = place::made(&places, queue.tag);
        let owner = queue.owner.take();
        let was_gone = owner.as_ref().is_some_and(Owner::is_gone);
        queue.tag = tag.checked_add(FIRST_USE).unwrap_or(FIRST_USE | number as u32);
        (queue.pages, queue.turns) = (0, Turns::default());
        let tag = queue.tag;
        let filling = if was_gone { Vec::new() } else { place::filled(&places) };
        for page in filling.into_iter().chain(std::iter::from_fn(|| pop(&queue.map))).take(room as usize) {
            self.free.update(&[], &page.to_ne_bytes(), MapFlags::ANY)?;
        }
        let nothing = vec![vec![0; Place::SIZE]; places.len()];
        self.places.update_percpu(&(number as u32).to_ne_bytes(), &nothing, MapFlags::ANY)?;
        self.forgotten.cgroups += 1;
        self.forgotten.records += made;
        if let Some(owner) = owner {
            self.cgroups.remove(&owner.cgroup);
        }
        self.provide(number, tag)
    }

    /// Puts a queue that nobody has among the spare ones.
    fn provide(&mut self, number: usize, tag: u32) -> libbpf_rs::Result<()> {
        let room = self.free.max_entries();
        self.give(number, SPARE_PAGES.min(room / (4 * SPARES as u32)).max(1));
        self.spares.update(&[], &tag.to_ne_bytes(), MapFlags::ANY)
    }

    /// Keeps what the tracker knows of those who have records here: it forgets those that are gone. `is_wanted` says whether
    /// somebody wants what one does, or may come to.
    pub(crate) fn remember(&mut self, tracker: &Tracker, is_wanted: impl Fn(Option<&Cgroup>) -> bool) {
        self.note_gone(tracker);
        for owner in self.queues.iter_mut().filter_map(|queue| queue.owner.as_mut()).filter(|owner| !owner.is_gone()) {
            let known = if owner.slot == slots::HOST { None } else { tracker.get(owner.cgroup) };
            owner.over_ns = if is_wanted(known.as_deref()) { None } else { Some(0) };
            self.cgroups.extend(known.map(|cgroup| (owner.cgroup, cgroup)));
        }
    }

    /// Takes note of those that are gone. From then on all of their memory can be others'.
    fn note_gone(&mut self, tracker: &Tracker) {
        let removed = tracker.removed();
        for number in 0..self.queues.len() {
            let Some(owner) = &mut self.queues[number].owner else { continue };
            let is_forgotten = || owner.slot != slots::HOST && tracker.get(owner.cgroup).is_none();
            if owner.is_gone() || !(removed.contains(&owner.cgroup) || is_forgotten()) {
                continue;
            }
            self.cgroups.extend(tracker.get(owner.cgroup).map(|cgroup| (owner.cgroup, cgroup)));
            owner.over_ns = Some(clock::boot_ns());
            // No processor goes on with these. It counts them as long as it fills them.
            let filling = place::filled(&self.places(number));
            let queue = &mut self.queues[number];
            queue.pages = queue.pages.saturating_sub(filling.len() as u32);
            filling.into_iter().for_each(|page| queue.push(page));
        }
    }

    /// Who has records here, also of those that are gone.
    pub(crate) fn cgroup(&self, id: u64) -> Option<Arc<Cgroup>> {
        self.cgroups.get(&id).cloned()
    }

    /// What processors have noted of a queue.
    fn places(&self, number: usize) -> Vec<Place> {
        let places = self.places.lookup_percpu(&(number as u32).to_ne_bytes(), MapFlags::ANY).ok().flatten();
        places.iter().flatten().filter_map(|bytes| Place::of(bytes)).collect()
    }

    /// The time of the last of a queue's records that was written over; 0 if none was.
    fn overwritten_to(&self, queue: &Queue) -> u64 {
        place::overwritten_to(&self.places(queue.number()), queue.tag)
    }

    /// What is there of each queue, by its tag, and the heads of its pages. What was written over is counted from what there was just
    /// before: of whom records come meanwhile it may be more, but none that is there.
    fn kept(&self) -> (Vec<Head>, HashMap<u32, Kept>) {
        let made = |queue: &Queue| place::made(&self.places(queue.number()), queue.tag);
        let made: Vec<(u32, u64)> = self.owned().map(|(queue, _)| (queue.tag, made(queue))).collect();
        let heads = self.heads();
        let kept = kept(&heads, &made);
        (heads, kept)
    }

    /// Sees to it that so many that are there already find a queue each.
    pub(crate) fn expect(&mut self, cgroups: usize) {
        self.make_spares(cgroups.saturating_sub(self.owned().count()) + SPARES);
    }

    /// How many queues nobody has.
    fn spare(&self) -> usize {
        self.queues.iter().filter(|queue| queue.owner.is_none()).count()
    }

    /// Makes spare queues, as long as there is room for some.
    fn restock(&mut self) {
        if self.spare() <= SPARES / 2 {
            self.make_spares(SPARES);
        }
    }

    fn make_spares(&mut self, wanted: usize) {
        let wanted = (self.queues.len() + wanted.saturating_sub(self.spare())).min(QUEUES as usize);
        while self.queues.len() < wanted {
            let first = self.queues.len() as u32;
            let numbers = first..(first + AT_ONCE).min(wanted as u32);
            // The kernel waits for its processors with each of them: with all at once as long as with one.
            let made: Vec<_> = std::thread::scope(|scope| {
                let this = &*self;
                let making: Vec<_> = numbers.map(|number| scope.spawn(move || this.make_queue(number))).collect();
                making
                    .into_iter()
                    .map(|made| made.join().unwrap_or_else(|_| Err(io::Error::other("a thread failed").into())))
                    .collect()
            });
            for (made, number) in made.into_iter().zip(first..) {
                let tag = FIRST_USE | number;
                let provided = made.and_then(|map| {
                    self.queues.push(Queue { map, tag, pages: 0, turns: Turns::default(), owner: None });
                    self.provide(number as usize, tag)
                });
                if let Err(error) = provided {
                    return tracing::warn!("containers that start now are not recorded: {error}");
                }
            }
        }
    }

    /// A queue of this number.
    fn make_queue(&self, number: u32) -> libbpf_rs::Result<MapHandle> {
        let options = bpf_map_create_opts {
            sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
            ..bpf_map_create_opts::default()
        };
        let map = MapHandle::create(MapType::Queue, Some("recorder_queue"), 0, 2, self.free.max_entries(), &options)?;
        self.set_map(number, &map)?;
        Ok(map)
    }

    /// Gives a queue as many pages, or what can be had: those that nobody has, those of whom nobody wants anything, of who has been
    /// gone for longest, or for that without success, of who has most.
    fn give(&mut self, number: usize, more: u32) {
        let wanted = self.queues[number].pages + more;
        while self.queues[number].pages < wanted
            && let Some(page) = pop(&self.free)
        {
            self.queues[number].push(page);
        }
        let others = self.owned().filter(|(queue, _)| queue.number() != number);
        let mut donors: Vec<_> = others
            .map(|(queue, owner)| {
                let is_needed = owner.over_ns.is_none();
                (is_needed, owner.has_failed(), owner.over_ns, Reverse(queue.pages), queue.number())
            })
            .collect();
        donors.sort_unstable();
        for (is_needed, .., donor) in donors {
            // Those that processors are filling are not in it.
            while self.queues[number].pages < wanted
                && (!is_needed || self.queues[donor].pages > self.queues[number].pages + 1)
                && let Some(page) = pop(&self.queues[donor].map)
            {
                self.queues[donor].pages = self.queues[donor].pages.saturating_sub(1);
                self.queues[number].push(page);
            }
        }
    }

    /// Records no more. What programs have begun is whole when this returns.
    pub(crate) fn stop(&self) {
        let stopped = self.stopped.update(&0u32.to_ne_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY);
        if let Err(error) = stopped {
            tracing::warn!("what is recorded may be written over while it is given out: {error}");
        }
        self.wait_for_programs();
    }

    /// Waits until no program is at what it began before.
    fn wait_for_programs(&self) {
        // Whoever changes a map of maps waits until no program uses what was there.
        if let Some(queue) = self.queues.first() {
            let _ = self.set_map(0, &queue.map);
        }
    }

    fn set_map(&self, number: u32, queue: &MapHandle) -> libbpf_rs::Result<()> {
        self.by_number.update(&number.to_ne_bytes(), &queue.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)
    }

    /// What was recorded until now: of each container all that came after what was written over last, as far as it is wanted.
    pub(crate) fn begin_replay(&self, past: &Past) -> Replay {
        let now = clock::boot_ns();
        let since = past.since_ms.map(|ms| now.saturating_sub(u64::from(ms) * 1_000_000)).unwrap_or_default();
        let (heads, kept) = self.kept();
        let parts = self.owned().map(|(queue, owner)| {
            let overwritten_to = self.overwritten_to(queue);
            let overwritten = kept.get(&queue.tag).map_or(0, |kept| kept.overwritten);
            let last = past.last.and_then(|last| self.nth_last(&heads, queue.tag, last));
            let after_ns = since.max(last.map_or(0, |time| time.saturating_sub(1)));
            // Of what is older nobody wants to know.
            let overwritten = if after_ns < overwritten_to || after_ns == 0 { overwritten } else { 0 };
            (queue.tag, Part { cgroup: owner.cgroup, overwritten_to, overwritten, after_ns })
        });
        let parts = parts.collect();
        Replay::new(heads, parts, self.began_ns, now)
    }

    /// What has come since, or before that was given out. Times up to which a cgroup's records were written over in between.
    pub(crate) fn go_on(&self, former: &Replay) -> (Replay, Vec<(u64, u64)>) {
        let (now, after_ns) = (clock::boot_ns(), former.given_to_ns());
        let mut missed = Vec::new();
        let parts = self.owned().map(|(queue, owner)| {
            let overwritten_to = self.overwritten_to(queue);
            if overwritten_to > after_ns {
                missed.push((owner.cgroup, overwritten_to));
            }
            (queue.tag, Part { cgroup: owner.cgroup, overwritten_to, overwritten: 0, after_ns })
        });
        let parts = parts.collect();
        (Replay::new(self.heads(), parts, after_ns, now), missed)
    }

    /// Adds the next records of a replay to `records`.
    pub(crate) fn replay(&self, replay: &mut Replay, records: &mut Vec<u8>, is_ready: impl FnMut(&Header) -> bool) {
        replay.take(records, CHUNK, is_ready, |number| self.page(number));
    }

    /// What there is of each cgroup.
    pub(crate) fn recorded(&self) -> Vec<Recorded> {
        let (_, kept) = self.kept();
        let recorded = self.owned().map(|(queue, owner)| {
            let kept = kept.get(&queue.tag);
            Recorded {
                cgroup: self.cgroup(owner.cgroup),
                bytes: u64::from(queue.pages) * u64::from(PAGE),
                kept: kept.map_or(0, |kept| kept.count),
                overwritten: kept.map_or(0, |kept| kept.overwritten),
                between_ns: kept.filter(|kept| kept.count > 0).map(|kept| (kept.first_ns, kept.last_ns)),
                is_gone: owner.is_gone(),
                end: owner.end,
            }
        });
        recorded.collect()
    }

    fn owned(&self) -> impl Iterator<Item = (&Queue, &Owner)> {
        self.queues.iter().filter_map(|queue| Some((queue, queue.owner.as_ref()?)))
    }

    /// The time of the record of a queue after which there are `count - 1`; `None` if there are fewer.
    fn nth_last(&self, heads: &[Head], tag: u32, count: u32) -> Option<u64> {
        let count = count as usize;
        let mut heads: Vec<&Head> = heads.iter().filter(|head| head.queue == tag).collect();
        heads.sort_unstable_by_key(|head| Reverse(head.last_ns));
        let mut times: Vec<u64> = Vec::new();
        for head in heads {
            if count > 0 && times.len() >= count && times[count - 1] > head.last_ns {
                break;
            }
            let page = self.page(head.number).filter(|page| page.head.round == head.round);
            times.extend(page.map(Page::times).unwrap_or_default());
            times.sort_unstable_by_key(|time| Reverse(*time));
        }
        times.get(count.checked_sub(1)?).copied()
    }

    fn heads(&self) -> Vec<Head> {
        (1..self.pages.max_entries()).filter_map(|number| Some(self.copy(number)?.head)).collect()
    }

    /// A page whose parts belong together; `None` if there is nothing on it, or it is just being written over.
    fn page(&self, number: u32) -> Option<Page> {
        let (before, page, after) = (self.copy(number)?, self.copy(number)?, self.copy(number)?);
        // The kernel copies while a processor may write. What was there before the copy is whole in it, if that is still the same
        // page's afterwards.
        let is_same = before.head.round == page.head.round && page.head.round == after.head.round;
        is_same.then(|| page.cut_to(&before))
    }

    fn copy(&self, number: u32) -> Option<Page> {
        Page::of(number, self.pages.lookup(&number.to_ne_bytes(), MapFlags::ANY).ok()??)
    }
}
