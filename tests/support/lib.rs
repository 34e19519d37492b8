//! What the tests share: the real binaries, real containers, and witnesses that are not ours.
//!
//! The binaries are those of `make build`; containers come from `tests/support/pods`, in the containerd that
//! `tests/support/run` starts and ends. Whatever is missing fails a test; nothing is skipped.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests")]

mod addresses;
mod browser;
mod client;
pub mod cluster;
pub mod fake;
mod folder;
pub mod kernels;
mod loaded;
mod package;
mod pods;
pub mod scenarios;
mod terminal;

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gadgets::decoder::Decoder;
use gadgets::wire::Frame;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use addresses::Addresses;
pub use browser::Browser;
pub use client::{Client, Frozen, Seen, agent_command, client_command, client_output, endpoint, texts};
pub use folder::Folder;
pub use loaded::{Loaded, compares_loaded, loads_programs};
pub use package::Package;
pub use pods::{Pod, RealPods, bundles, pods, shared_folder};
pub use terminal::Terminal;

/// Long enough for anything that works, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A file of `make build`, or of `make test-binaries`. Elsewhere than in the checkout, `TESTS_DIST` is where they are.
pub fn dist(name: &str) -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist");
    let folder = std::env::var_os("TESTS_DIST").map_or_else(built, PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: run the tests with make test", path.display());
    path.canonicalize().unwrap()
}

/// What a script of `tests/` prints, which makes or fetches what is not there yet, and says so.
pub fn script_output(script: &str, args: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(path).args(args).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script} {args:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Memory of a process in bytes, by its name in `/proc/PID/status`: `VmRSS` is what it has, `VmHWM` the most that it had. `None` if it is gone.
pub fn memory(pid: impl std::fmt::Display, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
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

    /// The ids of its children, of all of its threads.
    pub fn children(&self) -> Vec<Pid> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // A thread may end meanwhile.
        let of_thread = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children")).ok();
        let children: String = threads.map(Result::unwrap).filter_map(of_thread).collect();
        children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
        Self::start_with("gadget-agent", name)
    }

    /// The same with another agent than the product's.
    pub fn start_with(agent: &str, name: &str) -> Self {
        let socket =
            std::env::temp_dir().join(format!("kubectl-gadget-{}-{name}", std::process::id())).join("agent.sock");
        let process = Self::serve(agent, &socket);
        Self { process, socket }
    }

    fn serve(agent: &str, socket: &Path) -> Process {
        let mut command = agent_command(agent);
        command.args(["daemon", "--socket"]).arg(socket);
        let process = Process(command.process_group(0).spawn().unwrap());
        wait_for("the daemon's socket", || std::os::unix::net::UnixStream::connect(socket).is_ok());
        process
    }

    /// Kills it, and starts another in its place.
    pub fn replace(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait();
        self.process = Self::serve("gadget-agent", &self.socket);
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

/// A session with an agent's process or socket, frame by frame.
pub struct Session<R, W> {
    reader: R,
    writer: W,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl<R: std::io::Read, W: std::io::Write> Session<R, W> {
    /// Over these two directions.
    pub fn new(reader: R, writer: W) -> Self {
        Self { reader, writer, decoder: Decoder::default(), buffer: vec![0; 256 << 10] }
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
            match self.reader.read(&mut self.buffer).unwrap() {
                0 => return None,
                read => self.decoder.push(&self.buffer[..read]),
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
