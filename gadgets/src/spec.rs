//! What is asked for: the same type in a session, a recording, a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::labels::LabelSelector;
use crate::tasks::{Choice, TaskFilter};
use crate::workload::Workload;

/// Smallest ring that can be asked for, in bytes.
pub const RING_BYTES_MIN: u32 = 64 << 10;
/// Largest ring that can be asked for, in bytes.
pub const RING_BYTES_MAX: u32 = 256 << 20;
/// The ring if nothing is asked for, in bytes.
pub const RING_BYTES_DEFAULT: u32 = 4 << 20;

/// How often a gadget can be sampled at most, in ms.
pub const INTERVAL_MS_MIN: u32 = 250;
/// And at least.
pub const INTERVAL_MS_MAX: u32 = 3_600_000;
/// If nothing is asked for.
pub const INTERVAL_MS_DEFAULT: u32 = 1000;

/// One run of a gadget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Its name in the catalogue.
    pub gadget: String,
    /// Whose events.
    #[serde(default)]
    pub selector: Selector,
    /// Which tasks' events, among those.
    #[serde(default, skip_serializing_if = "TaskFilter::is_any")]
    pub tasks: TaskFilter,
    /// What there is now is all that is wanted: of a gadget that shows that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_present: bool,
    /// Of a recorded gadget: which system calls, by name.
    #[serde(default, skip_serializing_if = "Choice::is_any")]
    pub calls: Choice<String>,
    /// Values of the gadget's parameters, by name; those left out have their defaults.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Variants to use, by hook; for those left out the agent takes the best that loads.
    #[serde(default)]
    pub variants: BTreeMap<String, String>,
    /// Of a sampled gadget: how often, in ms, [`INTERVAL_MS_MIN`] to [`INTERVAL_MS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// Instead of what happens from now on: what was recorded. Then `selector` says whose of that, everybody's if it is the default,
    /// and the rest is the recording's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<Past>,
    /// How long ago the user began to look, in ms: a container that was started since, and before the agent heard of
    /// the run, is told as a gap.
    #[serde(default)]
    pub began_ms_ago: u64,
}

impl RunSpec {
    /// Whether it ends by itself.
    pub fn is_finite(&self) -> bool {
        self.is_present || self.past.as_ref().is_some_and(|past| !past.follow)
    }

    /// Whether it can go on after it was interrupted; else it would begin from the start.
    pub fn can_go_on(&self) -> bool {
        !self.is_present && self.past.is_none()
    }
}

/// What is wanted of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// The recording's.
    pub id: String,
    /// Only what is no older, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u32>,
    /// Only the last so many of each container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// And then what is recorded from now on; else the session ends with what there is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

/// Whose events are wanted. Lists that are empty do not restrict; with all empty it means every container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Selector {
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    /// Names of pods.
    pub pods: Vec<String>,
    /// Labels of pods. What is in no pod has none, and a pod whose labels are not known is not selected.
    pub labels: LabelSelector,
    /// Pods that are or belong to one of these. What is not known of a pod's owners is not selected.
    pub workloads: Vec<Workload>,
    /// Names of containers.
    pub containers: Vec<String>,
    /// Paths in the cgroup hierarchy: each with everything below it. Any cgroup can be named.
    pub cgroups: Vec<String>,
    /// What is outside of containers.
    pub host: Host,
    /// Also what belongs to the machinery: sandboxes, and a runtime's own steps on the way into a container.
    pub machinery: bool,
}

/// How much of a node is wanted beside what the lists of a [`Selector`] say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// Nothing: the lists decide.
    #[default]
    None,
    /// Everything on the node, in containers and outside.
    All,
    /// Everything outside of pods and containers, and nothing in them.
    Outside,
}

/// What a run may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of the ring on each node: a power of two, [`RING_BYTES_MIN`] to [`RING_BYTES_MAX`].
    pub ring_bytes: Option<u32>,
}
