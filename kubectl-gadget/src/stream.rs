//! One run: frames in, rows out, until it ends by itself, by its timeout, or by the user.
//!
//! Frames are received on one thread and printed on another. While nobody reads the output, reading from the agent
//! stops too, and the agent counts what it cannot send; signs of life go on.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use gadgets::spec::RunSpec;
use gadgets::wire::{Decoder, Frame, HEARTBEAT_SECONDS, Heartbeat, Hello, SILENCE_SECONDS, VERSION};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::connect::Local;
use crate::exit::{AgentFailure, End};
use crate::output::Output;

/// How long the agent may take to load a gadget and answer.
const GREETING: Duration = Duration::from_secs(30);
/// Frames that wait to be printed.
const QUEUE: usize = 16;

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// What is to be done.
pub(crate) struct Run {
    pub(crate) spec: RunSpec,
    pub(crate) timeout: Option<Duration>,
    pub(crate) fail_on_loss: bool,
    pub(crate) output: Output,
}

/// Runs a gadget and prints what comes.
///
/// # Errors
/// If the agent cannot be reached or cannot go on, or if its stream is incomplete.
pub(crate) fn run(local: Local, run: Run) -> anyhow::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let fail_on_loss = run.fail_on_loss;
    let (frames, printing) = mpsc::channel(QUEUE);
    let output = run.output;
    let printer = std::thread::spawn(move || output.print(printing));
    let received = runtime.block_on(receive(&local, run.spec, run.timeout, frames));
    match received {
        // A writer that is stuck must not keep somebody who does not want to wait.
        Ok(Received { ending: Ending::Abandoned, end }) => return Ok(end),
        Ok(Received { ending: Ending::ReaderGone, .. }) => return Ok(End::Done),
        _ => {}
    }
    let printed = printer.join().map_err(|_| anyhow!("the output failed"))?.and_then(Output::finish);
    let Received { ending, end } = received?;
    let totals = match printed {
        Ok(totals) => totals,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::Done),
        Err(error) => return Err(error).context("cannot write the output"),
    };
    if ending == Ending::BrokenOff {
        bail!("the stream is incomplete: the agent ended without saying that this was all");
    }
    if let (false, Some(sent)) = (totals.complete(), &totals.trailer) {
        bail!("the stream is incomplete: {} events came of {} that the agent sent", totals.events, sent.records);
    }
    Ok(if end == End::Done && fail_on_loss && totals.lost + totals.gaps > 0 { End::Lost } else { end })
}

/// How receiving ended.
struct Received {
    ending: Ending,
    /// What the user did to end it; [`End::Done`] for the timeout.
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The trailer came.
    Complete,
    /// The agent went away without one.
    BrokenOff,
    /// Nobody reads the output any more.
    ReaderGone,
    /// The user asked twice, or before anything ran.
    Abandoned,
}

async fn receive(
    local: &Local,
    spec: RunSpec,
    timeout: Option<Duration>,
    frames: mpsc::Sender<Frame>,
) -> anyhow::Result<Received> {
    let mut agent = local.start()?;
    let (Some(input), Some(output)) = (agent.stdin.take(), agent.stdout.take()) else {
        bail!("the agent has no standard input or output");
    };
    let mut conversation = Conversation {
        input: Some(input),
        output,
        decoder: Decoder::default(),
        waiting: VecDeque::new(),
        greeted: false,
    };
    let hello =
        Hello { version: VERSION, software: env!("CARGO_PKG_VERSION").to_owned(), run: Some(spec), ..Hello::default() };
    conversation.say(&Frame::Hello(Box::new(hello))).await;
    let received = conversation.hold(timeout, frames).await;
    // Closing its input ends an agent that still runs; then its programs are unloaded before we return.
    conversation.input = None;
    let ended = tokio::time::timeout(Duration::from_secs(SILENCE_SECONDS), agent.wait()).await;
    match (received, conversation.greeted, ended) {
        (Ok(Received { ending: Ending::BrokenOff, .. }), false, Ok(Ok(status))) => {
            bail!("the agent ended without a word ({status})")
        }
        (received, _, _) => received,
    }
}

/// Ends when nobody can read standard output any more, whether or not there is something to write.
async fn reader_gone() {
    let (gone, told) = oneshot::channel();
    std::thread::spawn(move || {
        let output = io::stdout();
        let mut polled = [PollFd::new(output.as_fd(), PollFlags::empty())];
        // Without flags, poll waits for errors alone. A file never has one, and then this waits for ever.
        while !matches!(poll(&mut polled, PollTimeout::NONE), Ok(1..)) {}
        let _ = gone.send(());
    });
    let _ = told.await;
}

struct Conversation {
    /// Taken when there is nothing more to say.
    input: Option<ChildStdin>,
    output: ChildStdout,
    decoder: Decoder,
    /// Frames that the printer has not taken yet.
    waiting: VecDeque<Frame>,
    greeted: bool,
}

impl Conversation {
    /// Sends a frame. An agent that is gone is noticed where its answers are read.
    async fn say(&mut self, frame: &Frame) {
        if let (Some(input), Ok(bytes)) = (&mut self.input, frame.encode()) {
            let _ = input.write_all(&bytes).await;
        }
    }

    async fn hold(&mut self, timeout: Option<Duration>, frames: mpsc::Sender<Frame>) -> anyhow::Result<Received> {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        let mut heartbeat = interval(Duration::from_secs(HEARTBEAT_SECONDS));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = Duration::from_secs(SILENCE_SECONDS);
        let mut silent_from = Instant::now() + GREETING;
        let mut stop_at = None;
        let mut end = End::Done;
        let mut stopped = false;
        let mut buffer = vec![0; 64 << 10];
        let reader_gone = reader_gone();
        tokio::pin!(reader_gone);
        loop {
            tokio::select! {
                () = &mut reader_gone => return Ok(Received { ending: Ending::ReaderGone, end }),
                // Taking frames to the printer first keeps at most one read's worth waiting here.
                permit = frames.reserve(), if !self.waiting.is_empty() => {
                    let (Ok(permit), Some(frame)) = (permit, self.waiting.pop_front()) else {
                        return Ok(Received { ending: Ending::Complete, end });
                    };
                    let is_last = matches!(frame, Frame::Trailer(_));
                    permit.send(frame);
                    if is_last {
                        return Ok(Received { ending: Ending::Complete, end });
                    }
                    silent_from = Instant::now() + silence;
                }
                // The printer ends early only if it cannot write; why is for its own result to say.
                () = frames.closed() => return Ok(Received { ending: Ending::Complete, end }),
                read = self.output.read(&mut buffer), if self.waiting.is_empty() => {
                    silent_from = Instant::now() + silence;
                    let read = read.context("cannot read from the agent")?;
                    if read == 0 {
                        self.decoder.finish().context("the agent broke off")?;
                        return Ok(Received { ending: Ending::BrokenOff, end });
                    }
                    self.decoder.push(&buffer[..read]);
                    self.sort_frames()?;
                    if self.greeted && stop_at.is_none() {
                        stop_at = timeout.map(|timeout| Instant::now() + timeout);
                    }
                }
                () = sleep_until(silent_from), if self.waiting.is_empty() => {
                    bail!("the agent has not been heard of for {SILENCE_SECONDS} s");
                }
                _ = heartbeat.tick() => self.say(&Frame::Heartbeat(Heartbeat::default())).await,
                () = sleep_until(stop_at.unwrap_or_else(Instant::now)), if stop_at.is_some() && !stopped => {
                    stopped = true;
                    self.say(&Frame::Stop).await;
                }
                number = async { tokio::select! {
                    _ = interrupted.recv() => SIGINT,
                    _ = terminated.recv() => SIGTERM,
                } } => {
                    let again = end != End::Done;
                    end = End::Signal(number);
                    if again || !self.greeted {
                        return Ok(Received { ending: Ending::Abandoned, end });
                    }
                    stopped = true;
                    self.say(&Frame::Stop).await;
                }
            }
        }
    }

    /// Puts what the decoder has into the queue for the printer.
    fn sort_frames(&mut self) -> anyhow::Result<()> {
        while let Some(frame) = self.decoder.next_frame().context("the agent sends what is no frame")? {
            match frame {
                Frame::Error(failure) => return Err(AgentFailure(failure).into()),
                Frame::Hello(_) => self.greeted = true,
                _ if !self.greeted => bail!("the agent's first frame is {}, not hello", frame.name()),
                Frame::Stop => bail!("the agent sent a frame that is not for it to send: stop"),
                _ => {}
            }
            self.waiting.push_back(frame);
        }
        Ok(())
    }
}
