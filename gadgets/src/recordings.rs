//! What agents record for whoever asks, and what they say of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dictionary::CgroupEntry;
use crate::spec::{RunSpec, Selector};
use crate::wire::Gap;

/// What is wanted of an agent's recordings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingsRequest {
    /// To know of them.
    List,
    /// Another one, that goes on when this session has ended. Its id is the client's choice: see [`is_recording_id`].
    Start {
        /// What to call it, on all nodes.
        id: String,
        /// What to record.
        run: Box<RunSpec>,
    },
    /// That this one ends, and is forgotten. If there is none, that is no error.
    Stop {
        /// Its id.
        id: String,
    },
}

/// Whether a recording may be called this: 1 to 63 small letters, digits and dashes.
pub fn is_recording_id(id: &str) -> bool {
    let is_part = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    (1..=63).contains(&id.len()) && id.chars().all(is_part)
}

/// What an agent records for whoever asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recording {
    /// What it is called.
    pub id: String,
    /// The gadget whose records these are.
    pub gadget: String,
    /// What its parameters were set to.
    pub parameters: BTreeMap<String, String>,
    /// Of whom.
    pub selector: Selector,
    /// Since when, ns since 1970. If the agent was started meanwhile, since then.
    pub began_wall_ns: u64,
    /// Memory that it may take.
    pub bytes: u64,
    /// What there is of each container, and of what is in none.
    pub containers: Vec<Recorded>,
    /// Containers that are gone and had to make room, and whose records are not there any more.
    pub forgotten_containers: u64,
    /// How many records these were.
    pub forgotten: u64,
    /// Records of containers that there was no place for.
    pub lost: u64,
    /// Times in which something may be missing.
    pub gaps: Vec<Gap>,
}

/// What a recording has of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recorded {
    /// `None` for what is in none. Without labels.
    pub container: Option<CgroupEntry>,
    /// Memory that it has now.
    pub bytes: u64,
    /// Records that are there.
    pub kept: u64,
    /// Records that newer ones were written over.
    pub overwritten: u64,
    /// Time of the first that is there, ns since 1970.
    pub first_wall_ns: Option<u64>,
    /// Time of the last.
    pub last_wall_ns: Option<u64>,
    /// The container does not exist any more.
    pub is_gone: bool,
    /// How its first process ended, if that was seen.
    pub end: Option<ProcessEnd>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessEnd {
    /// By itself, with this status.
    Exited(u8),
    /// A signal of this number has killed it.
    Killed(u8),
    /// The kernel has killed it, since there was no memory for it.
    OutOfMemory,
}

impl ProcessEnd {
    /// By its status as wait(2) has it, and whether the kernel had chosen it since there was no memory.
    pub fn of(status: u32, out_of_memory: bool) -> Self {
        match status as u8 & 0x7f {
            0 => Self::Exited((status >> 8) as u8),
            _ if out_of_memory => Self::OutOfMemory,
            signal => Self::Killed(signal),
        }
    }

    /// Whether it went as it should.
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }
}
