//! What is measured: events that the generator makes, in a cgroup.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tests::{Process, dist};

use crate::cgroup::Cgroup;

/// What paths contain whose events are counted.
pub(crate) const MARK: &str = "gadget-bench-mark";

/// Events to make.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    kind: &'static str,
    pub(crate) count: u64,
    path: PathBuf,
    /// A second, for so many seconds at most.
    paced: Option<(u64, u64)>,
    connections: u32,
}

impl Load {
    /// Files that are opened and closed.
    pub(crate) fn opens(folder: &Path, count: u64) -> Result<Self> {
        let path = folder.join(MARK);
        std::fs::write(&path, "").with_context(|| path.display().to_string())?;
        Ok(Self { path, ..Self::syscalls(count).of("opens") })
    }

    /// Attempts to open a file that does not exist: little but what a tool adds.
    pub(crate) fn failing_opens(count: u64) -> Self {
        Self { path: Path::new("/missing").join(MARK), ..Self::syscalls(count).of("failing-opens") }
    }

    /// Sockets that are bound and closed.
    pub(crate) fn binds(count: u64) -> Self {
        Self::syscalls(count).of("binds")
    }

    /// Connections to itself.
    pub(crate) fn connects(count: u64) -> Self {
        Self::syscalls(count).of("connects")
    }

    /// Datagrams from one [address](tests::Addresses) to another, that are sent and taken.
    pub(crate) fn datagrams(count: u64) -> Self {
        Self::syscalls(count).of("datagrams")
    }

    /// Checks of a capability.
    pub(crate) fn checks(count: u64) -> Self {
        Self::syscalls(count).of("checks")
    }

    /// System calls that nobody traces.
    pub(crate) fn syscalls(count: u64) -> Self {
        Self { kind: "syscalls", count, path: MARK.into(), paced: None, connections: 1 }
    }

    /// Something to compute that takes about as long.
    pub(crate) fn computations(count: u64) -> Self {
        Self::syscalls(count).of("computations")
    }

    /// Bytes that are sent over so many connections in turn, and taken.
    pub(crate) fn pings(connections: u32, count: u64) -> Self {
        Self { connections, ..Self::syscalls(count).of("pings") }
    }

    /// The same at a rate, for some seconds.
    pub(crate) fn paced(self, rate: u64, seconds: u64) -> Self {
        Self { count: rate * seconds, paced: Some((rate, seconds)), ..self }
    }

    fn of(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// Programs that are started, so many a second for some seconds, or as many as can be.
    pub(crate) fn execs(rate: u64, seconds: u64) -> Self {
        Self::syscalls(0).of("execs").paced(rate, seconds)
    }

    /// The same with a program that does not exist: an event, too, and many more can be had.
    pub(crate) fn failing_execs(rate: u64, seconds: u64) -> Self {
        Self::execs(rate, seconds).of("failing-execs")
    }

    /// The same with another path, whose events do not count.
    pub(crate) fn unmarked(self, path: &str) -> Self {
        Self { path: path.into(), ..self }
    }

    /// A generator in a cgroup that has started and waits.
    pub(crate) fn start(&self, cgroup: &Cgroup) -> Result<Generator> {
        let mut command = Command::new(dist("generator"));
        command.args([self.kind, &self.count.to_string()]).arg("--path").arg(&self.path);
        command.args(["--connections", &self.connections.to_string()]);
        // The last processor: interrupts and all else prefer the first.
        command.args(["--cpu", &(std::thread::available_parallelism()?.get() - 1).to_string()]);
        if let Some((rate, seconds)) = self.paced {
            command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
        }
        cgroup.confine(&mut command)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start the generator")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = (stdin.context("no input")?, BufReader::new(stdout.context("no output")?));
        let mut generator = Generator { _process: Process(child), stdin, stdout };
        ensure!(generator.line()? == "ready\n", "the generator did not start");
        Ok(generator)
    }

    /// Makes the events.
    pub(crate) fn run(&self, cgroup: &Cgroup) -> Result<Done> {
        self.start(cgroup)?.run()
    }
}

/// A generator.
pub(crate) struct Generator {
    _process: Process,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// What it did.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Done {
    /// Events that it made.
    pub(crate) count: u64,
    ns: u64,
    cpu_ns: u64,
}

impl Done {
    /// What one event took, in ns.
    pub(crate) fn each(self) -> f64 {
        self.ns as f64 / self.count as f64
    }

    /// How long the process ran for one event, in ns: programs that its system calls run are part of that, and what
    /// others take of the processor is not.
    pub(crate) fn cost(self) -> f64 {
        self.cpu_ns as f64 / self.count as f64
    }

    /// How many there were in a second.
    pub(crate) fn rate(self) -> f64 {
        1e9 / self.each()
    }
}

impl Generator {
    /// Has it make its events, and waits for that. It can do so again.
    pub(crate) fn run(&mut self) -> Result<Done> {
        self.stdin.write_all(b"\n")?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the generator said {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line)
    }
}
