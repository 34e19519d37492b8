//! A pod, as the API server has it.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;

/// On the API's copy of a static pod: the id by which its kubelet calls it, also in the names of its cgroups. Anybody can
/// write it (and owners), but it has no dashes, so it cannot be another pod's UID.
const STATIC_ID: &str = "kubernetes.io/config.mirror";
/// What a ReplicaSet adds to its Deployment's name and to its pods' labels.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What is known of a pod from the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// As cgroups have it: the UID, or a static pod's hash.
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// What a person would say it belongs to, as `Deployment/web`.
    pub(crate) owner: Option<String>,
}

impl Pod {
    /// Reads an object's metadata. `None` if it has no name or UID.
    pub(crate) fn from_metadata(metadata: ObjectMeta) -> Option<Self> {
        let labels = metadata.labels.unwrap_or_default();
        let owners = metadata.owner_references.unwrap_or_default();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true));
        let is_nodes = controller.as_ref().is_some_and(|owner| owner.kind == "Node");
        let static_id = metadata.annotations.and_then(|mut all| all.remove(STATIC_ID));
        let static_id = static_id.filter(|id| is_nodes && !id.contains('-'));
        let owner = controller.map(|owner| {
            let deployment =
                labels.get(TEMPLATE_HASH).and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
            match deployment {
                Some(name) if owner.kind == "ReplicaSet" => format!("Deployment/{name}"),
                _ => format!("{}/{}", owner.kind, owner.name),
            }
        });
        Some(Self {
            uid: static_id.or(metadata.uid)?,
            namespace: metadata.namespace?,
            name: metadata.name?,
            labels,
            owner,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(metadata: Value) -> Option<Pod> {
        Pod::from_metadata(serde_json::from_value(metadata).expect("metadata"))
    }

    fn owner(kind: &str, name: &str) -> Value {
        json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}])
    }

    #[test]
    fn a_deployments_pod_says_so() {
        let web = pod(
            json!({"name": "web-5d4-x", "namespace": "shop", "uid": "1", "ownerReferences": owner("ReplicaSet", "web-5d4"),
            "labels": {"app": "web", "pod-template-hash": "5d4"}}),
        );
        let web = web.expect("a pod");
        assert_eq!((web.uid.as_str(), web.owner.as_deref()), ("1", Some("Deployment/web")));
        let bare =
            pod(json!({"name": "web", "namespace": "shop", "uid": "1", "ownerReferences": owner("ReplicaSet", "web")}));
        assert_eq!(bare.expect("a pod").owner.as_deref(), Some("ReplicaSet/web"));
    }

    #[test]
    fn a_static_pod_has_its_kubelets_id() {
        let metadata = |kind: &str| {
            json!({"name": "etcd-a", "namespace": "kube-system", "uid": "1", "ownerReferences": owner(kind, "a"),
                "annotations": {"kubernetes.io/config.mirror": "abc"}})
        };
        assert_eq!(pod(metadata("Node")).expect("a pod").uid, "abc");
        assert_eq!(pod(metadata("Job")).expect("a pod").uid, "1");
        let mut thief = metadata("Node");
        thief["annotations"]["kubernetes.io/config.mirror"] = json!("0b6f1a2c-0000-4000-8000-000000000000");
        assert_eq!(pod(thief).expect("a pod").uid, "1");
    }

    #[test]
    fn what_has_no_name_is_no_pod() {
        assert_eq!(pod(json!({"name": "web", "namespace": "shop"})), None);
    }
}
