//! Watches the node's pods through the API server: names, labels, owners, usually before a pod's first cgroup exists.

use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};

use futures::{TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::api::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};

use super::pod::Pod;
use super::tracker::{PodNews, Tracker};
use crate::error::AgentError;

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

async fn watch(config: Config, node: &str, tracker: &Weak<Tracker>, mut synced: impl FnMut()) {
    let client = match Client::try_from(config) {
        Ok(client) => client,
        Err(error) => return tracing::error!("cannot talk to the API server: {error}"),
    };
    // Metadata is all that is needed, and a fraction of a pod.
    let pods: Api<PartialObjectMeta<ApiPod>> = Api::all(client);
    let of_node = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let events = watcher(pods, of_node).default_backoff();
    pin_mut!(events);
    let mut listed = Vec::new();
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                // It tries again, later and later; meanwhile what is known stays.
                tracing::warn!("cannot watch the pods of node {node}: {}", reason(&error));
                continue;
            }
        };
        let read = |object: PartialObjectMeta<ApiPod>| Pod::from_metadata(object.metadata);
        let news = match event {
            Event::Init => {
                listed.clear();
                continue;
            }
            Event::InitApply(object) => {
                listed.extend(read(object));
                continue;
            }
            Event::InitDone => PodNews::All(std::mem::take(&mut listed)),
            Event::Apply(object) => match read(object) {
                Some(pod) => PodNews::Changed(pod),
                None => continue,
            },
            Event::Delete(object) => match read(object) {
                Some(pod) => PodNews::Deleted(pod.uid),
                None => continue,
            },
        };
        let Some(tracker) = tracker.upgrade() else { return };
        let is_first = matches!(news, PodNews::All(_));
        tracker.learn(news);
        if is_first {
            synced();
        }
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
