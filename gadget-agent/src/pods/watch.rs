//! Watches the node's pods through the API server: names, labels, owners, usually before a pod's first cgroup exists.

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::{Stream, TryStreamExt as _, pin_mut};
use gadgets::workload::Workload;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as ApiPod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Config};
use tokio::time::{sleep, timeout};

use super::pod::{Pod, controller};
use super::tracker::{PodNews, Tracker};
use crate::error::AgentError;

/// How long the API server is listened to before it is asked to go on, in seconds: a connection that is dead without a
/// word (a network that is split, a balancer that has forgotten it) is noticed so much later.
const LISTENING: u32 = 60;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(75);
/// How long the API server may take to answer: what it tells next waits.
const ASKING: Duration = Duration::from_secs(2);
/// How long it is left alone when it does not answer.
const RESTING: Duration = Duration::from_secs(10);
/// How often a container's name is asked for: a pod changes some times until its status is complete.
const TRIES: u32 = 8;
/// Jobs and containers that are remembered.
const MAX_REMEMBERED: usize = 4096;

/// Starts to watch the pods of a node, and returns when all that there are now are known. Goes on as long as the
/// tracker lives; while the API server is away, what was known stays.
///
/// # Errors
/// If this process is not in a pod with a service account.
pub(crate) fn start(node: &str, tracker: &Arc<Tracker>) -> Result<(), AgentError> {
    let config = Config::incluster().map_err(|error| {
        AgentError::Unsupported(format!("the API server can only be asked from within a pod of the cluster: {error}"))
    })?;
    let (synced, first) = channel();
    let (node, tracker) = (node.to_owned(), Arc::downgrade(tracker));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AgentError::internal("watch pods", error))?;
    std::thread::Builder::new()
        .name("pods".into())
        .spawn(move || runtime.block_on(watch(config, &node, &tracker, || _ = synced.send(()))))
        .map_err(|error| AgentError::internal("start a thread", error))?;
    first.recv().map_err(|_| AgentError::Internal("the watch of the node's pods ended".into()))
}

async fn watch(mut config: Config, node: &str, tracker: &Weak<Tracker>, mut synced: impl FnMut()) {
    config.read_timeout = Some(SILENCE);
    let client = match Client::try_from(config) {
        Ok(client) => client,
        Err(error) => return tracing::error!("cannot talk to the API server: {error}"),
    };
    let mut server = Server::new(client.clone());
    // Metadata is nearly all that is needed, and a fraction of a pod.
    let pods: Api<PartialObjectMeta<ApiPod>> = Api::all(client);
    // From the API server's memory, as kubelets ask: with every node at once after an outage, too.
    let of_node = watcher::Config::default().fields(&format!("spec.nodeName={node}")).timeout(LISTENING).any_semantic();
    let mut pauses = DefaultBackoff::default();
    // Begins anew after each failure. The library's own watcher would go on with what failed: of an API server that says
    // no (it does while it starts) it takes each line of the answer for a failure of its own, with a pause after each.
    loop {
        let events = watcher(pods.clone(), of_node.clone());
        let listed = || {
            pauses.reset();
            synced();
        };
        match follow(events, &mut server, tracker, listed).await {
            Ok(()) => return,
            // What is known stays.
            Err(error) => tracing::warn!("cannot watch the pods of node {node}: {}", reason(&error)),
        }
        sleep(pauses.next().unwrap_or(RESTING)).await;
    }
}

/// Tells the tracker what happens, until it is gone.
///
/// # Errors
/// If the watch fails.
async fn follow(
    events: impl Stream<Item = watcher::Result<Event<PartialObjectMeta<ApiPod>>>>,
    server: &mut Server,
    tracker: &Weak<Tracker>,
    mut all_listed: impl FnMut(),
) -> watcher::Result<()> {
    pin_mut!(events);
    let mut listed = Vec::new();
    while let Some(event) = events.try_next().await? {
        let news = match event {
            Event::Init => {
                listed.clear();
                continue;
            }
            Event::InitApply(object) => {
                listed.extend(server.read(object).await);
                continue;
            }
            Event::InitDone => PodNews::All(std::mem::take(&mut listed)),
            Event::Apply(object) => match server.read(object).await {
                Some(pod) => PodNews::Changed(pod),
                None => continue,
            },
            Event::Delete(object) => match Pod::from_metadata(object.metadata) {
                Some(pod) => PodNews::Deleted(pod.uid),
                None => continue,
            },
        };
        let Some(tracker) = tracker.upgrade() else { break };
        let is_all = matches!(news, PodNews::All(_));
        let told = match &news {
            PodNews::All(pods) => pods.clone(),
            PodNews::Changed(pod) => vec![pod.clone()],
            _ => Vec::new(),
        };
        tracker.learn(news);
        if is_all {
            all_listed();
        }
        // Of a container that has just begun its status has the name, if its runtime has not said it where we look.
        for pod in &told {
            let unnamed = tracker.unnamed_containers(&pod.uid);
            if !unnamed.is_empty()
                && let Some(names) = server.container_names(pod, unnamed).await
            {
                tracker.learn(PodNews::Containers(pod.uid.clone(), names));
            }
        }
    }
    Ok(())
}

/// The API server, for what a pod's metadata do not say.
struct Server {
    client: Client,
    /// What Jobs belong to, by the Job's namespace and UID: it is not written on their pods.
    controllers: HashMap<(String, String), Option<Workload>>,
    /// How often the names of these containers were asked for, by their ids.
    asked: HashMap<String, u32>,
    /// It did not answer: nothing is asked before.
    rests_until: Option<Instant>,
}

impl Server {
    fn new(client: Client) -> Self {
        Self { client, controllers: HashMap::new(), asked: HashMap::new(), rests_until: None }
    }

    /// Reads a pod, and whose its Job is. If the API server does not say that in time, the Job is the last owner that is
    /// known, until the pod changes next.
    async fn read(&mut self, object: PartialObjectMeta<ApiPod>) -> Option<Pod> {
        let job = controller(&object.metadata).filter(|owner| owner.kind == "Job").cloned();
        let mut pod = Pod::from_metadata(object.metadata)?;
        if let Some(job) = job {
            match self.controller_of(&pod.namespace, &job).await {
                Some(controller) => pod.workloads.extend(controller),
                None => pod.lacks_owner = true,
            }
        }
        Some(pod)
    }

    /// What a Job belongs to, if anything; `None` if that is not told.
    async fn controller_of(&mut self, namespace: &str, job: &OwnerReference) -> Option<Option<Workload>> {
        let key = (namespace.to_owned(), job.uid.clone());
        if let Some(known) = self.controllers.get(&key) {
            return Some(known.clone());
        }
        let api: Api<PartialObjectMeta<Job>> = Api::namespaced(self.client.clone(), namespace);
        let found = self.ask(format!("what job {} belongs to", job.name), api.get_metadata_opt(&job.name)).await?;
        // Another may have its name by now, and who writes a pod can write any owner on it.
        let Some(found) = found.filter(|found| found.metadata.uid.as_ref() == Some(&job.uid)) else {
            return Some(None);
        };
        let known = controller(&found.metadata).map(|owner| Workload::new(&owner.kind, &owner.name));
        if self.controllers.len() >= MAX_REMEMBERED {
            self.controllers.clear();
        }
        self.controllers.insert(key, known.clone());
        Some(known)
    }

    /// The names of a pod's containers by their ids, as far as its status has them; `None` if it was asked often enough.
    async fn container_names(&mut self, pod: &Pod, unnamed: Vec<String>) -> Option<HashMap<String, String>> {
        if self.asked.len() >= MAX_REMEMBERED {
            self.asked.clear();
        }
        let mut is_worth_it = false;
        for container in unnamed {
            // A sandbox never has one, and a container not before it has begun.
            let tries = self.asked.entry(container).or_default();
            is_worth_it |= *tries < TRIES;
            *tries += 1;
        }
        if !is_worth_it {
            return None;
        }
        let api: Api<ApiPod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let only = ListParams::default().fields(&format!("metadata.name={}", pod.name));
        let what = format!("how the containers of {}/{} are called", pod.namespace, pod.name);
        let status = self.ask(what, api.list(&only)).await?.items.into_iter().next()?.status?;
        let all = [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses];
        // RUNTIME://ID
        let named = |status: ContainerStatus| {
            Some((status.container_id?.rsplit('/').next().unwrap_or_default().to_owned(), status.name))
        };
        Some(all.into_iter().flatten().flatten().filter_map(named).collect())
    }

    /// An answer, if it comes in time.
    async fn ask<T>(&mut self, what: String, answer: impl Future<Output = kube::Result<T>>) -> Option<T> {
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let why = match timeout(ASKING, answer).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => reason(&error),
            Err(_) => format!("no answer within {} s", ASKING.as_secs()),
        };
        tracing::warn!("cannot ask the API server {what}: {why}");
        self.rests_until = Some(Instant::now() + RESTING);
        None
    }
}

/// The innermost cause says it; what is around it only says that something failed.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
