//! Which agents a run needs: those of the nodes that have, or come to have, a pod that it is about.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use gadgets::labels::LabelSelector;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt as _};

use crate::cluster::Cluster;
use crate::deploy::{NAMESPACE, SELECTOR, why_not_ready};

/// Which nodes are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Only these; any if empty.
    pub(crate) nodes: Vec<String>,
    /// Nodes that have such pods; every node if `None`.
    pub(crate) pods: Option<WantedPods>,
}

/// Which pods a run is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedPods {
    /// Their namespaces; all if empty.
    pub(crate) namespaces: Vec<String>,
    /// Their names; any if empty.
    pub(crate) names: Vec<String>,
    pub(crate) labels: LabelSelector,
}

/// An agent, as its pod says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agent {
    /// Name of its pod.
    pub(super) pod: String,
    /// Why it cannot be talked to; `None` if it can.
    pub(super) trouble: Option<String>,
}

/// What has changed.
#[derive(Debug)]
pub(super) enum Change {
    /// Everything that there was at the start has been told.
    Complete,
    /// This node is wanted, and this is its agent; `None` if it has none (any more).
    Node(String, Option<Agent>),
}

/// Follows which nodes are wanted and which agents they have.
pub(super) struct Targets {
    wanted: Wanted,
    watches: SelectAll<BoxStream<'static, (Watch, PodEvent)>>,
    /// Watches that have not told everything yet.
    incomplete: usize,
    /// By node and by the pod's name: while it is replaced, a node has two.
    agents: BTreeMap<String, BTreeMap<String, Agent>>,
    /// Nodes that have a wanted pod, or had one.
    hosts: BTreeSet<String>,
}

type PodEvent = Result<Event<Pod>, watcher::Error>;

/// What a watch is about.
#[derive(Clone, Debug)]
enum Watch {
    Agents,
    Pods(String),
}

impl Targets {
    pub(super) fn new(cluster: &Cluster, wanted: Wanted) -> Self {
        let mut watches = SelectAll::new();
        let mut add = |what: Watch, api: Api<Pod>, config: watcher::Config| {
            let events = watcher(api, config).default_backoff();
            watches.push(events.map(move |event| (what.clone(), event)).boxed());
        };
        let client = || cluster.client.clone();
        let of_agents = watcher::Config::default().labels(SELECTOR);
        add(Watch::Agents, Api::namespaced(client(), NAMESPACE), of_agents);
        if let Some(pods) = &wanted.pods {
            let mut config = watcher::Config::default();
            if !pods.labels.is_empty() {
                config = config.labels(&pods.labels.to_string());
            }
            if let [name] = &pods.names[..] {
                config = config.fields(&format!("metadata.name={name}"));
            }
            for namespace in &pods.namespaces {
                add(
                    Watch::Pods(format!("in namespace {namespace}")),
                    Api::namespaced(client(), namespace),
                    config.clone(),
                );
            }
            if pods.namespaces.is_empty() {
                add(Watch::Pods("in all namespaces".into()), Api::all(client()), config);
            }
        }
        let incomplete = watches.len();
        Self { wanted, watches, incomplete, agents: BTreeMap::new(), hosts: BTreeSet::new() }
    }

    /// What has changed next.
    ///
    /// # Errors
    /// If the cluster does not say which pods there are.
    pub(super) async fn next(&mut self, cluster: &Cluster) -> anyhow::Result<Vec<Change>> {
        loop {
            let Some((watch, event)) = self.watches.next().await else { bail!("the watches ended") };
            let event = match event {
                Ok(event) => event,
                Err(error) if self.incomplete > 0 => {
                    return Err(cluster.explain_watch(&watch.to_string(), &error).into());
                }
                // It is tried again, and what was known stays.
                Err(_) => continue,
            };
            let changes = self.take(&watch, event);
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// Where agents are.
    pub(super) fn nodes_with_agents(&self) -> Vec<&str> {
        self.agents.iter().filter(|(_, agents)| !agents.is_empty()).map(|(node, _)| node.as_str()).collect()
    }

    fn take(&mut self, watch: &Watch, event: Event<Pod>) -> Vec<Change> {
        match (event, watch) {
            (Event::Init, _) => Vec::new(),
            (Event::InitDone, _) => {
                self.incomplete = self.incomplete.saturating_sub(1);
                if self.incomplete > 0 { Vec::new() } else { self.complete() }
            }
            (Event::Apply(pod) | Event::InitApply(pod), Watch::Agents) => self.set_agent(&pod),
            (Event::Delete(pod), Watch::Agents) => self.remove_agent(&pod),
            (Event::Apply(pod) | Event::InitApply(pod), Watch::Pods(_)) => self.set_pod(&pod),
            // Its node may get another, and costs nothing meanwhile.
            (Event::Delete(_), Watch::Pods(_)) => Vec::new(),
        }
    }

    fn set_agent(&mut self, pod: &Pod) -> Vec<Change> {
        let Some(node) = node_of(pod) else { return Vec::new() };
        let trouble = why_not_ready(pod).map(|trouble| trouble.why);
        let agent = Agent { pod: pod.name_any(), trouble };
        let before = self.agent(node).cloned();
        self.agents.entry(node.to_owned()).or_default().insert(agent.pod.clone(), agent);
        self.tell(node, before.as_ref())
    }

    fn remove_agent(&mut self, pod: &Pod) -> Vec<Change> {
        let Some(node) = node_of(pod) else { return Vec::new() };
        let before = self.agent(node).cloned();
        if let Some(agents) = self.agents.get_mut(node) {
            agents.remove(&pod.name_any());
        }
        self.tell(node, before.as_ref())
    }

    fn set_pod(&mut self, pod: &Pod) -> Vec<Change> {
        let names = self.wanted.pods.as_ref().map(|pods| &pods.names[..]).unwrap_or_default();
        let is_wanted = names.is_empty() || names.contains(&pod.name_any());
        let has_ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let has_ended = has_ended.is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
        let Some(node) = node_of(pod).filter(|_| is_wanted && !has_ended) else { return Vec::new() };
        let is_new = self.hosts.insert(node.to_owned());
        if is_new && self.incomplete == 0 && self.is_wanted(node) { vec![self.change(node)] } else { Vec::new() }
    }

    /// All that is wanted and known, when it is known for the first time.
    fn complete(&self) -> Vec<Change> {
        let of_pods = self.hosts.iter().map(String::as_str);
        let nodes: BTreeSet<&str> = match self.wanted.pods {
            Some(_) => of_pods.collect(),
            // A node that was named is missed if it is not there.
            None => self.nodes_with_agents().into_iter().chain(self.wanted.nodes.iter().map(String::as_str)).collect(),
        };
        let wanted = nodes.into_iter().filter(|node| self.is_wanted(node)).map(|node| self.change(node));
        wanted.chain([Change::Complete]).collect()
    }

    fn tell(&self, node: &str, before: Option<&Agent>) -> Vec<Change> {
        let changed = self.agent(node) != before;
        if changed && self.incomplete == 0 && self.is_wanted(node) { vec![self.change(node)] } else { Vec::new() }
    }

    fn change(&self, node: &str) -> Change {
        Change::Node(node.to_owned(), self.agent(node).cloned())
    }

    fn is_wanted(&self, node: &str) -> bool {
        (self.wanted.nodes.is_empty() || self.wanted.nodes.iter().any(|name| name == node))
            && (self.wanted.pods.is_none() || self.hosts.contains(node))
    }

    /// The agent of a node: one that can be talked to, if there is one.
    fn agent(&self, node: &str) -> Option<&Agent> {
        let agents = self.agents.get(node)?;
        agents.values().min_by_key(|agent| agent.trouble.is_some())
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

impl std::fmt::Display for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agents => write!(f, "list the agents in namespace {NAMESPACE}"),
            Self::Pods(place) => write!(f, "list pods {place}"),
        }
    }
}
