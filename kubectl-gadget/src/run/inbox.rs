//! What has come from the agents and waits to be printed.
//!
//! Records are let in up to a limit; beyond it, when nobody reads the output, they are counted and dropped here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gadgets::record::records;
use gadgets::wire::Frame;

/// Bytes of records that may wait.
const LIMIT: usize = 16 << 20;

/// The number of an agent's stream, from 0 on.
pub(crate) type SourceId = usize;

/// What happened.
#[derive(Debug)]
pub(crate) enum News {
    /// This node is watched from now on.
    Joined(SourceId, String),
    /// This came from an agent.
    Frame(SourceId, Frame),
    /// So many records of these cgroups came from an agent and could not be kept.
    Dropped(SourceId, BTreeMap<u64, u64>),
    /// An agent's stream has broken off. It may begin again, with a Hello.
    Broken(SourceId, String),
    /// All agents that were there from the start have been heard: from here on every event is seen.
    Ready,
    /// Something that a person should know.
    Notice(String),
}

/// The queue between the sessions and the printing thread.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Instant, News)>,
    bytes: usize,
    closed: bool,
}

impl Inbox {
    /// Takes in what happened.
    pub(crate) fn put(&self, news: News) {
        let mut state = self.lock();
        let news = match news {
            News::Frame(source, Frame::Batch(batch)) if state.bytes + batch.len() > LIMIT => {
                News::Dropped(source, count(&batch))
            }
            news => news,
        };
        if let News::Frame(_, Frame::Batch(batch)) = &news {
            state.bytes += batch.len();
        }
        match (&news, state.waiting.back_mut()) {
            // While nobody reads, losses add up instead of piling up.
            (News::Dropped(source, more), Some((_, News::Dropped(last, counts)))) if source == last => {
                more.iter().for_each(|(cgroup, count)| *counts.entry(*cgroup).or_default() += count);
            }
            // Nor do signs of life.
            (News::Frame(source, Frame::Heartbeat(_)), Some((_, News::Frame(last, Frame::Heartbeat(_)))))
                if source == last =>
            {
                state.waiting.pop_back();
                state.waiting.push_back((Instant::now(), news));
            }
            _ => state.waiting.push_back((Instant::now(), news)),
        }
        self.changed.notify_all();
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// All that has come, with the time when it did. Waits for something until the given time, or for ever. `None` when
    /// nothing more will come.
    pub(crate) fn take(&self, until: Option<Instant>) -> Option<VecDeque<(Instant, News)>> {
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.closed {
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        if state.waiting.is_empty() && state.closed {
            return None;
        }
        state.bytes = 0;
        Some(std::mem::take(&mut state.waiting))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many records of each cgroup a batch has.
fn count(batch: &[u8]) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for record in records(batch).map_while(Result::ok) {
        *counts.entry(record.header.cgroup).or_default() += 1;
    }
    counts
}
