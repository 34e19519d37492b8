//! The socket on which the daemon serves sessions.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use gadgets::wire::{Failure, FailureKind, Frame};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

use crate::agent::Agent;
use crate::outbox::Outbox;
use crate::runtime::memory;
use crate::session;
use crate::sync::lock;

/// How long clients may take to hear that the daemon ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long to wait if no more files can be opened.
const SHORTAGE: Duration = Duration::from_millis(100);

/// Where the daemon listens if nothing else is said.
pub(crate) const DEFAULT_SOCKET: &str = "/run/gadget-agent/agent.sock";

/// Connects to the daemon.
///
/// # Errors
/// If none serves this socket.
pub(crate) fn connect(path: &Path) -> anyhow::Result<UnixStream> {
    UnixStream::connect(path).map_err(|error| {
        let path = path.display();
        anyhow!("no agent listens on {path}: {error}; start one with: gadget-agent daemon --socket {path}")
    })
}

/// The daemon's socket, before and while it is served. Only its owner can connect to it, and only a daemon that can
/// serve listens.
pub(crate) struct Listener {
    path: PathBuf,
    clients: Arc<Clients>,
}

/// What waits to be written to each client that is served.
#[derive(Default)]
struct Clients(Mutex<Vec<Weak<Outbox>>>);

impl Clients {
    fn add(&self, outbox: &Arc<Outbox>) {
        let mut clients = lock(&self.0);
        clients.retain(|client| client.strong_count() > 0);
        clients.push(Arc::downgrade(outbox));
    }

    /// Tells all of them that this is the end.
    fn dismiss(&self) {
        let clients: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let message = "the agent is being stopped".to_owned();
        let last_word = Frame::Error(Failure { kind: FailureKind::Unavailable, message });
        for client in &clients {
            client.put(&last_word);
            client.close();
        }
        let until = Instant::now() + FAREWELL;
        for client in &clients {
            client.wait_until_done(until.saturating_duration_since(Instant::now()));
        }
    }
}

impl Listener {
    /// Makes the path ready, unless a daemon serves it; from then on SIGTERM and SIGINT end the process in good order.
    /// To be called before there are other threads: they inherit that these signals are blocked.
    ///
    /// # Errors
    /// If one does, or the path cannot be used.
    pub(crate) fn prepare(path: &Path) -> anyhow::Result<Self> {
        let folder = path.parent().context("the socket's path has no folder")?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        if UnixStream::connect(path).is_ok() {
            bail!("another agent serves {}: end it first, or give another --socket", path.display());
        }
        match fs::symlink_metadata(path) {
            // Left behind by one that was killed.
            Ok(found) if found.file_type().is_socket() => {
                fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
            Ok(_) => bail!("{} exists and is no socket: give another --socket", path.display()),
            Err(_) => {}
        }
        let clients = Arc::default();
        end_on_signal(path.to_owned(), Arc::clone(&clients))?;
        Ok(Self { path: path.to_owned(), clients })
    }

    /// Serves sessions until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// If no connection can be taken (any more).
    pub(crate) fn serve(self, agent: &Agent) -> anyhow::Result<()> {
        let Self { path, clients } = &self;
        let socket = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", path.display()))?;
        tracing::info!("serving on {}", path.display());
        std::thread::scope(|scope| {
            for connection in socket.incoming() {
                let connection = match connection {
                    Ok(connection) => connection,
                    // A session that ends makes room.
                    Err(error) if is_shortage(&error) => {
                        tracing::warn!("cannot take a connection: {error}");
                        std::thread::sleep(SHORTAGE);
                        continue;
                    }
                    Err(error) => return Err(error).context("cannot take connections"),
                };
                scope.spawn(move || {
                    if let Err(error) = session::serve_connection(agent, &connection, |outbox| clients.add(outbox)) {
                        tracing::info!("a session ended: {error}");
                    }
                    memory::give_back();
                });
            }
            Ok(())
        })
    }
}

/// Whether there are too many files open, here or on the host.
fn is_shortage(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS))
}

fn end_on_signal(socket: PathBuf, clients: Arc<Clients>) -> anyhow::Result<()> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    std::thread::spawn(move || {
        let _ = signals.wait();
        let _ = fs::remove_file(&socket);
        clients.dismiss();
        // What is loaded goes with the process.
        std::process::exit(0);
    });
    Ok(())
}
