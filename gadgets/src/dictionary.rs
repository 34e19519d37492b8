//! What is behind the ids in records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names for ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dictionary {
    /// A later entry for the same cgroup replaces the earlier.
    #[serde(default)]
    pub cgroups: Vec<CgroupEntry>,
    /// Ids that can be forgotten: none of these cgroups exists any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<u64>,
    /// Stacks of the kernel that records have the numbers of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<StackEntry>,
    /// What system calls are given, by the kernel's own account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<SyscallEntry>,
}

/// A system call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyscallEntry {
    /// Its number, as programs of 64 bits have it on that node.
    pub number: u32,
    /// What it is called.
    pub name: String,
    /// Its arguments, in their order.
    pub args: Vec<ArgEntry>,
}

/// An argument of a system call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgEntry {
    /// The kernel's name for it.
    pub name: String,
    /// Its type in C.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A stack of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackEntry {
    /// Its number.
    pub number: u64,
    /// `FUNCTION+OFFSET`, and `[MODULE]` if it is in one; innermost first.
    pub frames: Vec<String>,
}

/// Who a cgroup belongs to. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupEntry {
    /// Id in the hierarchy that the agent follows.
    pub cgroup: u64,
    /// Path there.
    pub path: String,
    /// The pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's UID, or the hash of a static pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The container's name in its pod; outside pods what its runtime calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The runtime's id of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The pod's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The pod's owner, `kind/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// It is the pod's sandbox ("pause").
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sandbox: bool,
}
