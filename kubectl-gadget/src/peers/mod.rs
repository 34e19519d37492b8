//! Who is at the other end of a connection: the pod, service or node behind an address.
//!
//! The API server is asked for each address once in a while, and only with the rights that the user has; [`directory`] asks.
//! Whoever prints does not wait long for an answer: what is not known in time is shown as an address.

mod directory;
mod identity;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::{Semaphore, mpsc};

use crate::cluster::Cluster;
use directory::{Directory, Untold};
pub(crate) use identity::{Identity, Peer, ServicePort, TargetPort, Traits};

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(30);
/// How long somebody waits for an answer that was never given.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long all may wait, of each second.
const PATIENCE_PER_SECOND: Duration = Duration::from_millis(200);
/// Questions that wait to be asked, and that are asked at once.
const QUEUE: usize = 1024;
const AT_ONCE: usize = 8;
/// The least time between two: who connects from outside decides how many there are.
const PACE: Duration = Duration::from_millis(50);
/// The same, and how long somebody waits, where an address without its name is of little use.
const PACE_OF_THOROUGH: Duration = Duration::from_millis(5);
const PATIENCE_OF_THOROUGH: Duration = Duration::from_secs(10);
/// When it is asked again there, after nobody had the address: a pod has it before the API server hears of it.
const AGAIN_AFTER: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15)];
/// Addresses that are asked for again at once: outside of the cluster there are any number.
const MOST_AGAIN: usize = 256;
/// Addresses that are remembered.
const MOST: usize = 65536;

/// What counts more: that what is seen is shown at once, or that it has names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    Quick,
    Thorough,
}

/// Finds out who addresses belong to. A clone is the same.
#[derive(Clone)]
pub(crate) struct Peers {
    haste: Haste,
    known: Arc<Known>,
    questions: mpsc::Sender<IpAddr>,
}

#[derive(Default)]
struct Known {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    answers: HashMap<IpAddr, Answer>,
    /// Who turned out to have an address after somebody was told that nobody has it.
    late: Vec<(IpAddr, Arc<Identity>)>,
    /// What is left of the time that somebody may wait, and as of when.
    patience: Duration,
    patience_at: Option<Instant>,
}

struct Answer {
    /// When it was asked last.
    asked: Instant,
    /// It was answered, if only with "nobody knows".
    is_given: bool,
    identity: Option<Arc<Identity>>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever was not told keeps what he knows.
    fn answer(&self, address: IpAddr, told: Result<Option<Identity>, Untold>) {
        if let Some(answer) = self.lock().answers.get_mut(&address) {
            answer.is_given = true;
            if let Ok(identity) = told {
                answer.identity = identity.map(Arc::new);
            }
        }
        self.changed.notify_all();
    }
}

impl Known {
    /// Asks again for an address that nobody had.
    async fn ask_again(&self, address: IpAddr, directory: &Directory) {
        for pause in AGAIN_AFTER {
            tokio::time::sleep(pause).await;
            if let Ok(Some(identity)) = directory.who_is(address).await {
                let identity = Arc::new(identity);
                let mut state = self.lock();
                if let Some(answer) = state.answers.get_mut(&address) {
                    answer.identity = Some(Arc::clone(&identity));
                }
                state.late.push((address, identity));
                return;
            }
        }
    }

    fn is_nobodys(&self, address: IpAddr) -> bool {
        self.lock().answers.get(&address).is_some_and(|answer| answer.identity.is_none())
    }
}

impl State {
    /// How long somebody may wait now.
    fn patience(&mut self, now: Instant) -> Duration {
        let passed = self.patience_at.replace(now).map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let regained = passed.min(Duration::from_secs(1)).mul_f64(PATIENCE_PER_SECOND.as_secs_f64());
        self.patience = (self.patience + regained).min(PATIENCE);
        self.patience
    }
}

impl Peers {
    /// Asks a cluster's API server; for pods and services in these namespaces, where it does not tell of all.
    pub(crate) fn of(cluster: &Cluster, namespaces: Vec<String>, haste: Haste) -> Self {
        let (questions, asked) = mpsc::channel(QUEUE);
        let known = Arc::<Known>::default();
        let answering = Arc::clone(&known);
        let directory = Arc::new(Directory::new(cluster, namespaces));
        tokio::spawn(async move {
            let pace = tokio::time::interval(if haste == Haste::Quick { PACE } else { PACE_OF_THOROUGH });
            let asked = futures::stream::unfold((asked, pace), |(mut asked, mut pace)| async {
                pace.tick().await;
                Some((asked.recv().await?, (asked, pace)))
            });
            let again = Arc::new(Semaphore::new(if haste == Haste::Quick { 0 } else { MOST_AGAIN }));
            asked
                .for_each_concurrent(AT_ONCE, |address| {
                    let (known, directory) = (Arc::clone(&answering), Arc::clone(&directory));
                    let again = Arc::clone(&again);
                    async move {
                        known.answer(address, directory.who_is(address).await);
                        if let Some(permit) = again.try_acquire_owned().ok().filter(|_| known.is_nobodys(address)) {
                            tokio::spawn(async move {
                                known.ask_again(address, &directory).await;
                                drop(permit);
                            });
                        }
                    }
                })
                .await;
        });
        Self { haste, known, questions }
    }

    /// Who an address belongs to, as far as that is known by now or soon.
    pub(crate) fn who_is(&self, address: IpAddr) -> Option<Arc<Identity>> {
        if !may_be_known(address) {
            return None;
        }
        let now = Instant::now();
        let mut state = self.known.lock();
        let is_fresh = state.answers.get(&address).is_some_and(|answer| now.duration_since(answer.asked) < FRESH);
        if !is_fresh {
            self.ask(&mut state, address, now);
        }
        let until = now + if self.haste == Haste::Quick { state.patience(now) } else { PATIENCE_OF_THOROUGH };
        while state.answers.get(&address).is_some_and(|answer| !answer.is_given) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.known.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.patience = state.patience.saturating_sub(now.elapsed());
        state.answers.get(&address)?.identity.clone()
    }

    /// Who turned out to have an address since this was asked last, after somebody was told that nobody has it.
    pub(crate) fn take_late(&self) -> Vec<(IpAddr, Arc<Identity>)> {
        std::mem::take(&mut self.known.lock().late)
    }

    fn ask(&self, state: &mut State, address: IpAddr, now: Instant) {
        if state.answers.len() >= MOST {
            state.answers.clear();
        }
        // Whoever asks too much is not answered now, and may ask again.
        if self.questions.try_send(address).is_ok() {
            let answer = state.answers.entry(address).or_insert(Answer { asked: now, is_given: false, identity: None });
            answer.asked = now;
        }
    }
}

/// No pod, service or node has such an address for others.
fn may_be_known(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(is_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> (Peers, mpsc::Receiver<IpAddr>) {
        let (questions, asked) = mpsc::channel(1);
        (Peers { haste: Haste::Quick, known: Arc::default(), questions }, asked)
    }

    fn web() -> Identity {
        Peer::Pod { namespace: "shop".into(), name: "web".into() }.into()
    }

    #[test]
    fn an_answer_is_waited_for_and_kept() {
        let (peers, mut asked) = peers();
        let known = Arc::clone(&peers.known);
        let answering = std::thread::spawn(move || {
            let address = asked.blocking_recv().expect("a question");
            known.answer(address, Ok(Some(web())));
            asked
        });
        let address = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(peers.who_is(address).as_deref(), Some(&web()));
        let mut asked = answering.join().expect("an answer");
        assert_eq!(peers.who_is(address).as_deref(), Some(&web()));
        assert!(asked.try_recv().is_err(), "it was asked once more");
    }

    #[test]
    fn who_gets_no_answer_goes_on() {
        let (peers, _asked) = peers();
        for last in 1..50 {
            assert_eq!(peers.who_is([10, 0, 0, last].into()), None);
        }
        // There was no room to ask for it: it may be asked for later.
        assert!(!peers.known.lock().answers.contains_key(&IpAddr::from([10, 0, 0, 9])));
        peers.known.answer([10, 0, 0, 1].into(), Ok(Some(web())));
        peers.known.answer([10, 0, 0, 1].into(), Err(Untold));
        assert_eq!(peers.who_is([10, 0, 0, 1].into()).as_deref(), Some(&web()));
    }

    #[test]
    fn addresses_that_mean_something_else_everywhere_are_not_asked_for() {
        let (peers, mut asked) = peers();
        for address in ["127.0.0.1", "::1", "0.0.0.0", "169.254.1.1", "fe80::1", "224.0.0.1", "255.255.255.255"] {
            assert_eq!(peers.who_is(address.parse().expect("an address")), None);
        }
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn patience_comes_back_by_and_by() {
        let (mut state, start) = (State::default(), Instant::now());
        assert_eq!(state.patience(start), PATIENCE);
        state.patience = Duration::ZERO;
        assert_eq!(state.patience(start + Duration::from_millis(500)), PATIENCE_PER_SECOND / 2);
        assert_eq!(state.patience(start + Duration::from_secs(60)), PATIENCE);
    }
}
