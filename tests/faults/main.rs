//! The real client against a fake API server, for faults that a real cluster does not produce on demand. Needs no root,
//! no cluster and nothing of the kernel: only `make build` and the loopback interface.
//!
//! - [`cluster`]: the fake API server; [`agent`]: a fake agent behind it, whose lines the test speaks
//! - [`client`]: the real client
//! - the tests: [`streams`], [`refusals`], [`server`], [`hostility`], [`backlog`], [`interrupts`]

#![allow(clippy::unwrap_used, reason = "a test")]

mod agent;
mod backlog;
mod client;
mod cluster;
mod hostility;
mod interrupts;
mod refusals;
mod server;
mod streams;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tests::PATIENCE;
use tokio::time::timeout;

/// Waits for something that must come.
async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Since 1970, ns.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap()
}
