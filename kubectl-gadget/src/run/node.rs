//! One node of a run: a session with its agent, and another when that breaks off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use gadgets::record::records;
use gadgets::spec::RunSpec;
use gadgets::wire::{FailureKind, Frame, Resume};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::connection::{self, Connection, Local};
use super::conversation::{self, Ending, Request, asked};
use super::inbox::{Inbox, News, SourceId};
use super::targets::Agent;
use crate::cluster::{Cluster, ClusterError, Kind};
use crate::exit::AgentFailure;

/// Time until a session that broke off is tried again: the first time, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How long the API server may take to reach an agent.
const CONNECTING: Duration = Duration::from_secs(30);
/// A session that was held for so long was no failure.
const STEADY: Duration = Duration::from_secs(5);

/// How a node's part in a run ended.
pub(super) enum Outcome {
    /// Everything that was seen has come.
    Complete,
    /// Its stream broke off and did not come back before the end; the gap is told.
    Lost,
    /// It cannot take part.
    Failed(anyhow::Error),
}

/// What every node of a run is given.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) spec: RunSpec,
    /// When the user began to look.
    pub(super) began: Instant,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) signs: mpsc::UnboundedSender<Sign>,
}

/// What whoever waits for a node should know.
pub(super) enum Sign {
    /// Its agent said Hello.
    Greeted(SourceId),
    /// A session came to nothing, for this reason, or broke off. It is tried again.
    Failed(SourceId, String),
}

/// How far a node's stream has come.
struct Progress {
    /// The last sign of it, or when the user began to look.
    since: Instant,
    /// What has arrived of its session.
    arrived: Option<Resume>,
}

impl Progress {
    fn note(&mut self, frame: &Frame) {
        self.since = Instant::now();
        match (frame, &mut self.arrived) {
            (Frame::Hello(hello), arrived) => {
                *arrived = hello.session.map(|session| Resume { session, ..Resume::default() });
            }
            (Frame::Batch(batch), Some(arrived)) => {
                arrived.records += records(batch).map_while(Result::ok).count() as u64
            }
            (Frame::Loss(loss), Some(arrived)) => arrived.lost = arrived.lost.saturating_add(loss.count),
            _ => {}
        }
    }
}

/// One node.
pub(super) struct Node {
    pub(super) id: SourceId,
    pub(super) shared: Shared,
}

impl Node {
    /// One session with an agent of this host.
    pub(super) async fn watch_local(self, local: Local) -> Outcome {
        let connection = match local.connect() {
            Ok(connection) => connection,
            Err(error) => return Outcome::Failed(error),
        };
        match self.hold(connection, &mut self.progress()).await {
            Ending::Complete => Outcome::Complete,
            Ending::Refused(failure) => Outcome::Failed(AgentFailure { failure, local: true }.into()),
            Ending::Broken { why, greeted: false } => Outcome::Failed(anyhow!(why)),
            Ending::Broken { why, greeted: true } => {
                self.shared.inbox.put(News::Broken(self.id, why.clone()));
                Outcome::Failed(anyhow!("the stream is incomplete: {why}"))
            }
        }
    }

    /// Sessions with a node's agents, whichever there are, until the run is stopped.
    pub(super) async fn watch(self, cluster: Cluster, mut agent: watch::Receiver<Option<Agent>>) -> Outcome {
        let mut stop = self.shared.stop.clone();
        let mut pause = PAUSES.0;
        let mut greeted_once = false;
        let mut progress = self.progress();
        loop {
            let session = async {
                let pod = ready_agent(&mut agent).await?;
                let connecting = timeout(CONNECTING, connection::connect(&cluster, &pod));
                connecting.await.unwrap_or_else(|_| {
                    bail!("the API server has not reached its agent within {} s", CONNECTING.as_secs())
                })
            };
            let session = tokio::select! {
                session = session => session,
                () = asked(&mut stop) => return Outcome::Lost,
            };
            let connected = Instant::now();
            let why = match session {
                Ok(connection) => match self.hold(connection, &mut progress).await {
                    Ending::Complete if *stop.borrow() || self.shared.spec.is_finite() => return Outcome::Complete,
                    Ending::Complete => "the agent ended the session".into(),
                    Ending::Refused(failure) if may_pass(failure.kind) => failure.message,
                    Ending::Refused(failure) => return Outcome::Failed(AgentFailure { failure, local: false }.into()),
                    Ending::Broken { why, greeted: true } if !self.shared.spec.can_go_on() => {
                        self.shared.inbox.put(News::Broken(self.id, why.clone()));
                        return Outcome::Failed(anyhow!("the stream is incomplete: {why}"));
                    }
                    Ending::Broken { why, greeted } => {
                        greeted_once |= greeted;
                        if greeted && connected.elapsed() > STEADY {
                            pause = PAUSES.0;
                        }
                        why
                    }
                },
                Err(error) if !greeted_once && is_final(&error) => return Outcome::Failed(error),
                Err(error) => format!("{error:#}"),
            };
            // The run may have ended; then nobody waits for it.
            let _ = self.shared.signs.send(Sign::Failed(self.id, why.clone()));
            self.shared.inbox.put(News::Broken(self.id, why));
            tokio::select! {
                () = sleep(pause) => {}
                () = asked(&mut stop) => return Outcome::Lost,
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn progress(&self) -> Progress {
        Progress { since: self.shared.began, arrived: None }
    }

    /// Holds a session, from where the stream has come on.
    async fn hold(&self, connection: Connection, progress: &mut Progress) -> Ending {
        let Shared { spec, stop, inbox, signs, .. } = &self.shared;
        let began_ms_ago = u64::try_from(progress.since.elapsed().as_millis()).unwrap_or_default();
        let spec = RunSpec { began_ms_ago, ..spec.clone() };
        let request = Request::Run(Box::new(spec), progress.arrived, inbox.allowance(self.id));
        conversation::hold(connection, request, stop.clone(), |frame| {
            progress.note(&frame);
            let is_hello = matches!(frame, Frame::Hello(_));
            inbox.put(News::Frame(self.id, frame));
            if is_hello {
                let _ = signs.send(Sign::Greeted(self.id));
            }
        })
        .await
    }
}

/// The name of the agent's pod, when it can be talked to.
async fn ready_agent(agent: &mut watch::Receiver<Option<Agent>>) -> anyhow::Result<String> {
    let is_ready = |agent: &Option<Agent>| agent.as_ref().is_some_and(|agent| agent.trouble.is_none());
    let ready = agent.wait_for(is_ready).await.map_err(|_| anyhow!("nobody looks for agents any more"))?;
    Ok(ready.as_ref().map(|agent| agent.pod.clone()).unwrap_or_default())
}

/// Whether a refusal is for now only.
fn may_pass(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Unavailable | FailureKind::Busy | FailureKind::Internal)
}

/// Whether an error is there to stay.
fn is_final(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(|error: &ClusterError| error.kind);
    matches!(kind, Some(Kind::Forbidden | Kind::Unauthorized))
}
