//! An agent whose client is the bench, frame by frame.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gadgets::record::records;
use gadgets::spec::{Limits, RunSpec, Selector};
use gadgets::wire::{Frame, Hello, Status, Trailer, VERSION};
use tests::{Process, Session, agent_command};

use crate::cgroup::Cgroup;

/// A gadget on one cgroup, with a ring of so many bytes or the usual one.
pub(crate) fn run_of(gadget: &str, cgroup: &Cgroup, ring_bytes: Option<u32>) -> RunSpec {
    let selector = Selector { cgroups: vec![cgroup.path().to_owned()], ..Selector::default() };
    RunSpec { gadget: gadget.into(), selector, limits: Limits { ring_bytes }, ..RunSpec::default() }
}

/// What a daemon says of itself.
pub(crate) fn status(socket: &str) -> Result<Status> {
    let connection = UnixStream::connect(socket)?;
    let mut session = Session::new(connection.try_clone()?, connection);
    session.send(&Frame::Hello(Box::new(Hello { version: VERSION, status: true, ..Hello::default() })).encode()?);
    let mut told = None;
    // To its end, so that none of it is left there.
    while let Some(frame) = session.next_frame() {
        match frame {
            Frame::Status(status) => told = Some(*status),
            Frame::Error(failure) => bail!("the agent: {}", failure.message),
            _ => {}
        }
    }
    told.context("the agent ended")
}

/// A session in which every event is seen from now on.
pub(crate) struct Watch<R, W>(Session<R, W>);

impl<R: Read, W: Write> Watch<R, W> {
    pub(crate) fn begin(mut session: Session<R, W>, run: RunSpec) -> Result<Self> {
        let hello = Hello { version: VERSION, run: Some(run), ..Hello::default() };
        session.send(&Frame::Hello(Box::new(hello)).encode()?);
        loop {
            match session.next_frame() {
                Some(Frame::Schema(_)) => return Ok(Self(session)),
                Some(Frame::Error(failure)) => bail!("the agent: {}", failure.message),
                None => bail!("the agent ended"),
                _ => {}
            }
        }
    }

    /// Ends it, and returns how many records came since it began, and the agent's own sums.
    pub(crate) fn stop(&mut self) -> Result<(u64, Trailer)> {
        self.0.send(&Frame::Stop.encode()?);
        let mut seen = 0;
        loop {
            match self.0.next_frame() {
                Some(Frame::Batch(batch)) => seen += records(&batch).filter(Result::is_ok).count() as u64,
                Some(Frame::Trailer(trailer)) => return Ok((seen, trailer)),
                None => bail!("the agent ended without a trailer"),
                _ => {}
            }
        }
    }
}

/// A session with an agent of its own.
pub(crate) struct Own {
    /// The session.
    pub(crate) watch: Watch<ChildStdout, ChildStdin>,
    /// The agent.
    pub(crate) process: Process,
    /// From its start until it saw events.
    pub(crate) first: Duration,
}

impl Own {
    /// Starts an agent in a cgroup or in none of its own.
    pub(crate) fn start(cgroup: Option<&Cgroup>, run: RunSpec) -> Result<Self> {
        let mut command = agent_command("gadget-agent");
        if let Some(cgroup) = cgroup {
            cgroup.confine(&mut command)?;
        }
        command.args(["session", "--local"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let began = Instant::now();
        let mut process = Process(command.spawn()?);
        let (input, output) = (process.0.stdin.take(), process.0.stdout.take());
        let session = Session::new(output.context("no output")?, input.context("no input")?);
        let watch = Watch::begin(session, run)?;
        Ok(Self { watch, process, first: began.elapsed() })
    }
}
