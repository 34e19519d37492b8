//! The real client.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::{PATIENCE, dist};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use tests::fake::{FakeCluster, within};

/// A client that runs. Dropped, it is killed.
pub(crate) struct Client {
    child: Child,
    output: BufReader<ChildStdout>,
    complaints: Arc<Mutex<Vec<u8>>>,
    listening: JoinHandle<()>,
    seen: Vec<Value>,
}

/// A client that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// All lines of JSON.
    pub(crate) lines: Vec<Value>,
    /// Standard error.
    pub(crate) said: String,
}

impl Client {
    /// Starts execsnoop on all pods of all nodes, with JSON.
    pub(crate) fn start(fake: &FakeCluster, args: &[&str]) -> Self {
        Self::start_as(fake, &[&["-o", "json"], args].concat())
    }

    /// The same with nothing said of the output.
    pub(crate) fn start_as(fake: &FakeCluster, args: &[&str]) -> Self {
        Self::start_at(&format!("http://{}", fake.address), args)
    }

    pub(crate) fn start_at(server: &str, args: &[&str]) -> Self {
        let mut command = Command::new(dist("kubectl-gadget"));
        command.args(["execsnoop", "--server", server, "--token", "x", "-A"]).args(args);
        command.env_remove("KUBECONFIG").env_remove("HOME").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut errors = child.stderr.take().unwrap();
        let complaints: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&complaints);
        let listening = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = errors.read(&mut buffer).await {
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..read]);
            }
        });
        Self { child, output, complaints, listening, seen: Vec::new() }
    }

    /// Reads lines until one fits.
    pub(crate) async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let reading = async {
            loop {
                match self.line().await {
                    Some(line) if fits(&line) => return Some(line),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        match timeout(PATIENCE, reading).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("the client ended before {what}: {}", self.said()),
            Err(_) => panic!("the client does not print {what}: {}", self.said()),
        }
    }

    /// Reads until all these nodes have begun.
    pub(crate) async fn until_started(&mut self, nodes: usize) {
        for _ in 0..nodes {
            self.until("a node to begin", |line| line["type"] == "start").await;
        }
    }

    /// Reads until this program's exec comes.
    pub(crate) async fn until_exec(&mut self, program: &str) {
        self.until(&format!("the exec of {program}"), |line| line["file"] == program).await;
    }

    async fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line).await.unwrap() == 0 {
            return None;
        }
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.seen.push(line.clone());
        Some(line)
    }

    /// Waits until it has said this on standard error.
    pub(crate) async fn until_says(&self, words: &str) {
        let said = async {
            while !self.said().contains(words) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(PATIENCE, said).await.is_err() {
            panic!("the client does not say {words:?}: {}", self.said());
        }
    }

    /// What it has said on standard error so far.
    pub(crate) fn said(&self) -> String {
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(complaints.clone()).unwrap()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Reads lines to its end.
    pub(crate) async fn end(mut self) -> Ended {
        let reading = async { while self.line().await.is_some() {} };
        if timeout(PATIENCE, reading).await.is_err() {
            panic!("the client does not end: {}", self.said());
        }
        self.ended().await
    }

    /// Reads text to its end.
    pub(crate) async fn text(mut self) -> (String, Ended) {
        let mut text = String::new();
        within("the client's end", self.output.read_to_string(&mut text)).await.unwrap();
        (text, self.ended().await)
    }

    async fn ended(mut self) -> Ended {
        let status = within("the client's end", self.child.wait()).await.unwrap();
        within("the end of its standard error", &mut self.listening).await.unwrap();
        let said = self.said();
        assert!(!said.contains("panicked"), "{said}");
        Ended { code: status.code(), lines: self.seen, said }
    }
}

impl Ended {
    /// The lines of this type.
    pub(crate) fn of_type(&self, kind: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["type"] == kind).collect()
    }

    /// The programs of the events, in their order.
    pub(crate) fn programs(&self) -> Vec<&str> {
        self.of_type("event").iter().map(|event| event["file"].as_str().unwrap()).collect()
    }

    /// The last line.
    pub(crate) fn summary(&self) -> &Value {
        let last = self.lines.last().unwrap_or_else(|| panic!("nothing was printed: {}", self.said));
        assert_eq!(last["type"], "summary");
        last
    }

    /// Its exit code must be this.
    #[track_caller]
    pub(crate) fn must_be(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{}", self.said);
    }

    /// It must have said all of these.
    #[track_caller]
    pub(crate) fn must_say(&self, words: &[&str]) {
        for word in words {
            assert!(self.said.contains(word), "it does not say {word:?}: {}", self.said);
        }
    }
}
