//! A recorder: a gadget's last records of each container, in memory that is written over. The kernel side is
//! `bpf/include/recorder.h`, which says how; here is who has how many pages, and what is read from them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

use gadgets::record::{HEADER_SIZE, Header};
use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Object};

use super::load;
use crate::clock;
use crate::error::AgentError;
use crate::pods::cgroup::Cgroup;
use crate::pods::slots;
use crate::pods::tracker::Tracker;

/// In [`Header::stream`]: no record, but a cgroup that has taken a spare queue (`RECORDER_NOTICE`).
pub(crate) const NOTICE: u16 = 0xffff;

/// Bytes of a page, and of its head: `struct recorder_page`.
const PAGE: u32 = 4096;
const PAGE_HEAD: usize = 40;
/// Queues that there can be: of containers, and spare ones. What more containers do is lost, and counted.
const QUEUES: u32 = 256;
/// Spare ones, for containers that are started before the next look at things.
const SPARES: usize = 16;
/// Pages of a spare one.
const SPARE_PAGES: u32 = 8;
/// Bytes of records that are read at a time.
const CHUNK: usize = 64 << 10;

/// Pages in so many bytes, of which an eighth is for queues: each has room for all pages, two bytes for each.
fn pages(bytes: u32) -> u32 {
    bytes / 8 * 7 / PAGE
}

/// Entries of the maps of a recorder that may take so many bytes.
pub(crate) fn entries(bytes: u32) -> [(&'static str, u32); 6] {
    [
        // They count from 1.
        ("recorder_pages", pages(bytes) + 1),
        ("recorder_free", pages(bytes)),
        ("recorder_queues", QUEUES),
        ("recorder_places", QUEUES),
        ("recorder_owners", QUEUES),
        ("recorder_spares", QUEUES),
    ]
}

/// What one gadget has recorded.
pub(crate) struct Recorder {
    pages: MapHandle,
    free: MapHandle,
    by_number: MapHandle,
    places: MapHandle,
    spares: MapHandle,
    /// Whether nothing is to be recorded any more.
    stopped: MapHandle,
    /// By their numbers.
    queues: Vec<Queue>,
    /// Whose records these are, also of those that are gone.
    cgroups: HashMap<u64, Arc<Cgroup>>,
    began_ns: u64,
    replay: Option<Replay>,
}

struct Queue {
    map: MapHandle,
    /// Pages that it has, those that processors are filling included, as of the last look.
    pages: u32,
    /// What processors have counted of it by then.
    turns: Turns,
    owner: Option<Owner>,
}

impl Queue {
    /// Puts a page at its end.
    fn push(&mut self, page: u16) {
        match self.map.update(&[], &page.to_ne_bytes(), MapFlags::ANY) {
            Ok(()) => self.pages += 1,
            Err(error) => tracing::warn!("a page of the recorder is lost: {error}"),
        }
    }
}

/// The oldest page of a queue.
fn pop(queue: &MapHandle) -> Option<u16> {
    let page = queue.lookup_and_delete(&[]).ok()??;
    Some(u16::from_ne_bytes(page.try_into().ok()?))
}

/// The cgroup that has taken a queue.
struct Owner {
    cgroup: u64,
    slot: u32,
    /// Since when nothing more is wanted of it: it was found to be gone. 0 if nobody wants what it does.
    over_ns: Option<u64>,
}

/// How often processors have begun a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turns {
    /// One that nobody had.
    taken: u32,
    /// One of the queue's, which they wrote over.
    returns: u32,
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
        let mut recorder = Self {
            pages,
            free: map("recorder_free")?,
            by_number: map("recorder_queues")?,
            places: map("recorder_places")?,
            spares: map("recorder_spares")?,
            stopped: map("recorder_stopped")?,
            queues: Vec::new(),
            cgroups: HashMap::new(),
            began_ns: clock::boot_ns(),
            replay: None,
        };
        let mut numbers = 1..=u16::try_from(recorder.free.max_entries()).unwrap_or(u16::MAX);
        let set_up = numbers.try_for_each(|number| recorder.free.update(&[], &number.to_ne_bytes(), MapFlags::ANY));
        set_up.and_then(|()| recorder.make_spares()).map_err(|error| failed(&error))?;
        Ok(Some(recorder))
    }

    /// Takes note of a cgroup that has taken a spare queue: what a notice says after its header is the number.
    pub(crate) fn welcome(&mut self, header: &Header, notice: &[u8]) {
        let number =
            notice.get(HEADER_SIZE..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_ne_bytes(*bytes));
        if let Some(queue) = number.and_then(|number| self.queues.get_mut(number as usize)) {
            queue.owner = Some(Owner { cgroup: header.cgroup, slot: header.slot, over_ns: None });
        }
        self.restock();
    }

    /// Gives pages to those who are in need of them, and sees to it that there are spare queues.
    pub(crate) fn look_after(&mut self) {
        let mut needy = Vec::new();
        for number in 0..self.queues.len() {
            let turns = self.turns(number);
            let queue = &mut self.queues[number];
            queue.pages += turns.taken.wrapping_sub(queue.turns.taken);
            let is_wanted = queue.owner.as_ref().is_some_and(|owner| owner.over_ns.is_none());
            if turns.returns != queue.turns.returns && is_wanted {
                needy.push(number);
            }
            queue.turns = turns;
        }
        for number in needy {
            self.give(number, self.queues[number].pages.max(1));
        }
        self.restock();
    }

    /// Keeps what the tracker knows of those who have records here: it forgets those that are gone. `is_wanted` says whether
    /// somebody wants what one does, or may come to.
    pub(crate) fn remember(&mut self, tracker: &Tracker, is_wanted: impl Fn(Option<&Cgroup>) -> bool) {
        for owner in self.queues.iter_mut().filter_map(|queue| queue.owner.as_mut()) {
            let known = if owner.slot == slots::HOST { None } else { tracker.get(owner.cgroup) };
            owner.over_ns = match &known {
                None if owner.slot != slots::HOST => Some(owner.over_ns.unwrap_or_else(clock::boot_ns)),
                known if is_wanted(known.as_deref()) => None,
                _ => Some(0),
            };
            self.cgroups.extend(known.map(|cgroup| (owner.cgroup, cgroup)));
        }
    }

    /// Who has records here, also of those that are gone.
    pub(crate) fn cgroup(&self, id: u64) -> Option<Arc<Cgroup>> {
        self.cgroups.get(&id).cloned()
    }

    /// What processors have noted of a queue: each a `struct recorder_place`.
    fn places(&self, number: usize) -> Vec<Vec<u8>> {
        self.places.lookup_percpu(&(number as u32).to_ne_bytes(), MapFlags::ANY).ok().flatten().unwrap_or_default()
    }

    fn turns(&self, number: usize) -> Turns {
        let u32_at = |place: &[u8], at: usize| Some(u32::from_ne_bytes(*place.get(at..)?.first_chunk()?));
        let of_processor = |place: &Vec<u8>| Some(Turns { taken: u32_at(place, 4)?, returns: u32_at(place, 8)? });
        self.places(number).iter().filter_map(of_processor).fold(Turns::default(), |sum, more| Turns {
            taken: sum.taken.wrapping_add(more.taken),
            returns: sum.returns.wrapping_add(more.returns),
        })
    }

    /// Makes spare queues, as long as there is room for some.
    fn restock(&mut self) {
        if let Err(error) = self.make_spares() {
            tracing::warn!("containers that start now are not recorded: {error}");
        }
    }

    fn make_spares(&mut self) -> libbpf_rs::Result<()> {
        let mut spare = self.queues.iter().filter(|queue| queue.owner.is_none()).count();
        while spare < SPARES && self.queues.len() < QUEUES as usize {
            let options = bpf_map_create_opts {
                sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
                ..bpf_map_create_opts::default()
            };
            let room = self.free.max_entries();
            let map = MapHandle::create(MapType::Queue, Some("recorder_queue"), 0, 2, room, &options)?;
            let number = self.queues.len() as u32;
            self.set_map(number, &map)?;
            self.queues.push(Queue { map, pages: 0, turns: Turns::default(), owner: None });
            self.give(number as usize, SPARE_PAGES.min(room / (4 * SPARES as u32)).max(1));
            self.spares.update(&[], &number.to_ne_bytes(), MapFlags::ANY)?;
            spare += 1;
        }
        Ok(())
    }

    /// Gives a queue as many pages, or what can be had: those that nobody has, those of whom nobody wants anything, of who has been
    /// gone for longest, of who has most.
    fn give(&mut self, number: usize, more: u32) {
        let wanted = self.queues[number].pages + more;
        while self.queues[number].pages < wanted
            && let Some(page) = pop(&self.free)
        {
            self.queues[number].push(page);
        }
        let owned = self.queues.iter().enumerate().filter(|(other, _)| *other != number);
        let owned =
            owned.filter_map(|(other, queue)| Some((queue.owner.as_ref()?.over_ns, Reverse(queue.pages), other)));
        let mut donors: Vec<_> = owned.collect();
        donors.sort_unstable_by_key(|(over_ns, pages, _)| (over_ns.unwrap_or(u64::MAX), *pages));
        for (over_ns, _, donor) in donors {
            // Those that processors are filling are not in it.
            while self.queues[number].pages < wanted
                && (over_ns.is_some() || self.queues[donor].pages > self.queues[number].pages + 1)
                && let Some(page) = pop(&self.queues[donor].map)
            {
                self.queues[donor].pages = self.queues[donor].pages.saturating_sub(1);
                self.queues[number].push(page);
            }
        }
    }

    /// Records no more. What programs have begun is whole when this returns.
    ///
    /// # Errors
    /// If the kernel does not let it.
    fn stop(&self) -> libbpf_rs::Result<()> {
        self.stopped.update(&0u32.to_ne_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY)?;
        // Whoever changes a map of maps waits until no program uses what was there before.
        match self.queues.first() {
            Some(queue) => self.set_map(0, &queue.map),
            None => Ok(()),
        }
    }

    fn set_map(&self, number: u32, queue: &MapHandle) -> libbpf_rs::Result<()> {
        self.by_number.update(&number.to_ne_bytes(), &queue.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)
    }

    /// Begins to give out what was recorded until now: of each container all that came after what was written over last.
    /// Nothing more is recorded.
    pub(crate) fn begin_replay(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!("what is recorded may be written over while it is given out: {error}");
        }
        let cuts = (0..self.queues.len()).map(|number| self.overwritten_to(number)).collect();
        let heads = (1..self.pages.max_entries()).filter_map(|number| Some((number, self.page(number)?)));
        let mut waiting: Vec<_> = heads.map(|(number, page)| (page.first_ns, number, page.round)).collect();
        waiting.sort_unstable_by(|one, other| other.cmp(one));
        self.replay = Some(Replay { waiting, cuts, given_to_ns: self.began_ns, ..Replay::default() });
    }

    /// The time of the last of a queue's records that were written over.
    fn overwritten_to(&self, number: usize) -> u64 {
        let places = self.places(number);
        let times = places.iter().filter_map(|place| Some(u64::from_ne_bytes(*place.get(16..)?.first_chunk()?)));
        times.max().unwrap_or_default()
    }

    /// Records that were passed over, by slot, since older and newer ones are there but some in between are not.
    pub(crate) fn passed_over(&mut self) -> BTreeMap<u32, u64> {
        self.replay.as_mut().map(|replay| std::mem::take(&mut replay.passed_over)).unwrap_or_default()
    }

    /// Whether that has begun.
    pub(crate) fn has_replay(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether something is left of it.
    pub(crate) fn is_replaying(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| !replay.is_over())
    }

    /// Adds the next records to `records`: all of them together are in the order of their times.
    pub(crate) fn replay(&mut self, records: &mut Vec<u8>) {
        let Some(mut replay) = self.replay.take() else { return };
        while records.len() < CHUNK && !replay.is_over() {
            // One that was written over since has nothing to say any more.
            while let Some((number, round)) = replay.due() {
                replay.open(self.page(number).filter(|page| page.round == round));
            }
            replay.take(records);
        }
        self.replay = Some(replay);
    }

    /// Up to when everything was given out.
    pub(crate) fn complete_to(&self) -> u64 {
        match &self.replay {
            None => self.began_ns,
            Some(replay) if replay.is_over() => u64::MAX,
            Some(replay) => replay.given_to_ns,
        }
    }

    /// A page whose parts belong together; `None` if there is nothing on it, or it is just being written over.
    fn page(&self, number: u32) -> Option<Page> {
        let read = || Page::of(self.pages.lookup(&number.to_ne_bytes(), MapFlags::ANY).ok()??);
        // The kernel copies while a processor may write. If the page is in the same round afterwards, what was there before is whole.
        let (page, after) = (read()?, read()?);
        (page.round == after.round).then_some(page)
    }
}

/// A copy of a page.
struct Page {
    round: u32,
    queue: u32,
    first_ns: u64,
    records: Vec<u8>,
    /// Where the next record begins.
    at: usize,
}

impl Page {
    fn of(mut bytes: Vec<u8>) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let (round, queue, used) = (u32_at(0)?, u32_at(4)?, u32_at(12)? as usize);
        let first_ns = u64::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
        let is_whole = round % 2 == 0 && used > 0;
        bytes.truncate(PAGE_HEAD.checked_add(used)?);
        is_whole.then_some(Self { round, queue, first_ns, records: bytes, at: PAGE_HEAD })
    }

    /// The time of the next record.
    fn next_ns(&self) -> Option<u64> {
        Header::read(self.records.get(self.at..)?).ok().map(|header| header.time)
    }

    fn take(&mut self) -> Option<(Header, &[u8])> {
        let rest = self.records.get(self.at..)?;
        let header = Header::read(rest).ok()?;
        self.at += header.size as usize;
        Some((header, &rest[..header.size as usize]))
    }
}

/// Pages being given out, in the order of their records' times. On each page they are in that order already.
#[derive(Default)]
struct Replay {
    /// First time, number and round of those that were not begun: the last is next.
    waiting: Vec<(u64, u32, u32)>,
    open: Vec<Page>,
    /// The next record of each of these, by time.
    next: BinaryHeap<Reverse<(u64, usize)>>,
    given_to_ns: u64,
    /// Of each queue the time of the last record that was written over.
    cuts: Vec<u64>,
    /// Those that are older and are there still, by slot: some processor has not gone on from its page.
    passed_over: BTreeMap<u32, u64>,
}

impl Replay {
    fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.next.is_empty()
    }

    /// Number and round of the next page, if what is on it may come before all that is open.
    fn due(&mut self) -> Option<(u32, u32)> {
        let (first_ns, ..) = self.waiting.last()?;
        let is_due = self.next.peek().is_none_or(|Reverse((next_ns, _))| first_ns <= next_ns);
        if !is_due {
            return None;
        }
        self.waiting.pop().map(|(_, number, round)| (number, round))
    }

    fn open(&mut self, page: Option<Page>) {
        let Some((page, next_ns)) = page.and_then(|page| page.next_ns().map(|next_ns| (page, next_ns))) else { return };
        // The places of those that are over are used again.
        let place = self.open.iter().position(|page| page.records.is_empty()).unwrap_or(self.open.len());
        if place == self.open.len() {
            self.open.push(page);
        } else {
            self.open[place] = page;
        }
        self.next.push(Reverse((next_ns, place)));
    }

    fn take(&mut self, records: &mut Vec<u8>) {
        let Some(Reverse((time_ns, place))) = self.next.pop() else { return };
        self.given_to_ns = time_ns;
        let cut = self.cuts.get(self.open[place].queue as usize).copied().unwrap_or_default();
        match self.open[place].take() {
            Some((header, record)) if header.time > cut => records.extend_from_slice(record),
            Some((header, _)) => *self.passed_over.entry(header.slot).or_default() += 1,
            None => {}
        }
        match self.open[place].next_ns() {
            Some(next_ns) => self.next.push(Reverse((next_ns, place))),
            None => self.open[place].records = Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of a queue whose records of up to 100 were written over.
    const QUEUE: u32 = 1;
    const CUTS: [u64; 2] = [u64::MAX, 100];

    fn page(round: u32, times: &[u64]) -> Vec<u8> {
        let record = |time: &u64| {
            let mut record = vec![0; HEADER_SIZE];
            record[..4].copy_from_slice(&(HEADER_SIZE as u32).to_ne_bytes());
            record[8..16].copy_from_slice(&time.to_ne_bytes());
            record
        };
        let records: Vec<u8> = times.iter().flat_map(record).collect();
        let mut page = [round, QUEUE, 0, records.len() as u32, times.len() as u32, 0].map(u32::to_ne_bytes).concat();
        let ends = [times.first(), times.last()].map(|time| time.copied().unwrap_or_default());
        page.extend(ends.map(u64::to_ne_bytes).concat());
        page.extend(records);
        page.resize(PAGE as usize, 0xff);
        page
    }

    #[test]
    fn a_page_that_is_being_written_over_says_nothing() {
        assert!(Page::of(page(2, &[7])).is_some_and(|page| page.next_ns() == Some(7)));
        assert!(Page::of(page(3, &[7])).is_none());
        assert!(Page::of(page(2, &[])).is_none());
        assert!(Page::of(vec![0; 8]).is_none());
    }

    proptest! {
        #[test]
        fn records_come_in_the_order_of_their_times(mut pages in prop::collection::vec(prop::collection::vec(0u64..1000, 1..20), 0..20)) {
            pages.iter_mut().for_each(|times| times.sort_unstable());
            let mut waiting: Vec<_> = pages.iter().enumerate().map(|(number, times)| (times[0], number as u32, 2)).collect();
            waiting.sort_unstable_by(|one, other| other.cmp(one));
            let mut replay = Replay { waiting, cuts: CUTS.to_vec(), ..Replay::default() };
            let mut records = Vec::new();
            while !replay.is_over() {
                while let Some((number, round)) = replay.due() {
                    replay.open(Page::of(page(round, &pages[number as usize])));
                }
                replay.take(&mut records);
            }
            let given: Vec<u64> = records.chunks(HEADER_SIZE).map(|record| Header::read(record).expect("a record").time).collect();
            let (mut all, older): (Vec<u64>, Vec<u64>) = pages.concat().into_iter().partition(|time| *time > CUTS[1]);
            all.sort_unstable();
            prop_assert_eq!(given, all);
            prop_assert_eq!(replay.passed_over.values().sum::<u64>(), older.len() as u64);
        }
    }
}
