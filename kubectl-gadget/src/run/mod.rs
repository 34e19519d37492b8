//! A run of a gadget: sessions with the agents of all nodes that it is about, one stream out of them, and its end.
//!
//! - [`targets`]: which agents those are
//! - [`node`]: one node's sessions; [`conversation`] is one of them, over a [`connection`]
//! - [`inbox`]: what has come, on its way to the printing thread; [`merge`]: its order
//!
//! It ends by its timeout, by the user, or when nobody reads the output any more.

pub(crate) mod connection;
pub(crate) mod conversation;
pub(crate) mod inbox;
pub(crate) mod merge;
mod node;
pub(crate) mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use gadgets::spec::RunSpec;
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::{Api, ResourceExt as _};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::cluster::Cluster;
use crate::exit::End;
use crate::notice::notice;
use crate::output::{Output, Totals};
use connection::Local;
use inbox::{Inbox, News, SourceId};
use node::{Node, Outcome, Shared, Sign};
use targets::{Agent, Change, Targets, Wanted};

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;
/// How long a run waits for the first answers before it says that it does, and no longer for nodes that have failed.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// What is to be done.
pub(crate) struct Run {
    pub(crate) spec: RunSpec,
    /// Counts from when the gadget runs.
    pub(crate) timeout: Option<Duration>,
    pub(crate) fail_on_loss: bool,
    pub(crate) output: Output,
}

/// Where it is to be done.
pub(crate) enum Place {
    Local(Local),
    Cluster(Box<Cluster>, Wanted),
}

/// Runs a gadget and prints what comes.
///
/// # Errors
/// If no agent can be reached or can do it, if one could not, or if a stream is incomplete.
pub(crate) async fn run(place: Place, run: Run) -> anyhow::Result<End> {
    let inbox = Arc::new(Inbox::default());
    let Run { spec, timeout, fail_on_loss, output } = run;
    let (printed, mut printing) = oneshot::channel();
    let printer = {
        let inbox = Arc::clone(&inbox);
        std::thread::spawn(move || {
            let totals = output.print(&inbox);
            let _ = printed.send(());
            totals
        })
    };
    let mut user = User::new()?;
    let mut nodes = Nodes::new(spec, &inbox);
    let watched = tokio::select! {
        watched = nodes.watch(place, timeout, &mut user) => watched,
        // It ends early only if it cannot write; why is for its own result to say.
        _ = &mut printing => Ok(Watched::Ended),
    };
    if matches!(watched, Ok(Watched::Abandoned)) {
        inbox.abandon();
        return Ok(user.end);
    }
    inbox.close();
    tokio::select! {
        _ = &mut printing => {}
        // A reader that is stuck must not keep somebody who does not want to wait.
        () = user.asks() => return Ok(user.end),
    }
    let totals = join(printer)?;
    watched?;
    let Some(totals) = totals else { return Ok(End::Done) };
    if let Some(failure) = nodes.failure() {
        if user.end == End::Done {
            return Err(failure);
        }
        notice(&format!("warning: {failure:#}"));
    }
    if let Some(why) = totals.incomplete.as_ref().or(totals.broken.as_ref().filter(|_| user.end == End::Done)) {
        bail!("the stream is incomplete: {why}");
    }
    Ok(if user.end == End::Done && fail_on_loss && totals.lost + totals.gaps > 0 { End::Lost } else { user.end })
}

/// What was printed; `None` if nobody reads it any more.
fn join(printer: JoinHandle<io::Result<Totals>>) -> anyhow::Result<Option<Totals>> {
    match printer.join().map_err(|_| anyhow!("the output failed"))? {
        Ok(totals) => Ok(Some(totals)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        Err(error) => Err(error).context("cannot write the output"),
    }
}

/// How watching ended.
enum Watched {
    Ended,
    /// The user asked twice, or before anything ran, or nobody reads the output any more.
    Abandoned,
}

/// The person, or program, that started the run and may end it.
struct User {
    interrupted: Signal,
    terminated: Signal,
    /// What they did to end it; [`End::Done`] if nothing yet.
    end: End,
}

impl User {
    fn new() -> anyhow::Result<Self> {
        let interrupted = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        let terminated = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        Ok(Self { interrupted, terminated, end: End::Done })
    }

    /// Waits until they ask for the end.
    async fn asks(&mut self) {
        let number = tokio::select! {
            _ = self.interrupted.recv() => SIGINT,
            _ = self.terminated.recv() => SIGTERM,
        };
        self.end = End::Signal(number);
    }
}

/// Ends when nobody can read standard output any more, whether or not there is something to write.
async fn reader_gone() {
    let (gone, told) = oneshot::channel();
    std::thread::spawn(move || {
        let output = io::stdout();
        let mut polled = [PollFd::new(output.as_fd(), PollFlags::empty())];
        // Without flags, poll waits for errors alone. A file never has one, and then this waits for ever.
        while !matches!(poll(&mut polled, PollTimeout::NONE), Ok(1..)) {}
        let _ = gone.send(());
    });
    let _ = told.await;
}

/// All nodes of a run.
struct Nodes {
    shared: Shared,
    stop: watch::Sender<bool>,
    signs: mpsc::UnboundedReceiver<Sign>,
    tasks: JoinSet<(SourceId, Outcome)>,
    names: Vec<String>,
    /// The agent of each node that is watched.
    agents: BTreeMap<String, watch::Sender<Option<Agent>>>,
    /// Nodes that were there from the start and have not been heard of yet.
    expected: BTreeSet<SourceId>,
    /// What is known of the others is all that there was at the start.
    is_complete: bool,
    is_ready: bool,
    /// Nobody was waited for too long yet.
    is_patient: bool,
    heard: BTreeSet<SourceId>,
    /// Why nodes cannot take part.
    failures: BTreeMap<SourceId, anyhow::Error>,
    /// Nodes that are only made to look like one.
    virtual_nodes: BTreeSet<String>,
}

impl Nodes {
    fn new(spec: RunSpec, inbox: &Arc<Inbox>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (sender, signs) = mpsc::unbounded_channel();
        Self {
            shared: Shared { spec, began: Instant::now(), stop: stopped, inbox: Arc::clone(inbox), signs: sender },
            stop,
            signs,
            tasks: JoinSet::new(),
            names: Vec::new(),
            agents: BTreeMap::new(),
            expected: BTreeSet::new(),
            is_complete: false,
            is_ready: false,
            is_patient: true,
            heard: BTreeSet::new(),
            failures: BTreeMap::new(),
            virtual_nodes: BTreeSet::new(),
        }
    }

    /// Watches until the timeout, the user or an error ends it.
    async fn watch(&mut self, place: Place, timeout: Option<Duration>, user: &mut User) -> anyhow::Result<Watched> {
        let mut targets = match place {
            Place::Local(local) => {
                let node = self.add("");
                self.tasks.spawn(async move { (node.id, node.watch_local(local).await) });
                self.is_complete = true;
                None
            }
            Place::Cluster(cluster, wanted) => Some((Targets::new(&cluster, wanted), *cluster)),
        };
        let mut stop_at = None;
        let mut patience = std::pin::pin!(sleep(IMPATIENCE));
        let mut reader_gone = std::pin::pin!(reader_gone());
        loop {
            let has_no_way_on = targets.is_none() || (self.is_ready && !self.failures.is_empty());
            if self.tasks.is_empty() && (*self.stop.borrow() || has_no_way_on) {
                return Ok(Watched::Ended);
            }
            tokio::select! {
                () = &mut reader_gone => return Ok(Watched::Abandoned),
                () = user.asks() => {
                    if *self.stop.borrow() && user.end != End::Done || self.heard.is_empty() && !self.is_ready {
                        return Ok(Watched::Abandoned);
                    }
                    self.stop.send_replace(true);
                }
                () = sleep_until(stop_at.unwrap_or_else(tokio::time::Instant::now)),
                    if stop_at.is_some() && !*self.stop.borrow() =>
                {
                    self.stop.send_replace(true);
                }
                changes = next_changes(&mut targets), if !*self.stop.borrow() => {
                    if let Some((targets, cluster)) = &targets {
                        self.take(changes?, targets, cluster).await?;
                    }
                }
                Some(sign) = self.signs.recv() => self.note(sign),
                Some(done) = self.tasks.join_next() => {
                    let (id, outcome) = done.context("a node's task failed")?;
                    self.expected.remove(&id);
                    match outcome {
                        Outcome::Complete | Outcome::Lost => {}
                        // A host has no other node to go on with.
                        Outcome::Failed(error) if targets.is_none() => return Err(error),
                        Outcome::Failed(error) => self.fail(id, error),
                    }
                }
                () = &mut patience, if self.is_patient => {
                    self.is_patient = false;
                    for id in self.expected.iter().filter(|_| targets.is_some()) {
                        self.notice(format!("waiting for node {}", self.names[*id]));
                    }
                }
            }
            if !self.is_patient && targets.is_some() {
                self.expect_no_longer();
            }
            if !self.is_ready && self.is_complete && self.expected.is_empty() {
                self.become_ready()?;
                stop_at = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
            }
        }
    }

    fn note(&mut self, sign: Sign) {
        match sign {
            Sign::Greeted(id) => {
                self.heard.insert(id);
                self.failures.remove(&id);
                self.expected.remove(&id);
            }
            // What is missing of it is a gap, once it has begun.
            Sign::Failed(id, _) if self.heard.contains(&id) => {}
            Sign::Failed(id, why) => _ = self.failures.insert(id, anyhow!(why)),
        }
    }

    /// The run begins without nodes that fail, and when one has answered, without those that have not.
    fn expect_no_longer(&mut self) {
        if !self.heard.is_empty() {
            for id in &self.expected {
                self.failures.entry(*id).or_insert_with(|| anyhow!("it has not answered"));
            }
        }
        self.expected.retain(|id| !self.failures.contains_key(id));
    }

    /// Everybody has been heard who was there from the start; the run begins, unless nobody can take part.
    fn become_ready(&mut self) -> anyhow::Result<()> {
        if self.heard.is_empty()
            && let Some((id, error)) = self.failures.pop_first()
        {
            let others = self.failures.len();
            let others = if others > 0 { format!(" (and {others} more)") } else { String::new() };
            return Err(error.context(format!("node {}{others}", self.names[id])));
        }
        self.is_ready = true;
        for (id, error) in &self.failures {
            self.shared.inbox.put(News::Broken(*id, format!("{error:#}")));
        }
        self.shared.inbox.put(News::Ready);
        if self.names.is_empty() {
            self.notice("no pod matches yet: waiting for one".into());
        }
        Ok(())
    }

    async fn take(&mut self, changes: Vec<Change>, targets: &Targets, cluster: &Cluster) -> anyhow::Result<()> {
        for change in changes {
            match change {
                Change::Complete if targets.nodes_with_agents().is_empty() => {
                    bail!(
                        "kubectl gadget is not deployed in this cluster, or on none of its nodes: kubectl gadget deploy"
                    )
                }
                Change::Complete => self.is_complete = true,
                Change::Trouble(why) => self.notice(format!("{why}; trying again, new pods may be noticed late")),
                Change::Node(name, agent) => self.take_node(name, agent, targets, cluster).await,
            }
        }
        Ok(())
    }

    async fn take_node(&mut self, name: String, agent: Option<Agent>, targets: &Targets, cluster: &Cluster) {
        if let Some(known) = self.agents.get(&name) {
            known.send_replace(agent);
            return;
        }
        if agent.is_none() && (self.virtual_nodes.contains(&name) || is_virtual(cluster, &name).await) {
            if self.virtual_nodes.insert(name.clone()) {
                self.notice(format!("node {name} is passed over: there is no kernel of its own behind it"));
            }
            return;
        }
        let trouble = match &agent {
            Some(agent) => agent.trouble.clone(),
            None => Some(format!(
                "no agent runs there; agents are on: {} (kubectl gadget deploy has --node-selector and --tolerations)",
                targets.nodes_with_agents().join(", ")
            )),
        };
        let (sender, receiver) = watch::channel(agent);
        let node = self.add(&name);
        self.agents.insert(name, sender);
        if let Some(trouble) = trouble {
            // It may still come, and then takes part; others do not wait for it.
            self.expected.remove(&node.id);
            self.fail(node.id, anyhow!(trouble));
        }
        let cluster = cluster.clone();
        self.tasks.spawn(async move { (node.id, node.watch(cluster, receiver).await) });
    }

    fn add(&mut self, name: &str) -> Node {
        let id = self.names.len();
        self.names.push(name.to_owned());
        if !self.is_complete {
            self.expected.insert(id);
        }
        self.shared.inbox.put(News::Joined(id, name.to_owned()));
        Node { id, shared: self.shared.clone() }
    }

    fn fail(&mut self, id: SourceId, error: anyhow::Error) {
        // What fails before is told then, or is the error.
        if self.is_ready {
            self.shared.inbox.put(News::Broken(id, format!("{error:#}")));
        }
        self.failures.insert(id, error);
    }

    /// Why not all nodes took part, if so.
    fn failure(&mut self) -> Option<anyhow::Error> {
        let count = self.failures.len();
        let (id, error) = self.failures.pop_first()?;
        let others = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
        Some(error.context(format!("not everything was watched: node {}{others}", self.names[id])))
    }

    fn notice(&self, text: String) {
        self.shared.inbox.put(News::Notice(text));
    }
}

async fn next_changes(targets: &mut Option<(Targets, Cluster)>) -> anyhow::Result<Vec<Change>> {
    match targets {
        Some((targets, cluster)) => targets.next(cluster).await,
        None => std::future::pending().await,
    }
}

/// Whether a node is only made to look like one. Who may not ask is told that it has no agent.
async fn is_virtual(cluster: &Cluster, name: &str) -> bool {
    let nodes: Api<ApiNode> = Api::all(cluster.client.clone());
    let what = format!("get node {name}");
    let Ok(Ok(node)) = timeout(IMPATIENCE, cluster.ask(&what, nodes.get(name))).await else { return false };
    let has = |label: &str, value: &str| node.labels().get(label).is_some_and(|found| found == value);
    has("type", "virtual-kubelet") || has("eks.amazonaws.com/compute-type", "fargate")
}
