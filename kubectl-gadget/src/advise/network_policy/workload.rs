//! Pods that a policy cannot, and need not, tell apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gadgets::format::escaped;

use super::flow::{Labels, Name, Pod, Trace, retain_common};

/// Labels by which replicas or revisions of one workload differ.
const VOLATILE: &[&str] = &[
    "app.kubernetes.io/version",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "helm.sh/chart",
    "job-completion-index",
    "job-name",
    "jobset.sigs.k8s.io/job-index",
    "jobset.sigs.k8s.io/job-key",
    "jobset.sigs.k8s.io/restart-attempt",
    "leaderworkerset.sigs.k8s.io/group-index",
    "leaderworkerset.sigs.k8s.io/group-key",
    "leaderworkerset.sigs.k8s.io/template-revision-hash",
    "leaderworkerset.sigs.k8s.io/worker-index",
    "pod-template-generation",
    "pod-template-hash",
    "rollouts-pod-template-hash",
    "serving.knative.dev/revision",
    "serving.knative.dev/revisionUID",
    "statefulset.kubernetes.io/pod-name",
];
/// The same, of labels that say where a pod runs.
const VOLATILE_PREFIXES: &[&str] = &["topology.kubernetes.io/", "failure-domain.beta.kubernetes.io/"];

/// Pods of a namespace that a selector of labels finds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) namespace: String,
    /// What all its pods have in common; nothing selects it if there is nothing.
    pub(super) labels: Labels,
    /// `Kind/name` each.
    pub(super) owners: BTreeSet<String>,
    pub(super) pods: BTreeSet<String>,
    /// Its own flows were asked for.
    pub(super) is_watched: bool,
    /// Its pods are in the network of their nodes, so that no policy applies to them.
    pub(super) is_host: bool,
}

impl Workload {
    /// Its name is that of its first owner.
    pub(super) fn kind_and_name(&self) -> (&str, &str) {
        let owner = self.owners.first().map(String::as_str).unwrap_or_default();
        owner.split_once('/').unwrap_or(("", owner))
    }

    /// Whether a policy can select it.
    pub(super) fn is_selectable(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Whether a selector of these labels selects it.
    pub(super) fn has(&self, namespace: &str, labels: &Labels) -> bool {
        self.namespace == namespace && labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owners: Vec<String> = self.owners.iter().map(|owner| escaped(owner)).collect();
        write!(f, "{}: {}", escaped(&self.namespace), owners.join(", "))
    }
}

/// All workloads of a trace.
#[derive(Debug)]
pub(super) struct Workloads {
    all: Vec<Workload>,
    of_pod: BTreeMap<Name, usize>,
}

impl Workloads {
    pub(super) fn of(trace: &Trace) -> Self {
        let mut by_owner: BTreeMap<(&str, String), Workload> = BTreeMap::new();
        for (name, pod) in &trace.pods {
            let owner = owner(name, pod);
            let labels = stable(pod.labels.as_ref());
            by_owner
                .entry((&name.namespace, owner.clone()))
                .and_modify(|workload| {
                    retain_common(&mut workload.labels, &labels);
                    workload.pods.insert(name.name.clone());
                    workload.is_watched |= pod.is_watched;
                    workload.is_host |= pod.is_host;
                })
                .or_insert_with(|| Workload {
                    namespace: name.namespace.clone(),
                    labels,
                    owners: [owner].into(),
                    pods: [name.name.clone()].into(),
                    is_watched: pod.is_watched,
                    is_host: pod.is_host,
                });
        }
        Self::united(by_owner.into_values())
    }

    /// Owners whose pods have the same labels are one: each policy would select the pods of all.
    fn united(workloads: impl Iterator<Item = Workload>) -> Self {
        let mut all: Vec<Workload> = Vec::new();
        let mut by_labels: BTreeMap<(String, Labels, bool), usize> = BTreeMap::new();
        let mut of_pod = BTreeMap::new();
        for workload in workloads {
            let key = (workload.namespace.clone(), workload.labels.clone(), workload.is_host);
            let same = if workload.is_selectable() { by_labels.get(&key).copied() } else { None };
            let index = same.unwrap_or(all.len());
            by_labels.insert(key, index);
            for name in &workload.pods {
                of_pod.insert(Name { namespace: workload.namespace.clone(), name: name.clone() }, index);
            }
            match all.get_mut(index) {
                Some(known) => {
                    known.owners.extend(workload.owners);
                    known.pods.extend(workload.pods);
                    known.is_watched |= workload.is_watched;
                }
                None => all.push(workload),
            }
        }
        Self { all, of_pod }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Workload> {
        self.all.iter()
    }

    /// What policies cannot do for them.
    pub(super) fn remarks(&self) -> BTreeSet<String> {
        let mut remarks = BTreeSet::new();
        for workload in &self.all {
            if workload.is_watched && workload.is_host {
                remarks.insert(format!("{workload} is in the network of its nodes: no NetworkPolicy applies to it"));
            } else if workload.is_watched && !workload.is_selectable() {
                remarks.insert(format!("{workload} has no labels that stay the same: no policy can select it"));
            }
            let is_caught = |other: &&Workload| {
                !std::ptr::eq(*other, workload)
                    && workload.is_selectable()
                    && other.has(&workload.namespace, &workload.labels)
            };
            for other in self.all.iter().filter(is_caught) {
                remarks.insert(format!(
                    "what selects {workload} selects {other} as well: its labels include the former's"
                ));
            }
        }
        remarks
    }

    /// The workload to which a pod of the trace belongs.
    pub(super) fn of_pod(&self, pod: &Name) -> Option<&Workload> {
        self.of_pod.get(pod).and_then(|index| self.all.get(*index))
    }
}

fn owner(name: &Name, pod: &Pod) -> String {
    pod.owner.clone().unwrap_or_else(|| format!("Pod/{}", name.name))
}

fn stable(labels: Option<&Labels>) -> Labels {
    let is_stable =
        |key: &str| !VOLATILE.contains(&key) && !VOLATILE_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    let labels = labels.into_iter().flatten().filter(|(key, _)| is_stable(key));
    labels.map(|(key, value)| (key.clone(), value.clone())).collect()
}
