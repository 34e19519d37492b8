//! What the tests share: the real binaries, real containers, and witnesses that are not ours.
//!
//! The binaries are those of `make build`; containers come from `tests/support/pods`, in the containerd that
//! `tests/support/run` starts and ends. Whatever is missing fails a test; nothing is skipped.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests")]

pub mod cluster;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gadgets::decoder::Decoder;
use gadgets::wire::Frame;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Long enough for anything that works, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A file of `make build`.
pub fn dist(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist").join(name);
    assert!(path.is_file(), "{} is missing: run the tests with make test", path.display());
    path.canonicalize().unwrap()
}

/// Where the containers' /tmp is on the host.
pub fn shared_folder() -> PathBuf {
    let path = PathBuf::from("/run").join(pods_name()).join("rootfs/tmp");
    assert!(path.is_dir(), "no containerd for the tests: run them with make test");
    path
}

fn pods_name() -> String {
    std::env::var("PODS_NAME").unwrap_or_else(|_| "kubectl-gadget-test".into())
}

/// Runs `tests/support/pods`.
pub fn pods(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/pods");
    let output = Command::new(script).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "pods {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A pod of this test, removed with it.
pub struct Pod {
    /// NAMESPACE/POD
    pub full_name: String,
}

impl Pod {
    /// Nothing is made before the first container is.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { full_name: format!("{namespace}/{name}") }
    }

    /// Starts a container and returns its cgroup.
    pub fn run(&self, container: &str, command: &[&str]) -> String {
        pods(&[&["run", &self.full_name, container], command].concat())
    }

    /// Runs a command in a container.
    pub fn exec(&self, container: &str, command: &[&str]) -> String {
        pods(&[&["exec", &self.full_name, container], command].concat())
    }

    /// Waits until a container has ended.
    pub fn wait(&self, container: &str) {
        pods(&["wait", &self.full_name, container]);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        pods(&["delete", &self.full_name]);
    }
}

/// Kills what a test started, should it fail on the way.
pub struct Process(pub Child);

impl Process {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "process {} does not end", self.pid());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The ids of its children.
    pub fn children(&self) -> Vec<Pid> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(path).unwrap();
        children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client with `-o json`, whose lines are read as they come.
pub struct Client {
    /// The client's process.
    pub process: Process,
    lines: Receiver<String>,
    /// All that was read.
    pub seen: Vec<Value>,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts a gadget on this host and waits until it runs.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with("kubectl-gadget", args)
    }

    /// The same with another client than the product's.
    pub fn start_with(client: &str, args: &[&str]) -> Self {
        let mut command = client_command(client, args);
        command.args(["--local", "-o", "json"]);
        let mut client = Self::spawn(command);
        client.wait_for_nodes(1);
        client
    }

    /// Starts a command that prints lines of JSON.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self { process: Process(child), lines, seen: Vec::new(), said, listener: Some(listener) }
    }

    /// Waits until the streams of so many nodes have begun.
    pub fn wait_for_nodes(&mut self, count: usize) {
        for _ in 0..count {
            if !self.read_until(|line| line["type"] == "start") {
                let _ = self.listener.take().unwrap().join();
                panic!("the client did not start: {}", self.said());
            }
        }
    }

    /// What it has said on standard error.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Reads lines until one fits. Returns whether one came.
    pub fn read_until(&mut self, fits: impl Fn(&Value) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                    let done = fits(&value);
                    self.seen.push(value);
                    if done {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("nothing came for {PATIENCE:?}"),
            }
        }
    }

    /// Reads lines until all that were read are enough. Fails if they never are.
    pub fn read_until_seen(&mut self, what: &str, enough: impl Fn(&[Value]) -> bool) {
        while !enough(&self.seen) {
            assert!(self.read_until(|_| true), "the run ended without {what}: {}", self.said());
        }
    }

    /// Ends the run as Ctrl-C does, reads to the end, and returns what was seen.
    pub fn stop(self) -> Seen {
        self.process.signal(Signal::SIGINT);
        self.finish()
    }

    /// Reads to the end, which comes by itself.
    pub fn finish(mut self) -> Seen {
        self.read_until(|_| false);
        let status = self.process.wait();
        let _ = self.listener.take().unwrap().join();
        Seen { lines: std::mem::take(&mut self.seen), status, said: self.said() }
    }
}

/// What a run printed.
pub struct Seen {
    /// All lines.
    pub lines: Vec<Value>,
    /// How the client ended.
    pub status: ExitStatus,
    /// What it said on standard error.
    pub said: String,
}

impl Seen {
    /// The events.
    pub fn events(&self) -> Vec<&Value> {
        self.of_type("event")
    }

    /// The lines of this type.
    pub fn of_type(&self, kind: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["type"] == kind).collect()
    }

    /// Lost events, all together.
    pub fn lost(&self) -> u64 {
        self.of_type("loss").iter().map(|loss| loss["count"].as_u64().unwrap()).sum()
    }

    /// The last line.
    pub fn summary(&self) -> &Value {
        let last = self.lines.last().unwrap();
        assert_eq!(last["type"], "summary");
        last
    }
}

/// The texts of an event's list, as bytes.
pub fn texts(event: &Value, name: &str) -> Vec<Vec<u8>> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    match event.get(format!("{name}_base64")) {
        Some(encoded) => list(encoded).iter().map(|text| BASE64_STANDARD.decode(text).unwrap()).collect(),
        None => list(&event[name]).into_iter().map(String::into_bytes).collect(),
    }
}

/// A command of the client's, with the agent and the bundles of the tests.
pub fn client_command(client: &str, args: &[&str]) -> Command {
    let mut command = Command::new(dist(client));
    command.args(args).env("GADGET_BUNDLES", bundles()).stdin(Stdio::null());
    if client == "kubectl-gadget" {
        command.env("KUBECTL_GADGET_AGENT", dist("gadget-agent"));
    }
    command
}

/// Runs the client to its end.
pub fn client_output(args: &[&str]) -> Output {
    client_command("kubectl-gadget", args).output().unwrap()
}

/// Where the containers' bundles are.
pub fn bundles() -> String {
    format!("/run/{}/state/io.containerd.runtime.v2.task/*", pods_name())
}

/// A daemon with a socket of its own.
pub struct Daemon {
    /// Its process.
    pub process: Process,
    /// Its socket.
    pub socket: PathBuf,
}

impl Daemon {
    /// Starts one and waits until it serves.
    pub fn start(name: &str) -> Self {
        let socket =
            std::env::temp_dir().join(format!("kubectl-gadget-{}-{name}", std::process::id())).join("agent.sock");
        let mut command = Command::new(dist("gadget-agent"));
        command.args(["daemon", "--socket"]).arg(&socket).args(["--bundles", &bundles()]).stdin(Stdio::null());
        let process = Process(command.process_group(0).spawn().unwrap());
        wait_for("the daemon's socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        Self { process, socket }
    }

    /// The socket as an argument.
    pub fn socket(&self) -> &str {
        self.socket.to_str().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.socket.parent().unwrap());
    }
}

/// Waits until something holds.
pub fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is loaded into the kernel, by bpftool's account.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Kind, id and name of each.
    pub objects: BTreeSet<String>,
}

impl Loaded {
    /// As of now, once nothing changes any more: the kernel frees objects a moment after their last user is gone, and
    /// libbpf tries out features with objects of its own.
    pub fn now() -> Self {
        let mut before = Self::list();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = Self::list();
            if now == before {
                return now;
            }
            before = now;
        }
    }

    fn list() -> Self {
        let objects = ["prog", "map", "link"].iter().flat_map(|kind| {
            let output = Command::new("bpftool").args(["-j", kind, "list"]).output().unwrap();
            let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let ids = list.as_array().cloned().unwrap_or_default();
            ids.into_iter().map(move |object| format!("{kind} {} {}", object["id"], object["name"]))
        });
        Self { objects: objects.collect() }
    }

    /// How many loaded programs have this name.
    pub fn programs_named(name: &str) -> usize {
        let output = Command::new("bpftool").args(["-j", "prog", "list"]).output().unwrap();
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list.as_array().unwrap().iter().filter(|program| program["name"] == name).count()
    }

    /// Waits until this is what is loaded.
    pub fn wait_for(&self, when: &str) {
        let deadline = Instant::now() + PATIENCE;
        while Self::list() != *self {
            let more: Vec<_> = Self::list().objects.difference(&self.objects).cloned().collect();
            assert!(Instant::now() < deadline, "still loaded {when}: {more:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

static LOADING: RwLock<()> = RwLock::new(());

/// For tests that load programs.
pub fn loads_programs() -> RwLockReadGuard<'static, ()> {
    LOADING.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// For tests that compare what is loaded: nobody else loads meanwhile.
pub fn compares_loaded() -> RwLockWriteGuard<'static, ()> {
    let guard = LOADING.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    // An agent whose client a test has just ended is a moment behind.
    wait_for("earlier agents to end", || Loaded::programs_named("cgroup_made") == 0);
    guard
}

/// A session with an agent's process or socket, frame by frame.
pub struct Session<R, W> {
    reader: R,
    writer: W,
    decoder: Decoder,
}

impl<R: std::io::Read, W: std::io::Write> Session<R, W> {
    /// Over these two directions.
    pub fn new(reader: R, writer: W) -> Self {
        Self { reader, writer, decoder: Decoder::default() }
    }

    /// Sends bytes that may be frames.
    pub fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
        self.writer.flush().unwrap();
    }

    /// The next frame; `None` at the end.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = [0; 4096];
            match self.reader.read(&mut buffer).unwrap() {
                0 => return None,
                read => self.decoder.push(&buffer[..read]),
            }
        }
    }
}

/// Writes a file into a new folder that others can read, and returns its path.
pub fn temporary(name: &str, content: &[u8], mode: u32) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = std::env::temp_dir().join(format!("kubectl-gadget-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(content).unwrap();
    drop(file);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}
