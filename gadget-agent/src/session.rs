//! One conversation with a client: over standard input and output, or a connection to the daemon's socket.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gadgets::decoder::Decoder;
use gadgets::spec::RunSpec;
use gadgets::wire::{Failure, FailureKind, Frame, Hello, Node, Resume, SILENCE_SECONDS, Trailer, VERSION, WireError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::agent::Agent;
use crate::clock;
use crate::error::AgentError;
use crate::instance::{About, Membership};
use crate::member::Wish;
use crate::outbox::Outbox;
use crate::request::Request;
use crate::runtime::signatures;
use crate::server;
use crate::status::status;

/// Silence after which the client counts as gone.
const SILENCE: Duration = Duration::from_secs(SILENCE_SECONDS);
/// How often a reader that waits looks whether the other direction is broken.
const LOOK_AROUND: Duration = Duration::from_secs(5);

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
    if let Some(request) = hello.recordings {
        let recordings = agent.recordings.answer(agent, request)?;
        outbox.put(&own_hello(agent, None));
        recordings.into_iter().for_each(|recording| outbox.put(&Frame::Recording(Box::new(recording))));
        outbox.put(&Frame::Trailer(Trailer::default()));
        return Ok(());
    }
    outbox.allow(hello.allowed);
    let run = hello.run.ok_or_else(|| AgentError::Usage("the client did not say what to run".into()))?;
    let (membership, _request) = join(agent, run, hello.resume, outbox)?;
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

/// Has a session take part in what it asks for.
fn join(
    agent: &Agent,
    run: RunSpec,
    resumed: Option<Resume>,
    outbox: &Arc<Outbox>,
) -> Result<(Membership, Request), AgentError> {
    let began = run.can_go_on().then(|| Duration::from_millis(run.began_ms_ago));
    let past = run.past.clone();
    let request = match &past {
        Some(past) => agent.recordings.request(agent, past, run)?,
        None => Request::of(agent, run)?,
    };
    let schema = request.gadget.schema().map_err(|error| AgentError::internal("read the gadget's schema", error))?;
    let wish = Wish { selector: request.selector.clone(), began, past, resumed, outbox: Arc::clone(outbox) };
    let greet = |about: &About, session| {
        let calls = signatures::frames(&schema);
        [vec![own_hello(agent, Some((about, session))), Frame::Schema(schema)], calls].concat()
    };
    let membership = agent.instances.join(request.gadget, request.key.clone(), wish, greet)?;
    Ok((membership, request))
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
