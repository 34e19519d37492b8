//! The agents into a cluster, and out of it.
//!
//! - [`manifest`]: what is applied: `manifests/agent.yaml`, with the user's options
//! - [`rollout`]: waiting until each node has an agent that is ready
//! - [`trouble`]: why one is not

mod manifest;
mod rollout;
mod trouble;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::bail;
use gadgets::catalogue::{CHARGED_TO_CGROUPS, Release};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Toleration};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, ClusterError, Kind};

pub(crate) use manifest::default_image;
pub(crate) use trouble::{Trouble, why_not_ready};

/// The namespace that everything of ours lives in.
pub(crate) const NAMESPACE: &str = "gadget";
/// Name of our service account, cluster role, its binding, and the DaemonSet.
pub(crate) const NAME: &str = "gadget-agent";
/// The agent's container in its pods.
pub(crate) const CONTAINER: &str = "agent";
/// The agent's binary in its container.
pub(crate) const BINARY: &str = "/gadget-agent";
/// Selects the agents' pods.
pub(crate) const SELECTOR: &str = "app.kubernetes.io/name=gadget-agent";
/// The label that says which version something is of.
pub(crate) const VERSION_LABEL: &str = "app.kubernetes.io/version";

/// The label that makes an object ours, and its value.
const OURS: (&str, &str) = ("app.kubernetes.io/managed-by", "kubectl-gadget");
/// Who applies, for the API server's book of who set which field.
const MANAGER: &str = "kubectl-gadget";
/// How often is asked whether something is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How the agents are to run, where not as the manifest has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) image: Option<String>,
    pub(crate) image_pull_policy: Option<String>,
    /// Labels that a node must have, besides being a Linux node.
    pub(crate) node_selector: BTreeMap<String, String>,
    /// Taints of nodes that get an agent all the same; all of them if `None`.
    pub(crate) tolerations: Option<Vec<Toleration>>,
    /// Some nodes have kernels that count BPF's memory as locked: the agents must be allowed to lock more.
    pub(crate) lock_memory: bool,
}

/// What happens meanwhile, for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Something was done.
    Done(String),
    /// What is being waited for.
    Waiting(String),
    /// Something is not as it should be.
    Warning(String),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(text) | Self::Waiting(text) => f.write_str(text),
            Self::Warning(text) => write!(f, "warning: {text}"),
        }
    }
}

/// What is applied, as YAML for `kubectl apply -f -`.
///
/// # Errors
/// None that the user could cause.
pub(crate) fn yaml(options: &Options) -> anyhow::Result<String> {
    manifest::yaml(&manifest::objects(options)?)
}

/// Applies everything, and with a time to wait, waits until all agents are ready. May be repeated, with other options
/// too.
///
/// # Errors
/// If something cannot be applied, if an object of that name is somebody else's, or if the agents do not become ready
/// in time, or at all; then what was applied stays.
pub(crate) async fn deploy(
    cluster: &Cluster,
    options: &Options,
    wait: Option<Duration>,
    say: &dyn Fn(Progress),
) -> anyhow::Result<()> {
    let lock_memory = options.lock_memory || has_old_kernels(cluster, say).await;
    let objects = manifest::objects(&Options { lock_memory, ..options.clone() })?;
    let end = wait.map(|wait| Instant::now() + wait);
    let mut present = find(cluster, &objects).await?;
    if present.iter().flatten().any(|object| object.metadata.deletion_timestamp.is_some()) {
        let Some(end) = end else { bail!("what was deployed before is still being removed: deploy again in a while") };
        say(Progress::Waiting("waiting until what was deployed before is removed".into()));
        gone(cluster, &objects, end).await?;
        present = find(cluster, &objects).await?;
    }
    for (object, before) in objects.iter().zip(&present) {
        if before.as_ref().is_some_and(|before| !is_ours(before)) {
            bail!(
                "{} exists, and kubectl gadget did not make it (it has no label {}={}): remove it, or give it the label",
                name(object),
                OURS.0,
                OURS.1
            );
        }
    }
    let present_before = present.iter().all(Option::is_some);
    for (object, before) in objects.iter().zip(present) {
        let api = api(cluster, object)?;
        let (by_us, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(object));
        let request = api.patch(own_name(object), &by_us, &patch);
        let after = cluster.ask(&format!("apply {}", name(object)), request).await?;
        let change = match before {
            None => "created",
            Some(before) if edition(&before) == edition(&after) => "unchanged",
            Some(_) => "configured",
        };
        say(Progress::Done(format!("{} {change}", name(object))));
    }
    if present_before {
        rollout::start_afresh(cluster, say).await?;
    }
    match end {
        Some(end) => rollout::wait(cluster, end, say).await,
        None => Ok(()),
    }
}

/// Removes what [`deploy`] applies, and with a time to wait, waits until it is gone. Returns whether there was anything.
///
/// # Errors
/// If something cannot be removed, or is not gone in time.
pub(crate) async fn undeploy(
    cluster: &Cluster,
    wait: Option<Duration>,
    say: &dyn Fn(Progress),
) -> anyhow::Result<bool> {
    let end = wait.map(|wait| Instant::now() + wait);
    let objects = manifest::objects(&Options::default())?;
    let present = find(cluster, &objects).await?;
    let (ours, others): (Vec<_>, Vec<_>) = present.into_iter().flatten().partition(is_ours);
    for object in others {
        say(Progress::Warning(format!("{} stays: kubectl gadget did not make it", name(&object))));
    }
    // The namespace comes last: what is in it goes first, and what others put there goes with it.
    for object in ours.iter().rev().filter(|object| object.metadata.deletion_timestamp.is_none()) {
        let api = api(cluster, object)?;
        let background = DeleteParams::background();
        let request = api.delete(own_name(object), &background);
        match cluster.ask(&format!("delete {}", name(object)), request).await {
            Ok(_) => say(Progress::Done(format!("{} deleted", name(object)))),
            Err(ClusterError { kind: Kind::NotFound, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let (Some(end), false) = (end, ours.is_empty()) {
        say(Progress::Waiting("waiting until the agents are gone".into()));
        gone(cluster, &ours, end).await?;
    }
    Ok(!ours.is_empty())
}

/// The agents' DaemonSet; `None` if they are not deployed.
///
/// # Errors
/// If the cluster does not say.
pub(crate) async fn daemon_set(cluster: &Cluster) -> Result<Option<DaemonSet>, ClusterError> {
    let sets: Api<DaemonSet> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    cluster.ask(&format!("get daemonset/{NAME} in namespace {NAMESPACE}"), sets.get_opt(NAME)).await
}

/// Whether a node's kernel counts BPF's memory as locked, as those before 5.11 do.
async fn has_old_kernels(cluster: &Cluster, say: &dyn Fn(Progress)) -> bool {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    match cluster.ask("list nodes", nodes.list(&ListParams::default())).await {
        Ok(nodes) => nodes.items.iter().any(has_old_kernel),
        Err(error) => {
            say(Progress::Warning(format!("on nodes with kernels before 5.11 agents may not start: {error}")));
            false
        }
    }
}

fn has_old_kernel(node: &Node) -> bool {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.and_then(|info| Release::parse(&info.kernel_version)).is_some_and(|release| release < CHARGED_TO_CGROUPS)
}

/// What there is of these objects in the cluster, in their order.
async fn find(cluster: &Cluster, objects: &[DynamicObject]) -> anyhow::Result<Vec<Option<DynamicObject>>> {
    let mut found = Vec::with_capacity(objects.len());
    for object in objects {
        let api = api(cluster, object)?;
        found.push(cluster.ask(&format!("get {}", name(object)), api.get_opt(own_name(object))).await?);
    }
    Ok(found)
}

/// Waits until there is none of these objects any more, and no agent.
async fn gone(cluster: &Cluster, objects: &[DynamicObject], end: Instant) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    loop {
        let left = find(cluster, objects).await?.into_iter().flatten().find(is_ours);
        let agents = cluster.ask("list the agents' pods", pods.list(&ListParams::default().labels(SELECTOR))).await?;
        let left = match (left, agents.items.first()) {
            (None, None) => return Ok(()),
            (_, Some(pod)) => format!("pod/{}", pod.metadata.name.as_deref().unwrap_or_default()),
            (Some(object), None) => format!("{}{}", name(&object), holding(&object)),
        };
        if Instant::now() >= end {
            bail!("{left} is still being removed; it goes on without us: look again with kubectl gadget undeploy");
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// What holds up the removal of a namespace, if the API server says.
fn holding(object: &DynamicObject) -> String {
    let conditions = object.data.pointer("/status/conditions").and_then(|conditions| conditions.as_array());
    let holding = conditions.into_iter().flatten().find(|condition| condition["status"] == "True");
    match holding.and_then(|condition| condition["message"].as_str()) {
        Some(message) => format!(" ({message})"),
        None => String::new(),
    }
}

fn api(cluster: &Cluster, object: &DynamicObject) -> anyhow::Result<Api<DynamicObject>> {
    let types = object.types.clone().unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
    Ok(match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    })
}

fn is_ours(object: &DynamicObject) -> bool {
    let labels = object.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(OURS.0)).is_some_and(|by| by == OURS.1)
}

/// Changes with what an object says: its generation, if it has one, since its status changes by itself.
fn edition(object: &DynamicObject) -> (Option<i64>, Option<&String>) {
    match object.metadata.generation {
        Some(generation) => (Some(generation), None),
        None => (None, object.metadata.resource_version.as_ref()),
    }
}

fn own_name(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// As kubectl has it: `daemonset/gadget-agent`.
fn name(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map(|TypeMeta { kind, .. }| kind.to_lowercase()).unwrap_or_default();
    format!("{kind}/{}", own_name(object))
}
