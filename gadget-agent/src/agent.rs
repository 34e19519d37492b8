//! The agent as a whole: what all its sessions share.

use std::path::PathBuf;
use std::sync::Arc;

use gadgets::catalogue::Catalogue;

use crate::error::AgentError;
use crate::host;
use crate::instance::Instances;
use crate::pods::bundle::Bundles;
use crate::pods::hierarchy::Hierarchy;
use crate::pods::tracker::Tracker;
use crate::pods::watch;
use crate::recordings::Recordings;

/// What all sessions share.
pub(crate) struct Agent {
    pub(crate) catalogue: Catalogue,
    /// This node's name.
    pub(crate) node: String,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) instances: Arc<Instances>,
    pub(crate) recordings: Recordings,
}

impl Agent {
    /// Checks the host and starts to follow its containers; with `watch_pods` also the API server's word on them.
    /// Rings and queues take at most `budget` bytes. `recordings` says what another agent has recorded, for this one to go on with.
    ///
    /// # Errors
    /// If the host lacks something.
    pub(crate) fn start(
        catalogue: Catalogue,
        node: Option<String>,
        bundles: Bundles,
        watch_pods: bool,
        budget: Option<u64>,
        recordings: Option<PathBuf>,
    ) -> Result<Self, AgentError> {
        host::check()?;
        host::provide_tracefs();
        host::raise_file_limit();
        let node = node.unwrap_or_else(host::name);
        let tracker = Tracker::start(Hierarchy::find()?, bundles)?;
        if watch_pods {
            watch::start(&node, &tracker)?;
        }
        let instances = Instances::new(Arc::clone(&tracker), budget);
        let agent = Self { catalogue, node, tracker, instances, recordings: Recordings::new(recordings) };
        agent.recordings.resume(&agent);
        Ok(agent)
    }
}
