//! How an agent is reached: a process whose standard input and output carry the frames.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::{Child, Command};

use crate::exit::Usage;

const AGENT: &str = "gadget-agent";

/// An agent on this host.
pub(crate) struct Local {
    /// Its binary, if the user named one.
    pub(crate) agent: Option<PathBuf>,
    /// The socket of the daemon to share, if one.
    pub(crate) socket: Option<PathBuf>,
}

impl Local {
    /// Starts the process that speaks for the agent.
    ///
    /// # Errors
    /// If there is no such binary, or it cannot be started.
    pub(crate) fn start(&self) -> anyhow::Result<Child> {
        let binary = self.binary()?;
        let mut command = Command::new(&binary);
        command.arg("session");
        match &self.socket {
            Some(socket) => command.arg("--socket").arg(socket),
            None => command.arg("--local"),
        };
        // A process group of its own: Ctrl-C is for us, and we end the agent in good order.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot start the agent {}", binary.display()))
    }

    fn binary(&self) -> Result<PathBuf, Usage> {
        if let Some(named) = &self.agent {
            return if named.is_file() {
                Ok(named.clone())
            } else {
                Err(Usage(format!("no agent at {}: check --agent", named.display())))
            };
        }
        let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join(AGENT)));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(<OsStr>::new(&path)).map(|folder| folder.join(AGENT));
        beside.into_iter().chain(in_path).find(|candidate| candidate.is_file()).ok_or_else(|| {
            Usage(format!("{AGENT} is neither beside this program nor in PATH: say where it is with --agent FILE"))
        })
    }
}
