//! A fake API server and fake agents behind it, whose lines the test speaks: for faults that a real cluster does not produce
//! on demand, and for more nodes than there are.

mod agent;
mod cluster;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

pub use agent::{CGROUP, FakeAgent};
pub use cluster::{Answer, FakeCluster, V4, V5, pod_without_image, ready_pod};

use crate::PATIENCE;

/// Waits for something that must come.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Since 1970, ns.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap()
}
