//! One conversation with a client: over standard input and output, or a connection to the daemon's socket.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gadgets::catalogue::Gadget;
use gadgets::decoder::Decoder;
use gadgets::spec::{
    Host, INTERVAL_MS_DEFAULT, INTERVAL_MS_MAX, INTERVAL_MS_MIN, RING_BYTES_MAX, RING_BYTES_MIN, RunSpec,
};
use gadgets::tasks::MAX_VALUES;
use gadgets::wire::{Failure, FailureKind, Frame, Hello, Node, Resume, SILENCE_SECONDS, Trailer, VERSION, WireError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::agent::Agent;
use crate::clock;
use crate::error::AgentError;
use crate::instance::{About, Key, Membership};
use crate::member::Wish;
use crate::outbox::Outbox;
use crate::server;
use crate::sizes;
use crate::status::status;

/// Silence after which the client counts as gone.
const SILENCE: Duration = Duration::from_secs(SILENCE_SECONDS);
/// How often a reader that waits looks whether the other direction is broken.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Serves one session over standard input and output. `start` makes the agent; if it cannot, the client is told.
///
/// # Errors
/// If the session did not end as the client wished, which the client was told.
pub(crate) fn serve_stdio(start: impl FnOnce() -> Result<Agent, AgentError>) -> Result<(), AgentError> {
    // Plain files, because frames are neither lines nor to be buffered where poll cannot see them.
    let file = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(File::from);
    let input = file(io::stdin().as_fd()).map_err(|error| AgentError::internal("use standard input", error))?;
    let output = file(io::stdout().as_fd()).map_err(|error| AgentError::internal("use standard output", error))?;
    let agent = start().inspect_err(|error| tell(&error.failure()))?;
    // A stuck writer ends with the process.
    serve(&agent, input, output, |_| {}, || {})
}

/// Serves one session over a connection. What is to be written to the client goes through the outbox that `opened` gets.
pub(crate) fn serve_connection(
    agent: &Agent,
    connection: &UnixStream,
    opened: impl FnOnce(&Arc<Outbox>),
) -> Result<(), AgentError> {
    let writer = connection.try_clone().map_err(|error| AgentError::internal("serve a connection", error))?;
    serve(agent, connection, writer, opened, || {
        let _ = connection.shutdown(Shutdown::Both);
    })
}

/// Passes a session on to the daemon, byte by byte.
///
/// # Errors
/// If the daemon cannot be reached; the client was told then.
pub(crate) fn relay(socket: &Path) -> anyhow::Result<()> {
    let connection = server::connect(socket).inspect_err(|error| {
        tell(&Failure { kind: FailureKind::Unavailable, message: error.to_string() });
    })?;
    let mut to_daemon = connection.try_clone()?;
    std::thread::spawn(move || {
        // Either end going away ends the session; the daemon notices the shutdown, the client our exit.
        let _ = io::copy(&mut io::stdin().lock(), &mut to_daemon);
        let _ = to_daemon.shutdown(Shutdown::Write);
    });
    let mut from_daemon = connection;
    let mut output = io::stdout().lock();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from_daemon.read(&mut buffer)? {
            0 => return Ok(()),
            read => {
                output.write_all(&buffer[..read])?;
                output.flush()?;
            }
        }
    }
}

/// Sends a failure to the client, where there is no session yet.
fn tell(failure: &Failure) {
    if let Ok(bytes) = Frame::Error(failure.clone()).encode() {
        // If nobody reads, nobody needs to know.
        let _ = io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush());
    }
}

fn serve(
    agent: &Agent,
    input: impl Read + AsFd,
    output: impl Write + Send + 'static,
    opened: impl FnOnce(&Arc<Outbox>),
    hang_up: impl Fn(),
) -> Result<(), AgentError> {
    let outbox = Arc::new(Outbox::default());
    opened(&outbox);
    let writing = Arc::clone(&outbox);
    let writer = std::thread::spawn(move || writing.write_to(output));
    let ended = converse(agent, input, &outbox);
    if let Err(error) = &ended {
        outbox.put(&Frame::Error(error.failure()));
    }
    outbox.close();
    // A client that is there reads what is left within the time that it may be silent.
    if !outbox.wait_until_done(SILENCE) {
        outbox.break_off();
        hang_up();
        return ended;
    }
    let _ = writer.join();
    ended
}

fn converse(agent: &Agent, input: impl Read + AsFd, outbox: &Arc<Outbox>) -> Result<(), AgentError> {
    let mut frames = Frames::new(input);
    let hello = match frames.next(outbox)? {
        Some(Frame::Hello(hello)) => hello,
        Some(other) => return Err(AgentError::Protocol(format!("its first frame is {}, not hello", other.name()))),
        None => return Ok(()),
    };
    if hello.status {
        let status = Frame::Status(Box::new(status(agent)));
        [own_hello(agent, None), status, Frame::Trailer(Trailer::default())].iter().for_each(|frame| outbox.put(frame));
        return Ok(());
    }
    outbox.allow(hello.allowed);
    let run = hello.run.ok_or_else(|| AgentError::Usage("the client did not say what to run".into()))?;
    let mut followed = Followed { agent, paths: Vec::new() };
    let membership = join(agent, run, hello.resume, outbox, &mut followed)?;
    loop {
        match frames.next(outbox)? {
            Some(Frame::Heartbeat(heartbeat)) => outbox.allow(heartbeat.allowed),
            // The client stays until it has read the trailer, and then goes.
            Some(Frame::Stop) => membership.finish(),
            Some(other) => return Err(AgentError::Protocol(format!("a {} frame from a client", other.name()))),
            None => return Ok(()),
        }
    }
}

/// Cgroups that are followed for this session.
struct Followed<'a> {
    agent: &'a Agent,
    paths: Vec<String>,
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.paths.iter().for_each(|path| self.agent.tracker.unfollow(path));
    }
}

fn join(
    agent: &Agent,
    mut run: RunSpec,
    resumed: Option<Resume>,
    outbox: &Arc<Outbox>,
    followed: &mut Followed<'_>,
) -> Result<Membership, AgentError> {
    let gadget = agent.catalogue.get(&run.gadget).ok_or_else(|| {
        let known: Vec<_> = agent.catalogue.0.iter().map(|gadget| gadget.name).collect();
        AgentError::NotFound(format!("this agent has no gadget {:?}; it has: {}", run.gadget, known.join(", ")))
    })?;
    let ring_bytes = run.limits.ring_bytes.unwrap_or_else(|| sizes::buffer(gadget));
    if !ring_bytes.is_power_of_two() || !(RING_BYTES_MIN..=RING_BYTES_MAX).contains(&ring_bytes) {
        return Err(AgentError::Usage(format!(
            "a ring of {ring_bytes} bytes: it must be a power of two from {RING_BYTES_MIN} to {RING_BYTES_MAX}"
        )));
    }
    let interval_ms = interval_ms(gadget, run.interval_ms)?;
    let constants = gadget.constants(&run.parameters)?;
    if run.tasks.value_count() > MAX_VALUES {
        return Err(AgentError::Usage(format!(
            "{} processes, users and names: at most {MAX_VALUES} together",
            run.tasks.value_count()
        )));
    }
    // A node that shares its kernel with others is not all that the kernel runs.
    if run.selector.host != Host::None && !agent.tracker.owns_kernel() {
        run.selector.cgroups = vec![agent.tracker.root().to_owned()];
        if run.selector.host == Host::All {
            run.selector.host = Host::None;
        }
    }
    for path in &mut run.selector.cgroups {
        *path = agent.tracker.follow(path)?;
        followed.paths.push(path.clone());
    }
    let schema = gadget.schema().map_err(|error| AgentError::internal("read the gadget's schema", error))?;
    let (tasks, variants) = (run.tasks, run.variants);
    let key = Key { gadget: gadget.name, constants, tasks, variants, ring_bytes, interval_ms, first_session: 0 };
    let began = Duration::from_millis(run.began_ms_ago);
    let wish = Wish { selector: run.selector, began, resumed, outbox: Arc::clone(outbox) };
    agent
        .instances
        .join(gadget, key, wish, |about, session| vec![own_hello(agent, Some((about, session))), Frame::Schema(schema)])
}

/// How often a gadget is sampled; 0 if it never is.
fn interval_ms(gadget: &Gadget, wanted: Option<u32>) -> Result<u32, AgentError> {
    let given = INTERVAL_MS_MIN..=INTERVAL_MS_MAX;
    match (&gadget.sampled, wanted) {
        (None, None) => Ok(0),
        (None, Some(_)) => Err(AgentError::Usage(format!("{} is not sampled, and has no interval", gadget.name))),
        (Some(_), None) => Ok(INTERVAL_MS_DEFAULT),
        (Some(_), Some(wanted)) if given.contains(&wanted) => Ok(wanted),
        (Some(_), Some(wanted)) => Err(AgentError::Usage(format!(
            "an interval of {wanted} ms: it must be from {INTERVAL_MS_MIN} to {INTERVAL_MS_MAX}"
        ))),
    }
}

/// What an agent says first: of the gadget that runs, and the session, if there is one.
fn own_hello(agent: &Agent, runs: Option<(&About, u64)>) -> Frame {
    let (about, session) = runs.unzip();
    let mut degraded = about.map(|about| about.degraded.clone()).unwrap_or_default();
    degraded.extend(agent.tracker.degraded());
    let node = Node {
        name: agent.node.clone(),
        kernel: crate::host::kernel(),
        clock: clock::now(),
        variants: about.map(|about| about.variants.clone()).unwrap_or_default(),
        degraded,
    };
    let software = env!("CARGO_PKG_VERSION").to_owned();
    Frame::Hello(Box::new(Hello { version: VERSION, software, node: Some(node), session, ..Hello::default() }))
}

/// The client's frames.
struct Frames<I> {
    input: I,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl<I: Read + AsFd> Frames<I> {
    fn new(input: I) -> Self {
        Self { input, decoder: Decoder::default(), buffer: vec![0; 16 << 10] }
    }

    /// The next frame; `None` if the client is gone.
    ///
    /// # Errors
    /// If it sends what is no frame, or ends or falls silent within one.
    fn next(&mut self, outbox: &Outbox) -> Result<Option<Frame>, AgentError> {
        let mut silent_since = Instant::now();
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            if !self.wait() {
                if outbox.is_broken() || silent_since.elapsed() >= SILENCE {
                    return Ok(None);
                }
                continue;
            }
            match self.input.read(&mut self.buffer) {
                Ok(0) => return self.decoder.finish().map(|()| None).map_err(WireError::into),
                Ok(read) => self.decoder.push(&self.buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(None),
            }
            silent_since = Instant::now();
        }
    }

    /// Waits until something can be read. Returns whether it can.
    fn wait(&self) -> bool {
        let mut polled = [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(LOOK_AROUND).unwrap_or(PollTimeout::ZERO);
        matches!(poll(&mut polled, timeout), Ok(ready) if ready > 0)
    }
}
