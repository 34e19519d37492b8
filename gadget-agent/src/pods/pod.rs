//! A pod, as the API server has it.

use std::collections::BTreeMap;

use gadgets::workload::Workload;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

/// On the API's copy of a static pod: the id by which its kubelet calls it, also in the names of its cgroups. Anybody can
/// write it (and owners), but it has no dashes, so it cannot be another pod's UID.
const STATIC_ID: &str = "kubernetes.io/config.mirror";

/// Bytes of the longest name of an object.
const MAX_NAME: usize = 253;

/// What is known of a pod from the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// As cgroups have it: the UID, or a static pod's hash.
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Itself, what it belongs to, and what that belongs to, as far as is known.
    pub(crate) workloads: Vec<Workload>,
    /// Of the last one it is not known, and should be, what it belongs to.
    pub(crate) lacks_owner: bool,
}

impl Pod {
    /// Reads an object's metadata. `None` if it has no name or UID.
    pub(crate) fn from_metadata(metadata: ObjectMeta) -> Option<Self> {
        let controller = controller(&metadata).cloned();
        let labels = metadata.labels.unwrap_or_default();
        let is_nodes = controller.as_ref().is_some_and(|owner| owner.kind == "Node");
        let static_id = metadata.annotations.and_then(|mut all| all.remove(STATIC_ID));
        let static_id = static_id.filter(|id| is_nodes && !id.contains('-'));
        let name = metadata.name?;
        let controller = controller.map(|owner| Workload::new(&owner.kind, &owner.name));
        Some(Self {
            uid: static_id.or(metadata.uid)?,
            namespace: metadata.namespace?,
            workloads: Workload::of_pod(&name, controller, &labels),
            lacks_owner: false,
            name,
            labels,
        })
    }

    /// What a person would say it belongs to; `None` if it is on its own.
    pub(crate) fn owner(&self) -> Option<&Workload> {
        self.workloads.get(1..)?.last()
    }
}

/// What makes and removes an object. Whoever makes an object can write anything there: what cannot be a name is none.
pub(crate) fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let is_name = |text: &str| {
        (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    let controller = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    controller.filter(|owner| is_name(&owner.name) && is_name(&owner.kind))
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
        assert_eq!((web.uid.as_str(), web.owner()), ("1", Some(&Workload::new("Deployment", "web"))));
        let bare =
            pod(json!({"name": "web", "namespace": "shop", "uid": "1", "ownerReferences": owner("ReplicaSet", "web")}));
        assert_eq!(bare.expect("a pod").owner(), Some(&Workload::new("ReplicaSet", "web")));
        assert_eq!(pod(json!({"name": "web", "namespace": "shop", "uid": "1"})).expect("a pod").owner(), None);
    }

    #[test]
    fn a_static_pod_has_its_kubelets_id() {
        let metadata = |kind: &str| {
            json!({"name": "etcd-a", "namespace": "kube-system", "uid": "1", "ownerReferences": owner(kind, "a"),
                "annotations": {"kubernetes.io/config.mirror": "abc"}})
        };
        assert_eq!(pod(metadata("Node")).expect("a pod").uid, "abc");
        assert_eq!(pod(metadata("Job")).expect("a pod").uid, "1");
        for name in ["", "../../secrets/token", &"a".repeat(300)] {
            let lying = json!({"name": "web", "namespace": "shop", "uid": "1", "ownerReferences": owner("Job", name)});
            assert_eq!(pod(lying).expect("a pod").owner(), None);
        }
        let mut thief = metadata("Node");
        thief["annotations"]["kubernetes.io/config.mirror"] = json!("0b6f1a2c-0000-4000-8000-000000000000");
        assert_eq!(pod(thief).expect("a pod").uid, "1");
    }

    #[test]
    fn what_has_no_name_is_no_pod() {
        assert_eq!(pod(json!({"name": "web", "namespace": "shop"})), None);
    }
}
