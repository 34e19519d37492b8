//! Puts the streams of many nodes into the order of time.
//!
//! A record is given out when no other node can still send an older one, as far as each has said up to when it is
//! complete. When one has waited for [`HOLD`], so is whatever is older, and it: a node that says nothing, or whose clock
//! is wrong, delays the others by that and no more. (Time in which others are given out is no waiting: where this side is
//! slow, nobody is late.)
//! What explains a stream (its schema, names, losses) keeps its place among the records of its node.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use gadgets::record::{Header, Record};
use gadgets::wire::{Clock, Frame};

use super::inbox::{News, SourceId};

/// How long a record may wait for older ones of other nodes.
const HOLD: Duration = Duration::from_millis(80);

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    Record(SourceId, Record<'a>),
    News(News),
}

/// All streams, and what has come of them.
#[derive(Default)]
pub(crate) struct Merge {
    queues: Vec<Queue>,
    /// News that are next in their queue, and news of no stream.
    ready: VecDeque<Ready>,
    /// The first record of each queue that has one next, by its time in ns since 1970.
    heads: BinaryHeap<Reverse<(u64, SourceId)>>,
    /// The stream whose record was given out last: what is next in it was not looked at yet.
    unsettled: Option<SourceId>,
    /// Since when nothing could be given out without waiting.
    blocked_since: Option<Instant>,
    /// Every node that has nothing waiting is complete to here, ns since 1970; `None` if that must be found anew.
    bound: Option<u64>,
}

enum Ready {
    Of(SourceId),
    News(News),
}

/// What waits of one stream.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Instant, News)>,
    /// The batch whose records are being given out, from this place on, and when it came.
    batch: Vec<u8>,
    at: usize,
    arrived: Option<Instant>,
    clock: Clock,
    /// Complete to here, ns since 1970.
    complete_to: u64,
    /// More may come at any time.
    is_live: bool,
}

impl Queue {
    fn head(&self) -> Option<Header> {
        Header::read(self.batch.get(self.at..)?).ok()
    }
}

impl Merge {
    /// Takes in what has come.
    pub(crate) fn push(&mut self, arrived: Instant, news: News) {
        let source = match &news {
            News::Joined(source, _) | News::Frame(source, _) | News::Dropped(source, _) | News::Broken(source, _) => {
                *source
            }
            News::Ready | News::Notice(_) => return self.ready.push_back(Ready::News(news)),
        };
        if self.queues.len() <= source {
            self.queues.resize_with(source + 1, Queue::default);
        }
        let queue = &mut self.queues[source];
        let was_idle = queue.waiting.is_empty() && queue.head().is_none();
        queue.waiting.push_back((arrived, news));
        if was_idle && self.unsettled != Some(source) {
            self.settle(source);
        }
    }

    /// The next thing in order, if it is time for it.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Next<'_>> {
        if let Some(source) = self.unsettled.take() {
            self.settle(source);
        }
        match self.ready.pop_front() {
            Some(Ready::News(news)) => return Some(Next::News(news)),
            Some(Ready::Of(source)) => {
                let (_, news) = self.queues[source].waiting.pop_front()?;
                self.note(source, &news);
                self.unsettled = Some(source);
                return Some(Next::News(news));
            }
            None => {}
        }
        let &Reverse((time, source)) = self.heads.peek()?;
        if time <= self.bound() {
            self.blocked_since = None;
        } else {
            self.blocked_since.get_or_insert(now);
            if self.next_due().is_none_or(|due| now < due) {
                return None;
            }
        }
        self.heads.pop();
        self.unsettled = Some(source);
        let queue = &mut self.queues[source];
        let header = queue.head()?;
        let start = queue.at;
        queue.at += header.size as usize;
        queue.complete_to = queue.complete_to.max(time);
        Some(Next::Record(source, Record { header, bytes: &queue.batch[start..queue.at] }))
    }

    /// When the next thing is due at the latest; `None` if nothing waits.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let arrived = self.heads.iter().filter_map(|Reverse((_, source))| self.queues[*source].arrived);
        arrived.min().map(|arrived| self.blocked_since.map_or(arrived, |since| since.max(arrived)) + HOLD)
    }

    /// Gives out everything without waiting from now on: nothing more will come.
    pub(crate) fn finish(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.is_live = false);
        self.bound = None;
    }

    /// Finds out what is next in a stream.
    fn settle(&mut self, source: SourceId) {
        let queue = &mut self.queues[source];
        // Its silence holds up the others from now on, or no longer.
        self.bound = None;
        // A batch without a record that can be read is passed over.
        while queue.head().is_none()
            && let Some((_, News::Frame(_, Frame::Batch(_)))) = queue.waiting.front()
            && let Some((arrived, News::Frame(_, Frame::Batch(batch)))) = queue.waiting.pop_front()
        {
            (queue.batch, queue.at, queue.arrived) = (batch, 0, Some(arrived));
        }
        if let Some(header) = queue.head() {
            self.heads.push(Reverse((queue.clock.wall(header.time), source)));
        } else if !queue.waiting.is_empty() {
            self.ready.push_back(Ready::Of(source));
        }
    }

    /// What news of a stream mean for the order.
    fn note(&mut self, source: SourceId, news: &News) {
        let queue = &mut self.queues[source];
        match news {
            News::Frame(_, Frame::Hello(hello)) => {
                if let Some(node) = &hello.node {
                    queue.clock = node.clock;
                    queue.complete_to = node.clock.wall_ns;
                    queue.is_live = true;
                }
            }
            News::Frame(_, Frame::Heartbeat(heartbeat)) => {
                queue.clock = heartbeat.clock.unwrap_or(queue.clock);
                if let Some(boot_ns) = heartbeat.complete_to_ns {
                    queue.complete_to = queue.complete_to.max(queue.clock.wall(boot_ns));
                }
            }
            News::Frame(_, Frame::Trailer(_)) | News::Broken(..) => queue.is_live = false,
            _ => {}
        }
    }

    fn bound(&mut self) -> u64 {
        let queues = &self.queues;
        *self.bound.get_or_insert_with(|| {
            let silent = queues.iter().filter(|queue| queue.is_live && queue.head().is_none());
            silent.map(|queue| queue.complete_to).min().unwrap_or(u64::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gadgets::record::HEADER_SIZE;
    use gadgets::wire::{Gap, Heartbeat, Hello, Node, Trailer};
    use proptest::prelude::*;

    fn record(time: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_SIZE];
        bytes[..4].copy_from_slice(&(HEADER_SIZE as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&time.to_le_bytes());
        bytes
    }

    fn batch(source: SourceId, times: &[u64]) -> News {
        News::Frame(source, Frame::Batch(times.iter().flat_map(|time| record(*time)).collect()))
    }

    fn hello(source: SourceId) -> News {
        let node = Some(Node::default());
        News::Frame(source, Frame::Hello(Box::new(Hello { node, ..Hello::default() })))
    }

    fn heartbeat(source: SourceId, complete_to: u64) -> News {
        News::Frame(source, Frame::Heartbeat(Heartbeat { complete_to_ns: Some(complete_to), ..Heartbeat::default() }))
    }

    /// What is given out at a time: the times of records.
    fn drain(merge: &mut Merge, now: Instant) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(next) = merge.pop(now) {
            if let Next::Record(_, record) = next {
                times.push(record.header.time);
            }
        }
        times
    }

    #[test]
    fn one_stream_waits_for_nobody() {
        let (mut merge, now) = (Merge::default(), Instant::now());
        [hello(0), batch(0, &[3, 5])].into_iter().for_each(|news| merge.push(now, news));
        assert_eq!(drain(&mut merge, now), [3, 5]);
        merge.push(now, batch(0, &[9]));
        assert_eq!(drain(&mut merge, now), [9]);
        assert_eq!(merge.next_due(), None);
    }

    #[test]
    fn a_silent_node_delays_the_others_by_the_hold_and_no_more() {
        let (mut merge, now) = (Merge::default(), Instant::now());
        [hello(0), hello(1), batch(0, &[3])].into_iter().for_each(|news| merge.push(now, news));
        assert_eq!(drain(&mut merge, now), [0; 0]);
        assert_eq!(merge.next_due(), Some(now + HOLD));
        assert_eq!(drain(&mut merge, now + HOLD), [3]);
    }

    #[test]
    fn a_clock_that_is_ahead_delays_nobody_longer() {
        let (mut merge, now) = (Merge::default(), Instant::now());
        [hello(0), hello(1), hello(2), batch(0, &[1000])].into_iter().for_each(|news| merge.push(now, news));
        // Another goes on sending older ones; a third says nothing.
        for step in 1..=10 {
            merge.push(now + step * HOLD / 10, batch(1, &[u64::from(step)]));
        }
        assert_eq!(drain(&mut merge, now), [0; 0]);
        assert!(drain(&mut merge, now + HOLD).ends_with(&[10, 1000]));
    }

    #[test]
    fn a_node_that_is_complete_delays_nobody() {
        let (mut merge, now) = (Merge::default(), Instant::now());
        [hello(0), hello(1), batch(0, &[3, 7]), heartbeat(1, 5)].into_iter().for_each(|news| merge.push(now, news));
        assert_eq!(drain(&mut merge, now), [3]);
        merge.push(now, batch(1, &[6, 8]));
        assert_eq!(drain(&mut merge, now), [6, 7]);
        merge.push(now, News::Broken(0, "gone".into()));
        assert_eq!(drain(&mut merge, now), [8]);
    }

    #[test]
    fn a_batch_without_records_hides_nothing() {
        let (mut merge, now) = (Merge::default(), Instant::now());
        [hello(0), batch(0, &[]), batch(0, &[]), batch(0, &[1])].into_iter().for_each(|news| merge.push(now, news));
        assert_eq!(drain(&mut merge, now), [1]);
    }

    #[test]
    fn what_explains_a_stream_keeps_its_place_in_it() {
        let (mut merge, now) = (Merge::default(), Instant::now());
        let gap = News::Frame(0, Frame::Gap(Gap { from_ns: 0, to_ns: 0, reason: "why".into() }));
        [hello(0), batch(0, &[1]), gap, batch(0, &[2])].into_iter().for_each(|news| merge.push(now, news));
        let mut order = Vec::new();
        while let Some(next) = merge.pop(now) {
            order.push(match next {
                Next::Record(_, record) => record.header.time.to_string(),
                Next::News(News::Frame(_, frame)) => frame.name().to_owned(),
                Next::News(other) => format!("{other:?}"),
            });
        }
        assert_eq!(order, ["hello", "1", "gap", "2"]);
    }

    proptest! {
        /// Whatever comes, nothing is lost, and what comes in time is given out in order.
        #[test]
        fn nothing_is_lost_and_all_is_in_order(steps in proptest::collection::vec((0..4usize, 1..5u64), 0..60)) {
            let (mut merge, now) = (Merge::default(), Instant::now());
            (0..4).for_each(|source| merge.push(now, hello(source)));
            let mut clocks = [0; 4];
            let (mut pushed, mut popped) = (0, Vec::new());
            for (source, count) in steps {
                let times: Vec<u64> = (0..count).map(|step| clocks[source] + 1 + step * 3).collect();
                clocks[source] = times[times.len() - 1];
                pushed += times.len();
                merge.push(now, batch(source, &times));
                popped.extend(drain(&mut merge, now));
            }
            (0..4).for_each(|source| merge.push(now, News::Frame(source, Frame::Trailer(Trailer::default()))));
            popped.extend(drain(&mut merge, now));
            prop_assert_eq!(popped.len(), pushed);
            prop_assert!(popped.is_sorted());
        }
    }
}
