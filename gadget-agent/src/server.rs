//! The agent as a whole, and the socket on which the daemon serves sessions.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use gadgets::catalogue::Catalogue;
use nix::sys::signal::{SigSet, Signal};

use crate::error::AgentError;
use crate::host;
use crate::instance::Instances;
use crate::pods::bundle::Bundles;
use crate::pods::tracker::Tracker;
use crate::session;

/// Where the daemon listens if nothing else is said.
pub(crate) const DEFAULT_SOCKET: &str = "/run/gadget-agent/agent.sock";

/// What all sessions share.
pub(crate) struct Agent {
    pub(crate) catalogue: Catalogue,
    /// This node's name.
    pub(crate) node: String,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) instances: Arc<Instances>,
}

impl Agent {
    /// Checks the host and starts to follow its containers.
    ///
    /// # Errors
    /// If the host lacks something.
    pub(crate) fn start(catalogue: Catalogue, node: Option<String>, bundles: Bundles) -> Result<Self, AgentError> {
        host::check()?;
        host::provide_tracefs();
        let tracker = Tracker::start(host::unified_hierarchy()?, bundles)?;
        Ok(Self {
            catalogue,
            node: node.unwrap_or_else(host::name),
            instances: Instances::new(Arc::clone(&tracker)),
            tracker,
        })
    }
}

/// The daemon's socket. Only its owner can connect to it.
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Takes the socket, unless a daemon serves it.
    ///
    /// # Errors
    /// If one does, or the path cannot be used.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        let folder = path.parent().context("the socket's path has no folder")?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        if UnixStream::connect(path).is_ok() {
            bail!("another agent serves {}: end it first, or give another --socket", path.display());
        }
        // Left behind by one that was killed.
        let _ = fs::remove_file(path);
        let socket = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", path.display()))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Serves sessions until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// If no connection can be taken any more.
    pub(crate) fn serve(self, agent: &Agent) -> anyhow::Result<()> {
        let path = self.path.clone();
        end_on_signal(move || {
            let _ = fs::remove_file(&path);
        })?;
        tracing::info!("serving on {}", self.path.display());
        std::thread::scope(|scope| {
            for connection in self.socket.incoming() {
                let connection = connection.context("cannot take connections")?;
                scope.spawn(move || {
                    if let Err(error) = session::serve_connection(agent, &connection) {
                        tracing::info!("a session ended: {error}");
                    }
                });
            }
            Ok(())
        })
    }
}

/// Ends the process on SIGTERM or SIGINT, after `clean_up`. BPF programs go with the process.
fn end_on_signal(clean_up: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Threads inherit the mask: from here on only the one below takes them.
    signals.thread_block().context("cannot block signals")?;
    std::thread::spawn(move || {
        let _ = signals.wait();
        clean_up();
        std::process::exit(0);
    });
    Ok(())
}
