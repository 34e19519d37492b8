//! What an agent finds when it looks at its host: one JSON document, which `gadget-agent probe` prints.

use serde::{Deserialize, Serialize};

use crate::wire::Clock;

/// All that was found on one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Diagnosis {
    /// The node's name, or the host's.
    pub node: String,
    /// Version of the agent that looked.
    pub software: String,
    /// Release of the kernel.
    pub kernel: String,
    /// The host's clocks when it had looked.
    pub clock: Clock,
    /// How long it looked, in ns.
    pub took_ns: u64,
    /// What was looked at, one by one.
    pub findings: Vec<Finding>,
    /// Every variant of every hook of every gadget.
    pub variants: Vec<VariantStatus>,
}

/// How well something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    #[default]
    Ok,
    /// Something works less well, or costs more.
    Degraded,
    /// Something does not work.
    #[serde(other)]
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// What: `btf`, `cgroups`… The names are part of the interface.
    pub check: String,
    /// How well it is.
    pub verdict: Verdict,
    /// What there is, in words.
    pub found: String,
    /// What does not work or costs more because of it; empty if it is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cost: String,
    /// What mends it: a command where there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

/// Whether a variant can be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariantState {
    /// It loads and attaches, and is the one that is taken.
    Best,
    /// It loads and attaches.
    Works,
    /// The kernel cannot do something that the variant is known to need.
    Unmet,
    /// The kernel can do all that it is known to need, and yet refuses it: a fault of ours, or of that knowledge.
    #[default]
    #[serde(other)]
    Refused,
}

/// One variant of one hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VariantStatus {
    /// The gadget's name in the catalogue.
    pub gadget: String,
    /// The hook's.
    pub hook: String,
    /// The variant's.
    pub variant: String,
    /// Whether it can be had.
    pub state: VariantState,
    /// What is unmet, by [`crate::catalogue::Requirement::name`]; empty if nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unmet: String,
    /// Why not, in words; empty if it can be had.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// All that libbpf and the verifier said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(check: &str, found: impl Into<String>) -> Self {
        Self { check: check.to_owned(), found: found.into(), ..Self::default() }
    }

    /// Something that works less well.
    pub fn degraded(check: &str, found: impl Into<String>, cost: impl Into<String>, mend: impl Into<String>) -> Self {
        let (cost, mend) = (cost.into(), mend.into());
        Self { verdict: Verdict::Degraded, cost, mend, ..Self::ok(check, found) }
    }

    /// Something that does not work.
    pub fn failed(check: &str, found: impl Into<String>, cost: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, ..Self::degraded(check, found, cost, mend) }
    }
}
