//! What has come from the agents and waits to be printed.
//!
//! Records are let in up to a limit; beyond it, when nobody reads the output, they are counted and dropped here. No pod may
//! take all of the room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gadgets::shares::Shares;
use gadgets::wire::{Frame, Loss, Stage};
use tokio::sync::watch;

use super::allowance::Allowance;

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

struct State {
    waiting: VecDeque<(Instant, News)>,
    /// What waits, by the cgroups of the streams.
    shares: Shares<(SourceId, u64)>,
    /// For each stream, the bytes of batches that do not wait any more.
    taken: Vec<watch::Sender<u64>>,
    closed: bool,
    abandoned: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), shares: Shares::of(LIMIT), taken: Vec::new(), closed: false, abandoned: false }
    }
}

impl State {
    fn put(&mut self, news: News) {
        if let Some(news) = add_up(&mut self.waiting, news) {
            self.waiting.push_back((Instant::now(), news));
        }
    }

    /// Takes in what there is room for, and counts the rest.
    fn put_batch(&mut self, source: SourceId, batch: Vec<u8>) {
        let bytes = batch.len();
        let (admitted, refused) = self.shares.admit_batch(batch, |header| (source, header.cgroup));
        self.count_taken(source, bytes - admitted.len());
        if !admitted.is_empty() {
            self.put(News::Frame(source, Frame::Batch(admitted)));
        }
        if !refused.is_empty() {
            let dropped = refused.into_iter().map(|((_, cgroup), count)| (cgroup, count)).collect();
            self.put(News::Dropped(source, dropped));
        }
    }

    fn count_taken(&self, source: SourceId, bytes: usize) {
        // Who waits is woken by any change.
        if let Some(taken) = self.taken.get(source).filter(|_| bytes > 0) {
            taken.send_modify(|taken| *taken += bytes as u64);
        }
    }
}

impl Inbox {
    /// Takes in what happened.
    pub(crate) fn put(&self, news: News) {
        let mut state = self.lock();
        match news {
            News::Frame(source, Frame::Batch(batch)) => state.put_batch(source, batch),
            News::Joined(..) => {
                state.taken.push(watch::Sender::default());
                state.put(news);
            }
            news => state.put(news),
        }
        self.changed.notify_all();
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Says that nobody wants what has come, nor to hear how it ends.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        (state.abandoned, state.closed) = (true, true);
        state.waiting.clear();
        self.changed.notify_all();
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
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
        state.shares.clear();
        let waiting = std::mem::take(&mut state.waiting);
        for (_, news) in &waiting {
            if let News::Frame(source, Frame::Batch(batch)) = news {
                state.count_taken(*source, batch.len());
            }
        }
        Some(waiting)
    }

    /// How much the agent of a stream may send in a session that begins.
    pub(crate) fn allowance(&self, source: SourceId) -> Allowance {
        let state = self.lock();
        Allowance::new(state.taken[source].subscribe(), state.taken.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While nobody reads, losses and signs of life add up instead of piling up: at the end of the queue, every stream has at
/// most one of each. Returns what has to wait for itself.
fn add_up(waiting: &mut VecDeque<(Instant, News)>, news: News) -> Option<News> {
    let Some(wanted) = pile(&news) else { return Some(news) };
    let mut last = waiting.iter_mut().rev().map_while(|(_, last)| Some((pile(last)?, last)));
    let Some((_, last)) = last.find(|(found, _)| *found == wanted) else { return Some(news) };
    match (news, last) {
        (News::Dropped(_, more), News::Dropped(_, counts)) => {
            more.into_iter().for_each(|(cgroup, count)| *counts.entry(cgroup).or_default() += count);
        }
        (News::Frame(_, Frame::Loss(more)), News::Frame(_, Frame::Loss(loss))) => {
            loss.count = loss.count.saturating_add(more.count);
            loss.to_ns = more.to_ns;
        }
        (news, last) => *last = news,
    }
    None
}

/// What news can be added to: others of the same stream and kind.
#[derive(PartialEq, Eq)]
enum Pile {
    Dropped(SourceId),
    Heartbeats(SourceId),
    Broken(SourceId),
    Losses(SourceId, Stage, String, Option<String>, Option<String>),
}

fn pile(news: &News) -> Option<Pile> {
    match news {
        News::Dropped(source, _) => Some(Pile::Dropped(*source)),
        News::Broken(source, _) => Some(Pile::Broken(*source)),
        News::Frame(source, Frame::Heartbeat(_)) => Some(Pile::Heartbeats(*source)),
        News::Frame(source, Frame::Loss(loss)) => {
            let Loss { stage, reason, namespace, pod, .. } = loss;
            Some(Pile::Losses(*source, *stage, reason.clone(), namespace.clone(), pod.clone()))
        }
        _ => None,
    }
}
