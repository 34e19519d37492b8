//! Why the agent cannot do what it is asked, and how that is told to the client.

use gadgets::catalogue::ParameterError;
use gadgets::wire::{Failure, FailureKind, WireError};
use thiserror::Error;

/// A failure that a user can read and act on.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something that was named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The agent may not do it.
    #[error("{0}")]
    Permission(String),
    /// This kernel or host cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// The client sent something that is no frame, or not the one that was due.
    #[error("the client broke the protocol: {0}")]
    Protocol(String),
    /// All places are taken.
    #[error("{0}")]
    Busy(String),
    /// A system call or libbpf failed where it should not.
    #[error("{0}")]
    Internal(String),
}

impl AgentError {
    /// An unexpected failure of something that was being done.
    pub(crate) fn internal(doing: &str, error: impl std::fmt::Display) -> Self {
        Self::Internal(format!("cannot {doing}: {error:#}"))
    }

    /// The failure as the client gets it.
    pub(crate) fn failure(&self) -> Failure {
        let kind = match self {
            Self::Usage(_) => FailureKind::Usage,
            Self::NotFound(_) => FailureKind::NotFound,
            Self::Permission(_) => FailureKind::Permission,
            Self::Unsupported(_) => FailureKind::Unsupported,
            Self::Protocol(_) => FailureKind::Protocol,
            Self::Busy(_) => FailureKind::Busy,
            Self::Internal(_) => FailureKind::Internal,
        };
        Failure { kind, message: self.to_string() }
    }
}

impl From<WireError> for AgentError {
    fn from(error: WireError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<ParameterError> for AgentError {
    fn from(error: ParameterError) -> Self {
        Self::Usage(error.to_string())
    }
}
