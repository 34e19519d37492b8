//! Workloads: a pod, and what it belongs to, as a user names them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What controls ReplicaSets adds a hash to their names, and to their pods a label of this name with it.
const TEMPLATE_HASHES: [(&str, &str); 2] =
    [("Deployment", "pod-template-hash"), ("Rollout", "rollouts-pod-template-hash")];

/// Kinds that have short names, and these. The plural has an `s` more.
const KINDS: [(&str, &str); 8] = [
    ("Pod", "po"),
    ("Deployment", "deploy"),
    ("ReplicaSet", "rs"),
    ("StatefulSet", "sts"),
    ("DaemonSet", "ds"),
    ("Job", "job"),
    ("CronJob", "cj"),
    ("ReplicationController", "rc"),
];

/// A pod, or something that controls pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Workload {
    /// Kind of the object, as in its manifest.
    pub kind: String,
    /// Name of the object.
    pub name: String,
}

/// Why a text names no workload.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WorkloadError {
    /// It has another form.
    #[error("write it as deploy/web, sts/db, job/import or pod/web-0")]
    Form,
    /// The kind is not known.
    #[error("{0:?} is no kind that is known; write others as they are in manifests, as in Rollout/web")]
    Kind(String),
}

impl Workload {
    /// Of a kind as it is in manifests.
    pub fn new(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned() }
    }

    /// A pod and what it belongs to, as far as its metadata say: itself, its controller, and that one's controller if it
    /// is a Deployment or an Argo Rollout (which mark their ReplicaSets' pods).
    pub fn of_pod(name: &str, controller: Option<Self>, labels: &BTreeMap<String, String>) -> Vec<Self> {
        let of_set = controller.as_ref().filter(|controller| controller.kind == "ReplicaSet").and_then(|set| {
            TEMPLATE_HASHES.iter().find_map(|(kind, label)| {
                let name = set.name.strip_suffix(labels.get(*label)?)?.strip_suffix('-')?;
                Some(Self::new(kind, name))
            })
        });
        [Some(Self::new("Pod", name)), controller, of_set].into_iter().flatten().collect()
    }

    /// Whether it is a pod, or of a kind that makes pods and no Jobs.
    pub fn makes_pods(&self) -> bool {
        KINDS.iter().any(|(kind, _)| self.kind == *kind && *kind != "CronJob")
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

impl From<Workload> for String {
    fn from(workload: Workload) -> Self {
        workload.to_string()
    }
}

/// From `Kind/name`.
impl TryFrom<String> for Workload {
    type Error = WorkloadError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// From what kubectl takes (`deploy/web`) and prints (`deployment.apps/web`), or `Kind/name`.
impl FromStr for Workload {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (word, name) = text.split_once('/').ok_or(WorkloadError::Form)?;
        if word.is_empty() || name.is_empty() || name.contains('/') {
            return Err(WorkloadError::Form);
        }
        if word.starts_with(|first: char| first.is_ascii_uppercase()) {
            return Ok(Self::new(word, name));
        }
        let resource = word.split('.').next().unwrap_or(word);
        let is_meant = |(kind, short): &&(&str, &str)| {
            let singular = kind.to_ascii_lowercase();
            resource == *short || resource.strip_prefix(&singular).is_some_and(|rest| matches!(rest, "" | "s"))
        };
        let known = KINDS.iter().find(is_meant);
        known.map(|(kind, _)| Self::new(kind, name)).ok_or_else(|| WorkloadError::Kind(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubectl_takes_and_prints_them() {
        for (text, told) in [
            ("deploy/web", "Deployment/web"),
            ("deployments/web", "Deployment/web"),
            ("deployment.apps/web", "Deployment/web"),
            ("sts/db", "StatefulSet/db"),
            ("ds/proxy", "DaemonSet/proxy"),
            ("rs/web-5d4", "ReplicaSet/web-5d4"),
            ("job/import", "Job/import"),
            ("jobs.batch/import", "Job/import"),
            ("cj/backup", "CronJob/backup"),
            ("cronjob/backup", "CronJob/backup"),
            ("pod/web-0", "Pod/web-0"),
            ("Rollout/web", "Rollout/web"),
        ] {
            assert_eq!(text.parse::<Workload>().map(|workload| workload.to_string()), Ok(told.to_owned()));
        }
        for text in ["web", "/web", "deploy/", "deploy/web/x"] {
            assert_eq!(text.parse::<Workload>(), Err(WorkloadError::Form), "{text}");
        }
        assert_eq!("deploi/web".parse::<Workload>(), Err(WorkloadError::Kind("deploi".into())));
    }

    #[test]
    fn a_pod_belongs_to_its_controller_and_to_that_ones() {
        let of_pod = |controller: Option<&str>, hash: Option<&str>| -> Vec<String> {
            let labels = hash.map(|hash| (TEMPLATE_HASHES[0].1.to_owned(), hash.to_owned())).into_iter().collect();
            let controller = controller.map(|text| text.parse().expect("a workload"));
            Workload::of_pod("web-0", controller, &labels).iter().map(ToString::to_string).collect()
        };
        assert_eq!(of_pod(None, None), ["Pod/web-0"]);
        assert_eq!(of_pod(Some("sts/web"), None), ["Pod/web-0", "StatefulSet/web"]);
        assert_eq!(of_pod(Some("rs/web-5d4"), Some("5d4")), ["Pod/web-0", "ReplicaSet/web-5d4", "Deployment/web"]);
        assert_eq!(of_pod(Some("rs/web"), Some("5d4")), ["Pod/web-0", "ReplicaSet/web"]);
        assert_eq!(of_pod(Some("rs/web"), None), ["Pod/web-0", "ReplicaSet/web"]);
        let labels = [(TEMPLATE_HASHES[1].1.to_owned(), "5d4".to_owned())].into();
        let of_rollout = Workload::of_pod("web-0", Some(Workload::new("ReplicaSet", "web-5d4")), &labels);
        assert_eq!(of_rollout.last(), Some(&Workload::new("Rollout", "web")));
        assert!(Workload::new("Job", "x").makes_pods() && !Workload::new("CronJob", "x").makes_pods());
    }
}
