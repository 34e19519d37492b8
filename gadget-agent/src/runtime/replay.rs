//! What a recorder has, on its way to one session: in the order of the records' times.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use gadgets::record::Header;

use super::page::{Head, Page};

/// Of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    /// The cgroup whose records these are.
    pub(super) cgroup: u64,
    /// The time of the last one that was written over. Older ones may be there still: some processor has not gone on from its page.
    pub(super) overwritten_to: u64,
    /// How many were written over, if any of these are wanted.
    pub(super) overwritten: u64,
    /// Only what came after this is wanted.
    pub(super) after_ns: u64,
}

/// Pages being given out. On each page records are in the order of their times already.
#[derive(Default)]
pub(crate) struct Replay {
    /// Those that were not begun: the last is next.
    waiting: Vec<Head>,
    open: Vec<Page>,
    /// The next record of each of these, by time.
    next: BinaryHeap<Reverse<(u64, usize)>>,
    given_to_ns: u64,
    /// Nothing of after this is given out.
    until_ns: u64,
    /// By the queues' tags.
    parts: HashMap<u32, Part>,
    /// What comes after all of that.
    end: Vec<u8>,
    /// Records that would have been given out, if they had not been written over: by cgroup.
    lost: BTreeMap<u64, u64>,
}

impl Replay {
    /// Of pages of these queues. Until it is over everything of before `began_ns` counts as given out.
    pub(super) fn new(mut waiting: Vec<Head>, parts: HashMap<u32, Part>, began_ns: u64, until_ns: u64) -> Self {
        waiting.retain(|head| parts.get(&head.queue).is_some_and(|part| head.last_ns > part.after_ns));
        waiting.sort_unstable_by_key(|head| Reverse(head.first_ns));
        let mut lost = BTreeMap::new();
        for part in parts.values() {
            *lost.entry(part.cgroup).or_default() += part.overwritten;
        }
        Self { waiting, given_to_ns: began_ns, until_ns, parts, lost, ..Self::default() }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.next.is_empty() && self.end.is_empty()
    }

    /// Adds records to its end.
    pub(crate) fn end_with(&mut self, records: Vec<u8>) {
        self.end = records;
    }

    /// Up to when everything was given out.
    pub(crate) fn given_to_ns(&self) -> u64 {
        if self.is_over() { self.until_ns } else { self.given_to_ns }
    }

    /// What is missing of each cgroup's, and was not told yet. All of it is known when this is over.
    pub(crate) fn take_lost(&mut self) -> BTreeMap<u64, u64> {
        std::mem::take(&mut self.lost)
    }

    /// Adds records to `records`, up to about so many bytes. Stops before one that is not to be given out yet. `read` has pages.
    pub(super) fn take(
        &mut self,
        records: &mut Vec<u8>,
        bytes: usize,
        mut is_ready: impl FnMut(&Header) -> bool,
        mut read: impl FnMut(u32) -> Option<Page>,
    ) {
        while records.len() < bytes && !self.is_over() {
            if self.waiting.is_empty() && self.next.is_empty() {
                records.append(&mut self.end);
                return;
            }
            while let Some(head) = self.due() {
                self.open(head, read(head.number).filter(|page| page.head.round == head.round));
            }
            if !self.take_one(records, &mut is_ready) {
                return;
            }
        }
    }

    /// The next page, if what is on it may come before all that is open.
    fn due(&mut self) -> Option<Head> {
        let head = self.waiting.last()?;
        let is_due = self.next.peek().is_none_or(|Reverse((next_ns, _))| head.first_ns <= *next_ns);
        if is_due { self.waiting.pop() } else { None }
    }

    /// Begins a page; `None` if it was written over since.
    fn open(&mut self, head: Head, page: Option<Page>) {
        let Some(page) = page else {
            let cgroup = self.parts.get(&head.queue).map(|part| part.cgroup);
            *self.lost.entry(cgroup.unwrap_or_default()).or_default() += u64::from(head.count);
            return;
        };
        let Some(header) = page.next() else { return };
        // The places of those that are over are used again.
        let place = self.open.iter().position(Page::is_read).unwrap_or(self.open.len());
        if place == self.open.len() {
            self.open.push(page);
        } else {
            self.open[place] = page;
        }
        self.next.push(Reverse((header.time, place)));
    }

    /// Returns whether the next one was ready.
    fn take_one(&mut self, records: &mut Vec<u8>, is_ready: &mut impl FnMut(&Header) -> bool) -> bool {
        let Some(Reverse((time_ns, place))) = self.next.pop() else { return true };
        let page = &mut self.open[place];
        let part = self.parts.get(&page.head.queue).copied().unwrap_or_default();
        let is_wanted = time_ns > part.after_ns && time_ns <= self.until_ns;
        let is_given = is_wanted && time_ns > part.overwritten_to;
        if is_given && page.next().is_some_and(|header| !is_ready(&header)) {
            self.next.push(Reverse((time_ns, place)));
            return false;
        }
        self.given_to_ns = time_ns;
        if let Some(record) = page.take() {
            if is_given {
                records.extend_from_slice(record);
            } else if is_wanted {
                *self.lost.entry(part.cgroup).or_default() += 1;
            }
        }
        if let Some(header) = page.next() {
            self.next.push(Reverse((header.time, place)));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use gadgets::record::HEADER_SIZE;
    use proptest::prelude::*;

    use super::super::page::tests::page;
    use super::*;

    const QUEUE: u32 = 1 << 16 | 7;
    const CGROUP: u64 = 99;
    /// Records of up to the first were written over; those of after the second are too new.
    const OVERWRITTEN_TO: u64 = 100;
    const UNTIL: u64 = 900;

    /// Times of what is given out, and the number of those that are missing.
    fn replayed(pages: &[Vec<u64>], after_ns: u64, is_there: impl Fn(u32) -> bool) -> (Vec<u64>, u64) {
        let read = |number: u32| Page::of(number, page(2, QUEUE, &pages[number as usize]));
        let heads = (0..pages.len() as u32).filter_map(|number| Some(read(number)?.head)).collect();
        let part = Part { cgroup: CGROUP, overwritten_to: OVERWRITTEN_TO, overwritten: 5, after_ns };
        let mut replay = Replay::new(heads, [(QUEUE, part)].into(), 0, UNTIL);
        let mut records = Vec::new();
        while !replay.is_over() {
            replay.take(&mut records, usize::MAX, |_| true, |number| read(number).filter(|_| is_there(number)));
        }
        let times = records.chunks(HEADER_SIZE).map(|record| Header::read(record).expect("a record").time).collect();
        let lost = replay.take_lost();
        assert!(lost.keys().all(|cgroup| *cgroup == CGROUP));
        (times, lost.values().sum())
    }

    #[test]
    fn what_was_written_over_meanwhile_is_lost() {
        let pages = [vec![200, 300], vec![250, 260, 270]];
        assert_eq!(replayed(&pages, 0, |_| true), (vec![200, 250, 260, 270, 300], 5));
        assert_eq!(replayed(&pages, 0, |number| number == 0), (vec![200, 300], 5 + 3));
        assert_eq!(replayed(&pages, 260, |_| true), (vec![270, 300], 5));
    }

    #[test]
    fn one_that_is_not_ready_holds_up_the_rest() {
        let read = |number: u32| Page::of(number, page(2, QUEUE, &[200, 300]));
        let heads = vec![read(0).expect("a page").head];
        let mut replay = Replay::new(heads, [(QUEUE, Part::default())].into(), 0, u64::MAX);
        let mut records = Vec::new();
        replay.take(&mut records, usize::MAX, |header| header.time < 300, read);
        assert_eq!((records.len(), replay.is_over()), (HEADER_SIZE, false));
        replay.end_with(vec![7]);
        replay.take(&mut records, usize::MAX, |_| true, read);
        assert_eq!((records.len(), records.last(), replay.is_over()), (2 * HEADER_SIZE + 1, Some(&7), true));
    }

    proptest! {
        #[test]
        fn records_come_in_the_order_of_their_times(mut pages in prop::collection::vec(prop::collection::vec(0u64..1000, 1..20), 0..20)) {
            pages.iter_mut().for_each(|times| times.sort_unstable());
            let (given, lost) = replayed(&pages, 0, |_| true);
            let mut all: Vec<u64> = pages.concat().into_iter().filter(|time| (1..=UNTIL).contains(time)).collect();
            all.sort_unstable();
            let older = all.iter().filter(|time| **time <= OVERWRITTEN_TO).count();
            prop_assert_eq!(&given, &all[older..]);
            prop_assert_eq!(lost, 5 + older as u64);
        }
    }
}
