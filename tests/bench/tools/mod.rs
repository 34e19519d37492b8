//! Who watches: a tool is started, waited for until it is attached, stopped, and has its work counted.

pub(crate) mod classic;
mod ours;
mod output;
mod rivals;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Process;

use crate::cgroup::Cgroup;
use crate::load::Load;
use crate::stage::Stage;
pub(crate) use classic::Classic;
pub(crate) use ours::{Ours, said_lost};
pub(crate) use output::Place;
use output::{CANARY, Output};
pub(crate) use rivals::Rivals;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const GLANCE: Duration = Duration::from_millis(1);
/// How often a canary is sent.
const CANARY_EVERY: Duration = Duration::from_millis(20);
/// A tool that has printed nothing for so long has nothing left to print.
const QUIET: Duration = Duration::from_millis(400);

/// A program that watches.
pub(crate) trait Tool {
    /// What people call it.
    fn name(&self) -> String;

    /// What to run.
    fn command(&self) -> Result<Command>;

    /// What it prints once it sees everything. If it says nothing of the kind, a canary tells: an open in the cgroup that
    /// is watched, until one is shown.
    fn announces(&self) -> Option<&'static str> {
        None
    }

    /// How many events it says to have lost, in what it has said on standard error.
    fn lost(&self, said: &str) -> Result<u64>;
}

/// A tool that runs.
pub(crate) struct Running<'a> {
    tool: &'a dyn Tool,
    process: Process,
    cgroup: Cgroup,
    output: Output,
    errors: PathBuf,
    /// From its start until it saw events, and what it has run until then.
    first: Duration,
    start_cpu: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Marked events that it has printed.
    pub(crate) seen: u64,
    /// Events that it says to have lost.
    pub(crate) lost: u64,
    /// Time that all its processes have run together since it was attached.
    pub(crate) cpu: Duration,
    /// The sum of their largest resident sizes, in bytes.
    pub(crate) peak: u64,
    /// From its start until it saw events.
    pub(crate) first: Duration,
}

impl<'a> Running<'a> {
    /// Starts a tool, and waits until it is attached.
    pub(crate) fn start(tool: &'a dyn Tool, stage: &Stage, place: Place) -> Result<Self> {
        let name = tool.name();
        let cgroup = stage.tool_cgroup()?;
        let mut command = tool.command().with_context(|| name.clone())?;
        cgroup.confine(&mut command)?;
        let (output, theirs) = Output::open(place, &stage.folder)?;
        let errors = stage.folder.join(cgroup.path().replace('/', "-"));
        command.stdout(theirs).stderr(File::create(&errors)?);
        let process = Process(command.spawn().with_context(|| format!("cannot start {name}"))?);
        // It has the other end now; ours would keep a terminal or a pipe from ending.
        drop(command);
        let (first, start_cpu) = (Duration::ZERO, Duration::ZERO);
        let mut running = Self { tool, process, cgroup, output, errors, first, start_cpu };
        let began = Instant::now();
        running.wait_until_attached(stage, began)?;
        (running.first, running.start_cpu) = (began.elapsed(), running.cgroup.cpu()?);
        Ok(running)
    }

    fn wait_until_attached(&mut self, stage: &Stage, began: Instant) -> Result<()> {
        let canary = Load::failing_opens(1).unmarked(&format!("/missing/{CANARY}"));
        let mut due = began;
        loop {
            let is_attached = match self.tool.announces() {
                Some(words) => self.output.begins_with(words)? || self.said()?.contains(words),
                None => self.output.has_canary()?,
            };
            if is_attached {
                return Ok(());
            }
            let name = self.tool.name();
            if let Some(status) = self.process.0.try_wait()? {
                bail!("{name} ended at once ({status}): {}", self.said()?);
            }
            ensure!(began.elapsed() < PATIENCE, "{name} does not begin: {}", self.said()?);
            if self.tool.announces().is_none() && Instant::now() >= due {
                canary.run(&stage.watched)?;
                due = Instant::now() + CANARY_EVERY;
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Its first process.
    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Processes that it has started.
    pub(crate) fn children(&self) -> Vec<Pid> {
        self.process.children()
    }

    /// Waits until it has shown so many marked events, or has nothing more to show.
    pub(crate) fn settle(&mut self, events: u64) -> Result<()> {
        self.settle_for(events, QUIET)
    }

    /// The same, if it may be silent for longer.
    pub(crate) fn settle_for(&mut self, events: u64, quiet: Duration) -> Result<()> {
        let (mut bytes, mut since) = (0, Instant::now());
        while self.output.marks()? < events && since.elapsed() < quiet {
            let now = self.output.bytes()?;
            if now != bytes {
                (bytes, since) = (now, Instant::now());
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Waits until it tells of a loss, in JSON.
    pub(crate) fn wait_for_told_loss(&mut self) -> Result<()> {
        let asked = Instant::now();
        while !self.output.tells_loss()? {
            ensure!(asked.elapsed() < PATIENCE, "{} tells of no loss", self.tool.name());
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn stop(mut self) -> Result<Work> {
        let peak = self.cgroup.peak_memory()?;
        kill(self.pid(), Signal::SIGINT)?;
        let asked = Instant::now();
        while self.process.0.try_wait()?.is_none() {
            ensure!(asked.elapsed() < PATIENCE, "{} does not end", self.tool.name());
            std::thread::sleep(GLANCE);
        }
        let lost = self.tool.lost(&self.said()?).with_context(|| self.tool.name())?;
        let cpu = self.cgroup.cpu()? - self.start_cpu;
        Ok(Work { seen: self.output.finish()?, lost, cpu, peak, first: self.first })
    }

    fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.errors)?).into_owned())
    }
}
