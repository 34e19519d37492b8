//! What is applied: `manifests/agent.yaml`, as people can read it, with the user's options.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::Options;

const AGENT: &str = include_str!("../../../manifests/agent.yaml");

/// The image that is deployed if the user names none: this version's.
pub(crate) fn default_image() -> String {
    format!("localhost/gadget-agent:{}", env!("CARGO_PKG_VERSION"))
}

/// The objects, in the order in which they are applied.
///
/// # Errors
/// None for manifests that pass the tests.
pub(super) fn objects(options: &Options) -> anyhow::Result<Vec<DynamicObject>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(AGENT)?;
    documents
        .into_iter()
        .map(|mut document| {
            if document["kind"] == "DaemonSet" {
                customise(&mut document["spec"]["template"]["spec"], options);
            }
            Ok(serde_json::from_value(document)?)
        })
        .collect()
}

/// Puts the options into the agent's pod.
fn customise(pod: &mut Value, options: &Options) {
    let container = &mut pod["containers"][0];
    if let Some(image) = &options.image {
        container["image"] = json!(image);
    }
    if let Some(policy) = &options.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if options.lock_memory
        && let Some(capabilities) = container["securityContext"]["capabilities"]["add"].as_array_mut()
    {
        capabilities.push(json!("SYS_RESOURCE"));
    }
    for (label, value) in &options.node_selector {
        pod["nodeSelector"][label] = json!(value);
    }
    if let Some(tolerations) = &options.tolerations {
        pod["tolerations"] = json!(tolerations);
    }
}

/// As one file.
pub(super) fn yaml(objects: &[DynamicObject]) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string_multiple(objects)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use std::collections::BTreeSet;

    use k8s_openapi::api::apps::v1::DaemonSet;
    use k8s_openapi::api::core::v1::{Namespace, PodSpec, Toleration};
    use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
    use k8s_openapi::serde::de::DeserializeOwned;

    use super::*;
    use crate::deploy;

    const USER_ROLE: &str = include_str!("../../../manifests/user-role.yaml");

    fn object<T: DeserializeOwned>(kind: &str, options: &Options) -> T {
        let found = objects(options).unwrap().into_iter().find(|object| object.types.as_ref().unwrap().kind == kind);
        serde_json::from_value(serde_json::to_value(found.unwrap()).unwrap()).unwrap()
    }

    fn pod(options: &Options) -> PodSpec {
        object::<DaemonSet>("DaemonSet", options).spec.unwrap().template.spec.unwrap()
    }

    #[test]
    fn everything_is_ours_and_of_this_version() {
        let objects = objects(&Options::default()).unwrap();
        let kinds: Vec<_> = objects.iter().map(|object| object.types.clone().unwrap().kind).collect();
        assert_eq!(kinds, ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "DaemonSet"]);
        for object in &objects {
            assert!(deploy::is_ours(object), "{}", deploy::name(object));
            let labels = object.metadata.labels.as_ref().unwrap();
            assert_eq!(labels[deploy::VERSION_LABEL], env!("CARGO_PKG_VERSION"));
            assert!(object.metadata.namespace.as_deref().is_none_or(|namespace| namespace == deploy::NAMESPACE));
        }
        assert_eq!(object::<Namespace>("Namespace", &Options::default()).metadata.name.unwrap(), deploy::NAMESPACE);
    }

    #[test]
    fn the_daemon_set_is_what_the_rest_of_the_client_looks_for() {
        let set: DaemonSet = object("DaemonSet", &Options::default());
        assert_eq!(set.metadata.name.unwrap(), deploy::NAME);
        let spec = set.spec.unwrap();
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels[deploy::VERSION_LABEL], env!("CARGO_PKG_VERSION"));
        let (label, value) = deploy::SELECTOR.split_once('=').unwrap();
        assert_eq!(labels[label], value);
        assert_eq!(spec.selector.match_labels.unwrap()[label], value);
        let container = spec.template.spec.unwrap().containers.remove(0);
        assert_eq!(container.name, deploy::CONTAINER);
        assert_eq!(container.command.unwrap()[0], deploy::BINARY);
        assert_eq!(container.image.unwrap(), default_image());
    }

    #[test]
    fn the_agent_may_do_no_more_than_it_must() {
        let role: ClusterRole = object("ClusterRole", &Options::default());
        let rules: Vec<_> = role
            .rules
            .into_iter()
            .flatten()
            .map(|rule| (rule.resources.unwrap().join(","), rule.verbs.join(",")))
            .collect();
        let rule = |resources: &str, verbs: &str| (resources.to_owned(), verbs.to_owned());
        assert_eq!(rules, [rule("pods", "list,watch"), rule("jobs", "get")]);
        let pod = pod(&Options::default());
        assert_eq!(pod.host_network, None);
        let security = pod.containers[0].security_context.clone().unwrap();
        assert_eq!((security.privileged, security.allow_privilege_escalation), (Some(false), Some(false)));
        let capabilities = security.capabilities.unwrap();
        assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
        assert_eq!(capabilities.add.unwrap(), ["BPF", "PERFMON", "SYS_PTRACE", "SYS_CHROOT"]);
        let writable: BTreeSet<_> = pod.containers[0]
            .volume_mounts
            .iter()
            .flatten()
            .filter(|mount| mount.read_only != Some(true))
            .map(|mount| &*mount.name)
            .collect();
        assert_eq!(writable, BTreeSet::from(["run"]));
    }

    #[test]
    fn options_change_what_they_say_and_nothing_else() {
        let options = Options {
            image: Some("registry.example/agent:1".into()),
            image_pull_policy: Some("Always".into()),
            node_selector: [("pool".to_owned(), "debug".to_owned())].into(),
            tolerations: Some(vec![Toleration { key: Some("dedicated".into()), ..Toleration::default() }]),
            lock_memory: true,
        };
        let (plain, mut changed) = (pod(&Options::default()), pod(&options));
        assert_eq!(changed.containers[0].image.as_deref(), Some("registry.example/agent:1"));
        assert_eq!(changed.containers[0].image_pull_policy.as_deref(), Some("Always"));
        let nodes = changed.node_selector.clone().unwrap();
        assert_eq!(
            nodes.into_iter().collect::<Vec<_>>(),
            [("kubernetes.io/os".into(), "linux".into()), ("pool".into(), "debug".into())]
        );
        assert_eq!(changed.tolerations, options.tolerations);
        assert_eq!(pod(&Options { tolerations: Some(vec![]), ..Options::default() }).tolerations, Some(vec![]));
        let capabilities =
            |pod: &PodSpec| pod.containers[0].security_context.clone().unwrap().capabilities.unwrap().add;
        assert_eq!(capabilities(&changed).unwrap(), ["BPF", "PERFMON", "SYS_PTRACE", "SYS_CHROOT", "SYS_RESOURCE"]);
        changed.containers[0].security_context = plain.containers[0].security_context.clone();
        changed.containers[0].image = plain.containers[0].image.clone();
        changed.containers[0].image_pull_policy = plain.containers[0].image_pull_policy.clone();
        changed.node_selector = plain.node_selector.clone();
        changed.tolerations = plain.tolerations.clone();
        assert_eq!(changed, plain);
    }

    #[test]
    fn what_is_printed_is_what_is_applied() {
        let objects = objects(&Options::default()).unwrap();
        let text = yaml(&objects).unwrap();
        let again: Vec<DynamicObject> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(serde_json::to_value(again).unwrap(), serde_json::to_value(objects).unwrap());
    }

    #[test]
    fn the_users_roles_are_two() {
        let [role, cluster_role]: [Value; 2] =
            serde_saphyr::from_multiple::<Value>(USER_ROLE).unwrap().try_into().unwrap();
        let role: Role = serde_json::from_value(role).unwrap();
        assert_eq!(role.metadata.namespace.as_deref(), Some(deploy::NAMESPACE));
        assert!(role.rules.unwrap().iter().any(|rule| rule.resources == Some(vec!["pods/exec".into()])));
        let cluster_role: ClusterRole = serde_json::from_value(cluster_role).unwrap();
        assert_eq!(cluster_role.rules.unwrap()[0].verbs, ["list", "watch"]);
    }
}
