//! Why an agent is not ready, from what its pod says: what happened, and what to do about it.

use std::fmt;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod};

use super::{CONTAINER, NAMESPACE};

/// What keeps an agent from being ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Name of the node; `None` while it has none.
    pub(crate) node: Option<String>,
    /// What happened, and what to do about it.
    pub(crate) why: String,
    /// Name of the pod.
    pub(crate) pod: String,
    /// Whether waiting will not help.
    pub(crate) lasting: bool,
}

/// Why the agent of this pod is not ready; `None` if it is. Its log is not asked for: the pod has its last words.
pub(crate) fn why_not_ready(pod: &Pod) -> Option<Trouble> {
    let (lasting, why) = look(pod)?;
    let name = pod.metadata.name.clone().unwrap_or_default();
    Some(Trouble {
        node: node(pod).map(str::to_owned),
        why: format!("{why} (pod {NAMESPACE}/{name})"),
        pod: name,
        lasting,
    })
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "node {node}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

fn look(pod: &Pod) -> Option<(bool, String)> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some((false, "the agent is being removed".into()));
    }
    let status = pod.status.as_ref();
    let condition = |kind| status?.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    if let Some(unscheduled) = condition("PodScheduled").filter(|condition| condition.status == "False") {
        let message = unscheduled.message.as_deref().unwrap_or("the scheduler does not say why");
        return Some((false, format!("the agent cannot be placed on its node: {message}")));
    }
    if status.and_then(|status| status.phase.as_deref()) == Some("Failed") {
        let reason = status.and_then(|status| status.reason.as_deref()).unwrap_or("no reason given");
        let message = status.and_then(|status| status.message.as_deref()).unwrap_or_default();
        return Some((false, format!("the agent was ended by its node: {reason}: {message}")));
    }
    let mut containers = status?.container_statuses.iter().flatten();
    let Some(container) = containers.find(|container| container.name == CONTAINER) else {
        return Some((false, "the node has not begun to start the agent; is it alive? see: kubectl get nodes".into()));
    };
    if condition("Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    if container.ready {
        return Some((false, "the node does not answer; see: kubectl get nodes".into()));
    }
    // Kubernetes before 1.22 calls a container without a readiness probe ready up to 90 s after it has started.
    let running = container.state.as_ref().is_some_and(|state| state.running.is_some());
    if running && container.started == Some(true) {
        return None;
    }
    Some(of_container(container))
}

fn of_container(container: &ContainerStatus) -> (bool, String) {
    let state = container.state.clone().unwrap_or_default();
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    match (state.waiting, state.terminated, before) {
        (Some(waiting), _, before) => of_waiting(&waiting, before, &container.image),
        (None, Some(ended), _) => (false, format!("the agent ended {}", last_words(&ended))),
        (None, None, Some(before)) => {
            (false, format!("the agent is starting again; before it ended {}", last_words(before)))
        }
        (None, None, None) => (false, "the agent is starting".into()),
    }
}

fn of_waiting(
    waiting: &ContainerStateWaiting,
    before: Option<&ContainerStateTerminated>,
    image: &str,
) -> (bool, String) {
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = waiting.message.as_deref().unwrap_or_default();
    let load = "load it onto the node (manifests/README.md says how), or name another: kubectl gadget deploy --image";
    match reason {
        "ErrImageNeverPull" => (true, format!("image {image} is not there, and may not be pulled: {load}")),
        "InvalidImageName" => (true, format!("image {image:?} has no valid name: kubectl gadget deploy --image")),
        // That there is no registry on the node itself is no news.
        "ErrImagePull" | "ImagePullBackOff" if image.starts_with("localhost/") => {
            (true, format!("image {image} is not there: {load}"))
        }
        "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError" | "RegistryUnavailable" => {
            (true, format!("image {image} cannot be pulled: {message}: {load}"))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            (true, format!("the agent's container cannot be started: {reason}: {message}"))
        }
        "CrashLoopBackOff" => {
            let words = before.map(last_words).unwrap_or_default();
            (true, format!("the agent ends again and again {words}"))
        }
        "" | "ContainerCreating" | "PodInitializing" => (false, "the agent's container is being made".into()),
        other => (false, format!("the agent's container waits: {other}: {message}")),
    }
}

/// How it ended, and the last complaint in what it said: the manifest has the node keep the end of its log.
fn last_words(ended: &ContainerStateTerminated) -> String {
    let said = ended.message.as_deref().unwrap_or_default();
    let lines = || said.lines().rev().map(str::trim);
    let complaint = |line: &&str| line.starts_with("gadget-agent: ") || line.starts_with("error: ");
    let last = lines().find(complaint).or_else(|| lines().find(|line| !line.is_empty()));
    let how = match ended.reason.as_deref() {
        Some(reason @ ("OOMKilled" | "DeadlineExceeded" | "StartError" | "ContainerCannotRun")) => reason.to_owned(),
        _ => format!("exit code {}", ended.exit_code),
    };
    match last {
        Some(last) => format!("({how}): {last}"),
        None => format!("({how})"),
    }
}

/// The pod's node; also of one that is not placed yet, since a DaemonSet says where its pods shall go.
fn node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    let wanted = || {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
        let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
        fields.find(|field| field.key == "metadata.name")?.values.as_ref()?.first()
    };
    spec.node_name.as_ref().or_else(wanted).map(String::as_str)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use serde_json::{Value, json};

    use super::*;
    use crate::deploy::default_image;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "gadget-agent-x1", "namespace": "gadget"},
            "spec": {"nodeName": "node-a", "containers": []},
            "status": status,
        }))
        .unwrap()
    }

    /// Of a pod whose container is in this state, and was in that one before.
    fn of_state(state: Value, before: Value) -> (bool, String) {
        of_image(&default_image(), state, before)
    }

    fn of_image(image: &str, state: Value, before: Value) -> (bool, String) {
        let container = json!({
            "name": "agent", "image": image, "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": before,
        });
        let trouble = why_not_ready(&pod(json!({"containerStatuses": [container]}))).unwrap();
        let (lasting, text) = (trouble.lasting, trouble.to_string());
        assert!(text.starts_with("node node-a: ") && text.ends_with("(pod gadget/gadget-agent-x1)"), "{text}");
        (lasting, text)
    }

    fn waiting(reason: &str) -> (bool, String) {
        of_state(json!({"waiting": {"reason": reason, "message": "the message"}}), json!({}))
    }

    #[test]
    fn a_missing_image_is_named_with_what_to_do() {
        for reason in ["ErrImageNeverPull", "InvalidImageName", "ErrImagePull", "ImagePullBackOff"] {
            let (lasting, text) = waiting(reason);
            assert!(lasting && text.contains(&default_image()) && text.contains("deploy --image"), "{text}");
        }
        assert!(!waiting("ErrImagePull").1.contains("the message"), "there is no registry at localhost");
        let (_, text) = of_image(
            "registry.example/agent:1",
            json!({"waiting": {"reason": "ErrImagePull", "message": "the message"}}),
            json!({}),
        );
        assert!(text.contains("registry.example/agent:1 cannot be pulled: the message"), "{text}");
    }

    #[test]
    fn what_heals_is_waited_for() {
        assert!(!waiting("ContainerCreating").0);
        assert!(!waiting("SomethingNew").0 && waiting("SomethingNew").1.contains("SomethingNew: the message"));
        let (lasting, text) = of_state(json!({"running": {}}), json!({}));
        assert!(!lasting && text.contains("starting"), "{text}");
        assert!(waiting("CreateContainerError").0);
    }

    #[test]
    fn a_crash_has_its_last_line() {
        let before =
            json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "first\ngadget-agent: no BTF\nbye\n"}});
        let (lasting, text) = of_state(json!({"waiting": {"reason": "CrashLoopBackOff"}}), before.clone());
        assert!(lasting && text.contains("(exit code 1): gadget-agent: no BTF ("), "{text}");
        let (lasting, text) = of_state(json!({"running": {}}), before);
        assert!(!lasting && text.contains("no BTF"), "{text}");
        let (_, text) = of_state(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), json!({}));
        assert!(text.contains("ended (OOMKilled)"), "{text}");
    }

    #[test]
    fn a_pod_that_nobody_runs_says_why() {
        let conditions = json!([{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]);
        let mut unplaced = pod(json!({"phase": "Pending", "conditions": conditions}));
        let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-b"]}]}]);
        let affinity =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        unplaced.spec = serde_json::from_value(json!({"affinity": affinity, "containers": []})).unwrap();
        let trouble = why_not_ready(&unplaced).unwrap();
        let (lasting, text) = (trouble.lasting, trouble.to_string());
        assert!(!lasting && text.starts_with("node node-b: ") && text.contains("0/2 nodes"), "{text}");
        assert!(why_not_ready(&pod(json!({"phase": "Pending"}))).unwrap().why.contains("is it alive?"));
        let evicted = pod(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        assert!(why_not_ready(&evicted).unwrap().why.contains("Evicted: low on memory"));
    }

    #[test]
    fn a_ready_pod_has_no_trouble() {
        let container = json!({"name": "agent", "image": "", "imageID": "", "ready": true, "restartCount": 0});
        let of = |ready| {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            why_not_ready(&pod(json!({"conditions": conditions, "containerStatuses": [container.clone()]})))
        };
        assert_eq!(of("True"), None);
        assert!(of("False").unwrap().why.contains("the node does not answer"));
        let started = json!({
            "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0, "started": true,
            "state": {"running": {}},
        });
        assert_eq!(why_not_ready(&pod(json!({"containerStatuses": [started]}))), None);
    }
}
