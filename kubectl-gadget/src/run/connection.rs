//! How an agent is reached: a process whose standard input and output carry the frames. Here it is started, there it is
//! started by the cluster.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::deploy::{BINARY, CONTAINER, NAMESPACE};
use crate::exit::Usage;

const AGENT: &str = "gadget-agent";
/// Bytes that may be on their way from the cluster.
const BUFFER: usize = 256 << 10;
/// How long a process may take to end after its streams have.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Longest last words that are kept, in bytes.
const LAST_WORDS_LENGTH: usize = 1024;

/// Longest document that is read, in bytes.
const LONGEST_DOCUMENT: u64 = 64 << 20;

/// Both directions of a session, and the process behind them.
pub(crate) struct Connection {
    pub(super) input: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) output: Box<dyn AsyncRead + Send + Unpin>,
    process: Process,
}

enum Process {
    Local(Child),
    Remote { process: AttachedProcess, errors: Arc<Mutex<Vec<u8>>> },
}

impl Connection {
    /// What a process writes to its standard output before it ends, if that is a JSON document.
    ///
    /// # Errors
    /// If it is none; with what the process said instead, if it did.
    pub(crate) async fn document<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        let mut bytes = Vec::new();
        let read = (&mut self.output).take(LONGEST_DOCUMENT).read_to_end(&mut bytes).await;
        let document = serde_json::from_slice(&bytes);
        let ended = self.close(document.is_err()).await;
        read.context("the answer broke off")?;
        document.map_err(|error| match ended {
            Some(words) => anyhow!(words),
            None => anyhow!("the answer cannot be read: {error}"),
        })
    }

    /// Closes the session. If it broke off, says how the process ended, if it says so itself.
    pub(super) async fn close(self, broke_off: bool) -> Option<String> {
        let Self { input, output, process } = self;
        match process {
            Process::Local(mut child) => {
                drop((input, output));
                // Its programs are unloaded when it has ended.
                let status = timeout(LAST_WORDS * 5, child.wait()).await.ok()?.ok()?;
                (!status.success()).then(|| status.to_string())
            }
            // It ends with its streams, and everything has been said.
            Process::Remote { .. } if !broke_off => None,
            Process::Remote { mut process, errors } => {
                // The input stays open: where its end cannot be said it would end everything.
                let status = process.take_status()?;
                let status = timeout(LAST_WORDS, status).await.ok().flatten().and_then(|status| status.message);
                drop((input, output));
                let errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
                let errors = String::from_utf8_lossy(&errors);
                let last = errors.lines().rev().map(str::trim).find(|line| !line.is_empty());
                last.map(str::to_owned).or(status)
            }
        }
    }
}

/// An agent on this host.
#[derive(Clone)]
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
    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        match &self.socket {
            Some(socket) => self.start(&["session".as_ref(), "--socket".as_ref(), socket.as_os_str()]),
            None => self.start(&["session".as_ref(), "--local".as_ref()]),
        }
    }

    /// Starts a command of the agent's.
    ///
    /// # Errors
    /// As for [`Local::connect`].
    pub(crate) fn start(&self, args: &[&OsStr]) -> anyhow::Result<Connection> {
        let binary = self.binary()?;
        let mut command = Command::new(&binary);
        command.args(args);
        // A process group of its own: Ctrl-C is for us, and we end the agent in good order.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start the agent {}", binary.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(anyhow!("the agent has no standard input or output"));
        };
        Ok(Connection { input: Box::new(input), output: Box::new(output), process: Process::Local(child) })
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

/// Starts a session in the pod of an agent.
///
/// # Errors
/// If the cluster does not let us, or the pod is not there.
pub(crate) async fn connect(cluster: &Cluster, pod: &str) -> anyhow::Result<Connection> {
    start(cluster, pod, "session").await
}

/// Starts a command of the agent's in its pod.
///
/// # Errors
/// As for [`connect`].
pub(crate) async fn start(cluster: &Cluster, pod: &str, command: &str) -> anyhow::Result<Connection> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let how = AttachParams::default()
        .container(CONTAINER)
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .max_stdin_buf_size(BUFFER)
        .max_stdout_buf_size(BUFFER)
        .max_stderr_buf_size(BUFFER);
    let what = format!("start a {command} in pod {NAMESPACE}/{pod}");
    let mut process = cluster.ask(&what, pods.exec(pod, [BINARY, command], &how)).await?;
    let (Some(input), Some(output), Some(stderr)) = (process.stdin(), process.stdout(), process.stderr()) else {
        return Err(anyhow!("cannot {what}: it has no standard input, output or error"));
    };
    let errors = Arc::default();
    tokio::spawn(keep_last_words(stderr, Arc::clone(&errors)));
    Ok(Connection { input: Box::new(input), output: Box::new(output), process: Process::Remote { process, errors } })
}

/// Reads standard error to its end: what is not read would hold up everything else.
async fn keep_last_words(mut stderr: impl AsyncRead + Unpin, kept: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..read]);
        let excess = kept.len().saturating_sub(LAST_WORDS_LENGTH);
        kept.drain(..excess);
    }
}
