//! The agent as a whole: what all its sessions share.

use std::sync::Arc;

use gadgets::catalogue::Catalogue;

use crate::error::AgentError;
use crate::host;
use crate::instance::Instances;
use crate::pods::bundle::Bundles;
use crate::pods::hierarchy::Hierarchy;
use crate::pods::tracker::Tracker;
use crate::pods::watch;

/// What all sessions share.
pub(crate) struct Agent {
    pub(crate) catalogue: Catalogue,
    /// This node's name.
    pub(crate) node: String,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) instances: Arc<Instances>,
}

impl Agent {
    /// Checks the host and starts to follow its containers; with `watch_pods` also the API server's word on them.
    /// Rings and queues take at most `budget` bytes.
    ///
    /// # Errors
    /// If the host lacks something.
    pub(crate) fn start(
        catalogue: Catalogue,
        node: Option<String>,
        bundles: Bundles,
        watch_pods: bool,
        budget: Option<u64>,
    ) -> Result<Self, AgentError> {
        host::check()?;
        host::provide_tracefs();
        let node = node.unwrap_or_else(host::name);
        let tracker = Tracker::start(Hierarchy::find()?, bundles)?;
        if watch_pods {
            watch::start(&node, &tracker)?;
        }
        Ok(Self { catalogue, node, instances: Instances::new(Arc::clone(&tracker), budget), tracker })
    }
}
