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
    /// Stacks and frames of before can be forgotten: those that records have the numbers of from now on are told of again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stacks_anew: bool,
    /// Stacks of the kernel that records have the numbers of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<StackEntry>,
    /// Stacks of programs, which records have the numbers of as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_stacks: Vec<UserStackEntry>,
    /// What these consist of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<FrameEntry>,
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
    /// It has as many frames as the kernel gives out: the outermost may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A stack of a program in user space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStackEntry {
    /// Its number.
    pub number: u64,
    /// Ids of its frames, innermost first.
    pub frames: Vec<u64>,
    /// It has more frames than the kernel gives out: the outermost are missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// It ends before where its thread began: what called the outermost frame has no frame pointer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
    /// Why its frames have no names, in words, if that holds for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A frame that many stacks may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameEntry {
    /// Its number in this session.
    pub id: u64,
    /// The frame.
    #[serde(flatten)]
    pub frame: StackFrame,
}

/// A place in a program. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct StackFrame {
    /// The function, demangled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The file that the code is mapped from, as the process sees it; or as in `[vdso]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Where in that file, in bytes from its beginning; without a file, in the process's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The source file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The compiler has put it into the frame that follows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inlined: bool,
    /// The code was made while the program ran: there is no file.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub jit: bool,
}

impl StackFrame {
    /// Bytes that it takes in memory.
    pub fn size(&self) -> usize {
        let texts = [&self.function, &self.module, &self.file];
        size_of::<Self>() + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
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
