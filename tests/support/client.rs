//! A client with `-o json`, and what it printed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{PATIENCE, Process, bundles, dist, wait_for};

/// What is told of what came before nothing did.
const LAST_LINES: usize = 5;

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
                Err(RecvTimeoutError::Timeout) => {
                    tell_holes(&self.seen);
                    self.seen.iter().rev().take(LAST_LINES).for_each(|line| eprintln!("{line}"));
                    panic!("nothing came for {PATIENCE:?}; it has said: {}", self.said())
                }
            }
        }
    }

    /// Reads lines until all that were read are enough. Fails if they never are.
    pub fn read_until_seen(&mut self, what: &str, enough: impl Fn(&[Value]) -> bool) {
        while !enough(&self.seen) {
            assert!(self.read_until(|_| true), "the run ended without {what}: {}", self.said());
        }
    }

    /// Stops its agent, so that nothing is read from the kernel until the result is dropped.
    pub fn freeze_agent(&self) -> Frozen {
        Frozen::new(self.process.children()[0])
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
        let seen = Seen { lines: std::mem::take(&mut self.seen), status, said: self.said() };
        tell_holes(&seen.lines);
        seen
    }
}

/// Should the test fail, this may be why.
fn tell_holes(seen: &[Value]) {
    for line in seen {
        match line["type"].as_str() {
            Some("gap") => eprintln!("gap: {}", line["reason"]),
            Some("loss") => eprintln!("loss: {} of {}: {}", line["count"], line["pod"], line["reason"]),
            _ => {}
        }
    }
}

/// A process that is stopped. Dropped, it goes on.
pub struct Frozen(Pid);

impl Frozen {
    /// Stops a process, and waits until it stands.
    pub fn new(pid: Pid) -> Self {
        kill(pid, Signal::SIGSTOP).unwrap();
        wait_for("the process to stop", || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T "));
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
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

    /// Gaps, but those of nodes that answered late, on a machine that does much else: what is told of them is true.
    pub fn gaps(&self) -> Vec<&Value> {
        self.of_type("gap").into_iter().filter(|gap| gap["reason"] != "it has not answered").collect()
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

/// An address and a port as events have them.
pub fn endpoint(value: &Value) -> SocketAddr {
    let ip = value["address"].as_str().unwrap().parse().unwrap();
    SocketAddr::new(ip, u16::try_from(value["port"].as_u64().unwrap()).unwrap())
}

/// The texts of an event's list, or its one text, as bytes.
pub fn texts(event: &Value, name: &str) -> Vec<Vec<u8>> {
    let list = |value: &Value| -> Vec<String> {
        let texts = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
        texts.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    match event.get(format!("{name}_base64")) {
        Some(encoded) => list(encoded).iter().map(|text| BASE64_STANDARD.decode(text).unwrap()).collect(),
        None => list(&event[name]).into_iter().map(String::into_bytes).collect(),
    }
}

/// A command of the client's, with the agent and the bundles of the tests.
pub fn client_command(client: &str, args: &[&str]) -> Command {
    let agent = if client == "tiny-client" { "tiny-agent" } else { "gadget-agent" };
    let mut command = Command::new(dist(client));
    command.args(args).env("KUBECTL_GADGET_AGENT", dist(agent));
    command.env("GADGET_BUNDLES", bundles()).stdin(Stdio::null());
    command
}

/// A command of an agent's, with the bundles of the tests.
pub fn agent_command(agent: &str) -> Command {
    let mut command = Command::new(dist(agent));
    command.env("GADGET_BUNDLES", bundles()).stdin(Stdio::null());
    command
}

/// Runs the client to its end.
pub fn client_output(args: &[&str]) -> Output {
    client_command("kubectl-gadget", args).output().unwrap()
}
