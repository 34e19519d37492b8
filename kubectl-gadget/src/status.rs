//! What agents say of themselves, their nodes, and what they record.

use futures::future::join_all;
use gadgets::wire::{Frame, Hello, Recording, Status};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::ListParams;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::deploy::{NAMESPACE, SELECTOR, why_not_ready};
use crate::run::connection::{self, Connection, Local};
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
    pub(crate) recordings: Vec<Recording>,
}

/// Asks all agents at once, or those of these nodes. Sorted by node; empty if none is deployed.
///
/// # Errors
/// If the cluster does not say where agents are.
pub(crate) async fn ask_all(
    cluster: &Cluster,
    nodes: &[String],
    request: impl Fn() -> Request,
) -> anyhow::Result<Vec<NodeStatus>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let what = format!("list the agents in namespace {NAMESPACE}");
    let pods = cluster.ask(&what, pods.list(&ListParams::default().labels(SELECTOR))).await?;
    let is_asked = |pod: &&Pod| nodes.is_empty() || nodes.contains(&node_of(pod));
    let mut answers = join_all(pods.items.iter().filter(is_asked).map(|pod| ask_one(cluster, pod, request()))).await;
    answers.sort_by(|one, other| one.node.cmp(&other.node));
    Ok(answers)
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

async fn ask_one(cluster: &Cluster, pod: &Pod, request: Request) -> NodeStatus {
    let answer = match why_not_ready(pod) {
        Some(trouble) => Err(trouble.why),
        None => converse(connection::connect(cluster, &pod.name_any()).await, request).await,
    };
    NodeStatus { node: node_of(pod), answer }
}

/// Asks an agent of this host.
pub(crate) async fn ask_local(local: &Local, request: Request) -> NodeStatus {
    let answer = converse(local.connect(), request).await;
    let node = answer.as_ref().ok().and_then(|answer| answer.hello.node.as_ref()).map(|node| node.name.clone());
    NodeStatus { node: node.unwrap_or_default(), answer }
}

async fn converse(connected: anyhow::Result<Connection>, request: Request) -> Result<Answer, String> {
    let connection = connected.map_err(|error| format!("{error:#}"))?;
    let mut answer = Answer::default();
    let (_nobody, stop) = watch::channel(false);
    let ending = conversation::hold(connection, request, stop, |frame| match frame {
        Frame::Hello(hello) => answer.hello = *hello,
        Frame::Status(status) => answer.status = *status,
        Frame::Recording(recording) => answer.recordings.push(*recording),
        _ => {}
    })
    .await;
    match ending {
        Ending::Complete => Ok(answer),
        Ending::Refused(failure) => Err(failure.message),
        Ending::Broken { why, .. } => Err(why),
    }
}
