//! The product: a client, and an agent that it starts.

use std::process::Command;

use anyhow::{Context as _, Result};
use tests::client_command;

use super::Tool;
use crate::cgroup::Cgroup;

/// A gadget on one cgroup.
pub(crate) struct Ours {
    gadget: &'static str,
    cgroup: String,
    options: Vec<String>,
}

impl Ours {
    /// As a table.
    pub(crate) fn table(gadget: &'static str, cgroup: &Cgroup) -> Self {
        Self { gadget, cgroup: cgroup.path().to_owned(), options: Vec::new() }
    }

    /// As lines of JSON.
    pub(crate) fn json(gadget: &'static str, cgroup: &Cgroup) -> Self {
        Self::table(gadget, cgroup).with(&["-o", "json"])
    }

    /// The same with these flags, too.
    pub(crate) fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }
}

impl Tool for Ours {
    fn name(&self) -> String {
        format!("kubectl gadget {}", self.gadget)
    }

    fn command(&self) -> Result<Command> {
        let mut command = client_command("kubectl-gadget", &[self.gadget, "--local", "--cgroup", &self.cgroup]);
        command.args(&self.options);
        Ok(command)
    }

    fn announces(&self) -> Option<&'static str> {
        let is_given = |given: &str| self.options.iter().any(|option| option == given);
        // The first line of JSON, or the table's header. Folded stacks say nothing before the end: who starts it is to wait.
        Some(if is_given("json") {
            r#""type":"start""#
        } else if is_given("folded") {
            ""
        } else {
            "NODE"
        })
    }

    fn lost(&self, said: &str) -> Result<u64> {
        said_lost(said)
    }
}

/// What the client says to have lost, in its summary: "… events, none lost", or "… events of 2 nodes, 5 lost: …".
pub(crate) fn said_lost(said: &str) -> Result<u64> {
    let of_line =
        |line: &str| Some(line.split_once(" events")?.1.split_once(" lost")?.0.rsplit(' ').next()?.to_owned());
    let count = said.lines().rev().find_map(of_line).with_context(|| format!("no summary in {said:?}"))?;
    Ok(if count == "none" { 0 } else { count.parse()? })
}
