//! How a command ended, and the exit code that says so.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; also if whoever read the output went away |
//! | 1 | something failed, or the stream is incomplete |
//! | 2 | the command line makes no sense |
//! | 3 | events were lost or may be missing, and `--fail-on-loss` was given |
//! | 4 | a check found something that would not be let through |
//! | 130, 143 | ended by SIGINT (Ctrl-C), SIGTERM, after everything was cleaned up |

use std::process::ExitCode;

use gadgets::wire::{Failure, FailureKind};
use thiserror::Error;

/// How a command that did what it could ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, by its timeout, or because nobody reads its output any more.
    Done,
    /// It did its work, but events were lost and the user wants to know.
    Lost,
    /// A check found something that would not be let through.
    Refused,
    /// By a signal with this number.
    Signal(u8),
}

impl End {
    pub(crate) fn code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::Lost => ExitCode::from(3),
            Self::Refused => ExitCode::from(4),
            Self::Signal(number) => ExitCode::from(128 + number),
        }
    }
}

/// What was asked for makes no sense.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The agent said that it cannot go on.
#[derive(Debug, Error)]
#[error("{}{}", failure.message, self.advice())]
pub(crate) struct AgentFailure {
    pub(crate) failure: Failure,
    /// It is this host's agent.
    pub(crate) local: bool,
}

impl AgentFailure {
    /// Where to look next, if it is the kernel or the host that does not let the agent.
    fn advice(&self) -> &'static str {
        match self.failure.kind {
            FailureKind::Unsupported | FailureKind::Permission if self.local => {
                "\nwhat is missing, and what mends it: kubectl gadget doctor --local"
            }
            FailureKind::Unsupported | FailureKind::Permission => {
                "\nwhat is missing, and what mends it: kubectl gadget doctor"
            }
            _ => "",
        }
    }
}

/// The exit code for an error.
pub(crate) fn code_of(error: &anyhow::Error) -> ExitCode {
    let agent_says_usage = |failure: &AgentFailure| failure.failure.kind == FailureKind::Usage;
    let is_usage = error.is::<Usage>() || error.downcast_ref().is_some_and(agent_says_usage);
    if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
}
