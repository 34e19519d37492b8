//! All nodes of a run: which take part, which are waited for, and why others do not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use gadgets::spec::RunSpec;
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::{Api, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::inbox::{Inbox, News, SourceId};
use super::node::{Node, Outcome, Shared, Sign};
use super::targets::{Agent, Change, Targets};
use super::{Place, User, reader_gone};
use crate::cluster::Cluster;
use crate::exit::End;

/// How long a run waits for the first answers before it says that it does, and no longer for nodes that have failed.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// How long it waits for nodes that have not answered, once another has.
const LATENESS: Duration = Duration::from_secs(5);

/// How watching ended.
pub(super) enum Watched {
    Ended,
    /// The user asked twice, or before anything ran, or nobody reads the output any more.
    Abandoned,
}

/// All nodes of a run.
pub(super) struct Nodes {
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
    /// Nobody was waited for too long yet; and not even for those that may be late.
    is_patient: bool,
    is_lenient: bool,
    heard: BTreeSet<SourceId>,
    /// Why nodes cannot take part.
    failures: BTreeMap<SourceId, anyhow::Error>,
    /// Nodes that are only made to look like one.
    virtual_nodes: BTreeSet<String>,
}

impl Nodes {
    pub(super) fn new(spec: RunSpec, inbox: &Arc<Inbox>) -> Self {
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
            is_lenient: true,
            heard: BTreeSet::new(),
            failures: BTreeMap::new(),
            virtual_nodes: BTreeSet::new(),
        }
    }

    /// Watches until the timeout, the user or an error ends it.
    pub(super) async fn watch(
        &mut self,
        place: Place,
        timeout: Option<Duration>,
        user: &mut User,
    ) -> anyhow::Result<Watched> {
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
        let mut leniency = std::pin::pin!(sleep(LATENESS));
        let mut reader_gone = std::pin::pin!(reader_gone());
        loop {
            let is_over = !self.failures.is_empty() || self.shared.spec.is_finite();
            let has_no_way_on = targets.is_none() || (self.is_ready && is_over);
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
                () = &mut leniency, if self.is_lenient => self.is_lenient = false,
            }
            if targets.is_some() {
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
        if !self.is_lenient && !self.heard.is_empty() {
            for id in &self.expected {
                self.failures.entry(*id).or_insert_with(|| anyhow!("it has not answered"));
            }
        }
        if !self.is_patient {
            self.expected.retain(|id| !self.failures.contains_key(id));
        }
    }

    /// Everybody has been heard who was there from the start; the run begins, unless nobody can take part.
    fn become_ready(&mut self) -> anyhow::Result<()> {
        if self.heard.is_empty()
            && let Some(failure) = self.first_failure()
        {
            return Err(failure);
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
    pub(super) fn failure(&mut self) -> Option<anyhow::Error> {
        Some(self.first_failure()?.context("not everything was watched"))
    }

    fn first_failure(&mut self) -> Option<anyhow::Error> {
        let (id, error) = self.failures.pop_first()?;
        let others = match self.failures.len() {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        Some(error.context(format!("node {}{others}", self.names[id])))
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
