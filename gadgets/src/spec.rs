//! What is asked for: the same type in a session, a recording, a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::labels::LabelSelector;

/// Smallest ring that can be asked for, in bytes.
pub const RING_BYTES_MIN: u32 = 64 << 10;
/// Largest ring that can be asked for, in bytes.
pub const RING_BYTES_MAX: u32 = 256 << 20;
/// The ring if nothing is asked for, in bytes.
pub const RING_BYTES_DEFAULT: u32 = 4 << 20;

/// One run of a gadget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Its name in the catalogue.
    pub gadget: String,
    /// Whose events.
    #[serde(default)]
    pub selector: Selector,
    /// Values of the gadget's parameters, by name; those left out have their defaults.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Variants to use, by hook; for those left out the agent takes the best that loads.
    #[serde(default)]
    pub variants: BTreeMap<String, String>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// How long ago the user began to look, in ms: a container that was started since, and before the agent heard of
    /// the run, is told as a gap.
    #[serde(default)]
    pub began_ms_ago: u64,
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
    /// Names of containers.
    pub containers: Vec<String>,
    /// Paths in the cgroup hierarchy: each with everything below it. Any cgroup can be named.
    pub cgroups: Vec<String>,
    /// Everything on the node, in containers and outside.
    pub host: bool,
    /// Also what belongs to the machinery: sandboxes, and a runtime's own steps on the way into a container.
    pub machinery: bool,
}

/// What a run may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of the ring on each node: a power of two, [`RING_BYTES_MIN`] to [`RING_BYTES_MAX`].
    pub ring_bytes: Option<u32>,
}
