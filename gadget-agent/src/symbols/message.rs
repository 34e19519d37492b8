//! What the agent and its reader of symbols say to each other: a length, and JSON. First the reader says that it is confined, or why not
//! (`Result<(), String>`). A question follows a descriptor: that of the root in which paths are looked up.

use std::fmt;
use std::io::{self, Read, Write};

use gadgets::wire::StackFrame;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message, in bytes.
const MOST: usize = 1 << 20;

/// What is called what?
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) source: Source,
    /// Offsets in a file; or in the process's memory.
    pub(super) addresses: Vec<u64>,
    /// Also the lines of the source, and functions that were put into others. That may need much memory.
    pub(super) lines: bool,
}

/// Where it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Source {
    /// In a file that the process has mapped, of this device and inode.
    File { path: String, device: String, inode: u64 },
    /// In what the process, which knows itself by this id, says of code that it has made.
    PerfMap { pid: u32 },
}

/// For each address the functions, innermost first: several if some were put into others, none if nobody knows. Or why there are none at all.
pub(super) type Answer = Result<Vec<Vec<StackFrame>>, Silence>;

/// Why a source says nothing.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Silence {
    /// There is none.
    Missing,
    /// It is not what it should be, for this reason.
    Unreadable(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "{path:?}"),
            Self::PerfMap { pid } => write!(f, "{}", perf_map(*pid)),
        }
    }
}

/// Where a process says what it has made.
pub(super) fn perf_map(pid: u32) -> String {
    format!("/tmp/perf-{pid}.map")
}

pub(super) fn write(message: &impl Serialize, mut to: impl Write) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length as usize <= MOST);
    let length = length.ok_or_else(|| io::Error::other("a message is too long"))?;
    to.write_all(&[&length.to_le_bytes()[..], &json].concat())
}

pub(super) fn read<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST {
        return Err(io::Error::other("a message is too long"));
    }
    let mut json = vec![0; length];
    from.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}
