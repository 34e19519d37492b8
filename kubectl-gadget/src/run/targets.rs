//! Which agents a run needs: those of the nodes that have, or come to have, a pod that it is about.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use futures::future;
use futures::stream::{self, BoxStream, SelectAll};
use futures::{Stream, StreamExt as _};
use gadgets::labels::LabelSelector;
use gadgets::workload::Workload;
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
    /// What they are or belong to; anything if empty.
    pub(crate) workloads: Vec<Workload>,
}

impl WantedPods {
    /// Whether a pod may be one of them, as far as names and owners say. Its agent, which knows more, decides.
    fn may_include(&self, pod: &Pod) -> bool {
        let name = pod.name_any();
        let is_named = self.names.is_empty() || self.names.contains(&name);
        let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        let controller = controller.map(|owner| Workload::new(&owner.kind, &owner.name));
        // Only its Job knows what that belongs to: anything but what makes pods itself.
        let is_of_job = controller.as_ref().is_some_and(|controller| controller.kind == "Job");
        let own = Workload::of_pod(&name, controller, pod.labels());
        let is_wanted = |wanted: &Workload| own.contains(wanted) || is_of_job && !wanted.makes_pods();
        is_named && (self.workloads.is_empty() || self.workloads.iter().any(is_wanted))
    }
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
    /// Why changes may be told late from now on.
    Trouble(String),
}

/// Follows which nodes are wanted and which agents they have.
pub(super) struct Targets {
    wanted: Wanted,
    watches: SelectAll<BoxStream<'static, (Watch, PodEvent)>>,
    /// Watches that have not told everything yet.
    incomplete: usize,
    /// Watches that fail and are tried again.
    troubled: BTreeSet<Watch>,
    /// Pods of agents that were listed, while they are listed anew.
    listed: BTreeSet<String>,
    /// By node and by the pod's name: while it is replaced, a node has two.
    agents: BTreeMap<String, BTreeMap<String, Agent>>,
    /// Nodes that have a wanted pod, or had one.
    hosts: BTreeSet<String>,
}

type PodEvent = Result<Event<Pod>, watcher::Error>;

/// What a watch is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Watch {
    Agents,
    Pods(String),
}

/// How long the API server is listened to before it is asked to go on, in seconds: a connection that is dead without a
/// word is noticed so much later.
const LISTENING: u32 = 60;

/// Follows pods, and begins anew after each failure. The library's own watcher would go on with what failed: of an API
/// server that says no (it does while it starts) it takes each line of the answer for a failure of its own.
fn follow(api: Api<Pod>, config: watcher::Config) -> impl Stream<Item = PodEvent> {
    let config = config.timeout(LISTENING);
    let until_failure = |has_failed: &mut bool, event: PodEvent| {
        let is_over = std::mem::replace(has_failed, event.is_err());
        future::ready((!is_over).then_some(event))
    };
    stream::repeat_with(move || watcher(api.clone(), config.clone()).scan(false, until_failure))
        .flatten()
        .default_backoff()
}

impl Targets {
    pub(super) fn new(cluster: &Cluster, wanted: Wanted) -> Self {
        let mut watches = SelectAll::new();
        let mut add = |what: Watch, api: Api<Pod>, config: watcher::Config| {
            watches.push(follow(api, config).map(move |event| (what.clone(), event)).boxed());
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
        Self {
            wanted,
            watches,
            incomplete,
            troubled: BTreeSet::new(),
            listed: BTreeSet::new(),
            agents: BTreeMap::new(),
            hosts: BTreeSet::new(),
        }
    }

    /// What has changed next.
    ///
    /// # Errors
    /// If the cluster does not say which pods there are.
    pub(super) async fn next(&mut self, cluster: &Cluster) -> anyhow::Result<Vec<Change>> {
        loop {
            let next = if self.incomplete > 0 {
                cluster.ask("list agents and pods", async { Ok(self.watches.next().await) }).await?
            } else {
                self.watches.next().await
            };
            let Some((watch, event)) = next else { bail!("the watches ended") };
            let changes = match event {
                Ok(event) => {
                    // The first event of a new attempt is no sign that it works.
                    if !matches!(event, Event::Init) {
                        self.troubled.remove(&watch);
                    }
                    self.take(&watch, event)
                }
                Err(error) => {
                    let error = cluster.explain_watch(&watch.to_string(), &error);
                    if self.incomplete > 0 {
                        return Err(error.into());
                    }
                    // It is tried again, and what was known stays: worth a word the first time.
                    if self.troubled.insert(watch) { vec![Change::Trouble(error.to_string())] } else { Vec::new() }
                }
            };
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
        match (watch, event) {
            (Watch::Agents, Event::Init) => {
                self.listed.clear();
                Vec::new()
            }
            (Watch::Agents, Event::InitApply(pod)) => {
                self.listed.insert(pod.name_any());
                self.set_agent(&pod)
            }
            (Watch::Agents, Event::Apply(pod)) => self.set_agent(&pod),
            (Watch::Agents, Event::Delete(pod)) => {
                node_of(&pod).map(|node| self.retain_agents(node, |name| name != pod.name_any())).unwrap_or_default()
            }
            (Watch::Pods(_), Event::Apply(pod) | Event::InitApply(pod)) => self.set_pod(&pod),
            // Its node may get another, and costs nothing meanwhile.
            (Watch::Pods(_), Event::Init | Event::Delete(_)) => Vec::new(),
            (_, Event::InitDone) if self.incomplete > 0 => {
                self.incomplete -= 1;
                if self.incomplete > 0 { Vec::new() } else { self.complete() }
            }
            (Watch::Agents, Event::InitDone) => {
                // Those that went while nobody could tell.
                let listed = std::mem::take(&mut self.listed);
                let nodes: Vec<String> = self.agents.keys().cloned().collect();
                nodes.iter().flat_map(|node| self.retain_agents(node, |name| listed.contains(name))).collect()
            }
            (Watch::Pods(_), Event::InitDone) => Vec::new(),
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

    fn retain_agents(&mut self, node: &str, keep: impl Fn(&str) -> bool) -> Vec<Change> {
        let before = self.agent(node).cloned();
        if let Some(agents) = self.agents.get_mut(node) {
            agents.retain(|name, _| keep(name));
        }
        self.tell(node, before.as_ref())
    }

    fn set_pod(&mut self, pod: &Pod) -> Vec<Change> {
        let is_wanted = self.wanted.pods.as_ref().is_none_or(|pods| pods.may_include(pod));
        let has_ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        // One that ended while we looked ran while we looked: its agent knows whether it was seen.
        let is_past = has_ended.is_some_and(|phase| matches!(phase, "Succeeded" | "Failed")) && self.incomplete > 0;
        let Some(node) = node_of(pod).filter(|_| is_wanted && !is_past) else { return Vec::new() };
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn targets(pods: Option<WantedPods>, nodes: &[&str]) -> Targets {
        let wanted = Wanted { nodes: nodes.iter().map(|node| (*node).to_owned()).collect(), pods };
        Targets {
            incomplete: 1 + usize::from(wanted.pods.is_some()),
            wanted,
            watches: SelectAll::new(),
            troubled: BTreeSet::new(),
            listed: BTreeSet::new(),
            agents: BTreeMap::new(),
            hosts: BTreeSet::new(),
        }
    }

    fn pod(name: &str, node: &str) -> Pod {
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [], "nodeName": node}});
        serde_json::from_value(pod).expect("a pod")
    }

    fn some_pods() -> Watch {
        Watch::Pods("in namespace shop".into())
    }

    /// The nodes that are told, each with the name of its agent's pod.
    fn told(changes: Vec<Change>) -> Vec<(String, Option<String>)> {
        let nodes = changes.into_iter().filter_map(|change| match change {
            Change::Node(node, agent) => Some((node, agent.map(|agent| agent.pod))),
            Change::Complete | Change::Trouble(_) => None,
        });
        nodes.collect()
    }

    fn node(name: &str, agent: Option<&str>) -> (String, Option<String>) {
        (name.to_owned(), agent.map(str::to_owned))
    }

    fn list(targets: &mut Targets, watch: &Watch, pods: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
        let events = pods.iter().map(|(name, on)| Event::InitApply(pod(name, on)));
        let events: Vec<_> = [Event::Init].into_iter().chain(events).chain([Event::InitDone]).collect();
        told(events.into_iter().flat_map(|event| targets.take(watch, event)).collect())
    }

    #[test]
    fn nodes_without_a_wanted_pod_are_left_alone_until_one_comes() {
        let mut targets = targets(Some(WantedPods::default()), &[]);
        assert_eq!(list(&mut targets, &Watch::Agents, &[("agent-a", "a"), ("agent-b", "b")]), []);
        assert_eq!(list(&mut targets, &some_pods(), &[("web", "a")]), [node("a", Some("agent-a"))]);
        assert_eq!(told(targets.take(&some_pods(), Event::Apply(pod("web", "a")))), []);
        let came = targets.take(&some_pods(), Event::Apply(pod("web-2", "b")));
        assert_eq!(told(came), [node("b", Some("agent-b"))]);
    }

    #[test]
    fn a_node_that_was_named_is_missed_and_no_other_is_wanted() {
        let mut targets = targets(None, &["b", "c"]);
        let agents = [("agent-a", "a"), ("agent-b", "b")];
        assert_eq!(list(&mut targets, &Watch::Agents, &agents), [node("b", Some("agent-b")), node("c", None)]);
        assert_eq!(told(targets.take(&Watch::Agents, Event::Delete(pod("agent-a", "a")))), []);
    }

    #[test]
    fn agents_that_are_replaced_are_told_even_if_nobody_saw_them_go() {
        let mut targets = targets(None, &[]);
        assert_eq!(list(&mut targets, &Watch::Agents, &[("old", "a")]), [node("a", Some("old"))]);
        assert_eq!(list(&mut targets, &Watch::Agents, &[("young", "a")]), [node("a", Some("young"))]);
        assert_eq!(list(&mut targets, &Watch::Agents, &[]), [node("a", None)]);
    }

    #[test]
    fn pods_that_had_ended_before_want_no_node() {
        let mut targets = targets(Some(WantedPods::default()), &[]);
        list(&mut targets, &Watch::Agents, &[("agent-a", "a"), ("agent-b", "b")]);
        let done = |name: &str, node: &str| {
            let status = serde_json::from_value(json!({"phase": "Succeeded"})).expect("a status");
            Pod { status, ..pod(name, node) }
        };
        assert_eq!(told(targets.take(&some_pods(), Event::InitApply(done("old", "a")))), []);
        assert_eq!(told(targets.take(&some_pods(), Event::InitDone)), []);
        assert_eq!(told(targets.take(&some_pods(), Event::Apply(done("short", "b")))), [node("b", Some("agent-b"))]);
    }
}
