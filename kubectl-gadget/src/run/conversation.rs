//! One session with one agent: what is said, what comes back, and how it ends.
//!
//! Frames are taken as fast as they come, whether or not somebody reads the output: a connection through an API server
//! is one stream of messages, and its signs of life must not wait.

use std::time::Duration;

use gadgets::decoder::Decoder;
use gadgets::spec::RunSpec;
use gadgets::wire::{
    Failure, FailureKind, Frame, HEARTBEAT_SECONDS, Heartbeat, Hello, RecordingsRequest, Resume, SILENCE_SECONDS,
    VERSION, WireError,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::allowance::Allowance;
use super::connection::Connection;

/// How long the agent may take to load a gadget and answer.
const GREETING: Duration = Duration::from_secs(30);
/// How long it may be silent after it was told to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a session ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The trailer came.
    Complete,
    /// The agent said that it cannot go on.
    Refused(Failure),
    /// It went away, or said what is no frame. In words, why; and whether it had greeted.
    Broken { why: String, greeted: bool },
}

/// What is wanted of an agent.
pub(crate) enum Request {
    /// A run, which may go on from a session that broke off.
    Run(Box<RunSpec>, Option<Resume>, Allowance),
    Status,
    Recordings(RecordingsRequest),
}

impl Request {
    fn hello(self) -> (Frame, Option<Allowance>) {
        let (hello, allowance) = match self {
            Self::Run(run, resume, mut allowance) => {
                let allowed = Some(allowance.tell());
                (Hello { run: Some(*run), resume, allowed, ..Hello::default() }, Some(allowance))
            }
            Self::Recordings(request) => (Hello { recordings: Some(request), ..Hello::default() }, None),
            Self::Status => (Hello { status: true, ..Hello::default() }, None),
        };
        let software = env!("CARGO_PKG_VERSION").to_owned();
        (Frame::Hello(Box::new(Hello { version: VERSION, software, ..hello })), allowance)
    }
}

/// Holds a session until it ends, which it is asked to once `stop` is true. Frames go to `deliver`, from the agent's
/// Hello to its Trailer.
pub(crate) async fn hold(
    mut connection: Connection,
    request: Request,
    stop: watch::Receiver<bool>,
    deliver: impl FnMut(Frame),
) -> Ending {
    let mut conversation = Conversation { decoder: Decoder::default(), greeted: false, deliver };
    let ending = conversation.hold(&mut connection, request, stop).await;
    let last_words = connection.close(ending.is_err()).await;
    let greeted = conversation.greeted;
    match ending {
        Ok(ending) => ending,
        Err(why) => {
            let why = last_words.map(|words| format!("{why} ({words})")).unwrap_or(why);
            Ending::Broken { why, greeted }
        }
    }
}

struct Conversation<D> {
    decoder: Decoder,
    greeted: bool,
    deliver: D,
}

impl<D: FnMut(Frame)> Conversation<D> {
    async fn hold(
        &mut self,
        connection: &mut Connection,
        request: Request,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Ending, String> {
        let mut heartbeat = interval(Duration::from_secs(HEARTBEAT_SECONDS));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut silence = GREETING;
        let mut silent_from = Instant::now() + silence;
        let mut stopped = false;
        let mut buffer = vec![0; 64 << 10];
        let (hello, mut allowance) = request.hello();
        say(connection, &hello, silent_from).await;
        loop {
            tokio::select! {
                read = connection.output.read(&mut buffer) => {
                    let read = read.map_err(|error| format!("cannot read from the agent: {error}"))?;
                    if read == 0 {
                        return Err(match self.decoder.finish() {
                            Err(error) => format!("the agent broke off: {error}"),
                            Ok(()) if self.greeted => "the agent ended without saying that this was all".into(),
                            Ok(()) => "the agent ended without a word".into(),
                        });
                    }
                    self.decoder.push(&buffer[..read]);
                    if let Some(ending) = self.take_frames()? {
                        return Ok(ending);
                    }
                    if self.greeted && !stopped {
                        silence = Duration::from_secs(SILENCE_SECONDS);
                    }
                    silent_from = Instant::now() + silence;
                }
                () = sleep_until(silent_from) => {
                    return Err(format!("the agent has not been heard of for {} s", silence.as_secs()));
                }
                () = due(&mut heartbeat, &mut allowance) => {
                    let allowed = allowance.as_mut().map(Allowance::tell);
                    say(connection, &Frame::Heartbeat(Heartbeat { allowed, ..Heartbeat::default() }), silent_from).await;
                }
                () = asked(&mut stop), if !stopped => {
                    stopped = true;
                    silence = FAREWELL;
                    silent_from = Instant::now() + silence;
                    say(connection, &Frame::Stop, silent_from).await;
                }
            }
        }
    }

    /// Hands on what the decoder has. Returns how the session ended, if it did.
    fn take_frames(&mut self) -> Result<Option<Ending>, String> {
        loop {
            let frame = match self.decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                // It will not be another the next time.
                Err(error @ WireError::Version { .. }) => {
                    let message = error.to_string();
                    return Ok(Some(Ending::Refused(Failure { kind: FailureKind::Protocol, message })));
                }
                Err(error) => return Err(format!("the agent sends what is no frame: {error}")),
            };
            match frame {
                Frame::Error(failure) => return Ok(Some(Ending::Refused(failure))),
                Frame::Hello(_) => self.greeted = true,
                _ if !self.greeted => return Err(format!("the agent's first frame is {}, not hello", frame.name())),
                Frame::Stop => return Err("the agent sent a frame that is not for it to send: stop".into()),
                _ => {}
            }
            let is_last = matches!(frame, Frame::Trailer(_));
            (self.deliver)(frame);
            if is_last {
                return Ok(Some(Ending::Complete));
            }
        }
    }
}

/// Waits until a sign of life is due, or much more may be sent.
async fn due(heartbeat: &mut Interval, allowance: &mut Option<Allowance>) {
    let grow = async {
        match allowance {
            Some(allowance) => allowance.grow().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = heartbeat.tick() => {}
        () = grow => {}
    }
}

/// Waits until the end is asked for.
pub(super) async fn asked(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could ask is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Sends a frame. An agent that is gone is noticed where its answers are read.
async fn say(connection: &mut Connection, frame: &Frame, until: Instant) {
    if let Ok(bytes) = frame.encode() {
        let written = async {
            connection.input.write_all(&bytes).await?;
            connection.input.flush().await
        };
        let _ = timeout_at(until, written).await;
    }
}
