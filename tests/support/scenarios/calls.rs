//! Connections of the workload, as who made them has written them down.

use std::net::SocketAddr;
use std::path::Path;

use super::Attempt;

/// One of them.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) result: i64,
    /// Of one that failed nobody knows.
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: SocketAddr,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Call {
    /// All that are in a log.
    pub(super) fn read_all(log: &Path) -> Vec<Self> {
        let call = |attempt: &Attempt| {
            let number = |index| attempt.text(index).parse().unwrap();
            Self {
                result: attempt.result,
                local: attempt.text(0).parse().ok(),
                peer: attempt.text(1).parse().unwrap(),
                sent: number(2),
                received: number(3),
            }
        };
        Attempt::read_all(log).iter().map(call).collect()
    }
}
