//! What a guest of the kernel matrix tells its host: lines of JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// The first.
    Begin {
        /// The guest's kernel.
        kernel: String,
    },
    /// A check has come to its end.
    Cell(Cell),
    /// The last: nothing is missing.
    End,
}

/// How cgroups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Controllers of version 1 alone.
    V1,
    /// These, and the unified hierarchy beside them.
    Hybrid,
    /// The unified hierarchy alone.
    V2,
}

impl Mode {
    /// All, in the order in which a guest can go through them.
    pub const ALL: [Self; 3] = [Self::V1, Self::Hybrid, Self::V2];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

/// What came of one check of a gadget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// How cgroups were mounted.
    pub mode: Mode,
    /// The gadget.
    pub gadget: String,
    /// `as deployed`, HOOK=VARIANT, or `loss`.
    pub check: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Everything was as it should be.
    Pass {
        /// How long it took.
        seconds: f32,
        /// By hook the variant that was used; empty if the check is not about that.
        variants: BTreeMap<String, String>,
    },
    /// This kernel is older than what the variant needs.
    Unmet(String),
    /// Something is wrong; the last that was said of it.
    Fail(String),
}

/// The end of what a guest or a check has said into a file.
pub fn last_lines(file: &Path, count: usize) -> String {
    let said = std::fs::read(file).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
