//! What the agents of a cluster say of themselves and their nodes.

use futures::future::join_all;
use gadgets::wire::{Frame, Hello, Status};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::ListParams;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::deploy::{NAMESPACE, SELECTOR, why_not_ready};
use crate::run::connection;
use crate::run::conversation::{self, Ending, Request};

/// One node, as far as it answered.
pub(crate) struct NodeStatus {
    pub(crate) node: String,
    /// What the agent says, or why it says nothing.
    pub(crate) answer: Result<Answer, String>,
}

/// What an agent says.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) hello: Hello,
    pub(crate) status: Status,
}

/// Asks all agents at once. Sorted by node; empty if none is deployed.
///
/// # Errors
/// If the cluster does not say where agents are.
pub(crate) async fn ask_all(cluster: &Cluster) -> anyhow::Result<Vec<NodeStatus>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let what = format!("list the agents in namespace {NAMESPACE}");
    let pods = cluster.ask(&what, pods.list(&ListParams::default().labels(SELECTOR))).await?;
    let mut nodes = join_all(pods.items.iter().map(|pod| ask_one(cluster, pod))).await;
    nodes.sort_by(|one, other| one.node.cmp(&other.node));
    Ok(nodes)
}

async fn ask_one(cluster: &Cluster, pod: &Pod) -> NodeStatus {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let answer = match why_not_ready(pod) {
        Some(trouble) => Err(trouble.why),
        None => converse(cluster, &pod.name_any()).await,
    };
    NodeStatus { node, answer }
}

async fn converse(cluster: &Cluster, pod: &str) -> Result<Answer, String> {
    let connection = connection::connect(cluster, pod).await.map_err(|error| format!("{error:#}"))?;
    let mut answer = Answer::default();
    let (_nobody, stop) = watch::channel(false);
    let ending = conversation::hold(connection, Request::Status, stop, |frame| match frame {
        Frame::Hello(hello) => answer.hello = *hello,
        Frame::Status(status) => answer.status = *status,
        _ => {}
    })
    .await;
    match ending {
        Ending::Complete => Ok(answer),
        Ending::Refused(failure) => Err(failure.message),
        Ending::Broken { why, .. } => Err(why),
    }
}
