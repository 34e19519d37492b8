//! Advice: what follows from all events of a run, or of a recording of one (`-o json`).
//!
//! An advisor reads events as they stand in JSON, so that it makes no difference whether they are live or from a file.
//!
//! - [`recording`]: such a file
//! - [`capabilities`], [`seccomp`]: what containers need; [`container`]: whose that is
//! - [`network_policy`]: whom workloads talk to

pub(crate) mod capabilities;
mod container;
pub(crate) mod network_policy;
pub(crate) mod recording;
pub(crate) mod seccomp;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

/// Draws conclusions from events of a gadget.
pub(crate) trait Advisor: Send {
    /// Takes in an event, as a line of JSON.
    ///
    /// # Errors
    /// If it is no event of its gadget.
    fn take(&mut self, event: &[u8]) -> anyhow::Result<()>;

    /// Takes in who has an address, as a line of JSON: it was not known when an event with it was seen.
    ///
    /// # Errors
    /// If it is no such line.
    fn learn(&mut self, _peer: &[u8]) -> anyhow::Result<()> {
        Ok(())
    }

    /// What follows from all that was taken in.
    ///
    /// # Errors
    /// If it cannot be said in the form that was asked for.
    fn advise(&self) -> anyhow::Result<Advice>;
}

/// What an advisor says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Advice {
    /// For standard output.
    pub(crate) text: String,
    /// What a person should know, a line each.
    pub(crate) remarks: Vec<String>,
    /// A check found what would not be let through.
    pub(crate) is_refused: bool,
}

/// Reads an event.
fn event<E: DeserializeOwned>(line: &[u8]) -> anyhow::Result<E> {
    serde_json::from_slice(line).context("this is no such event")
}
