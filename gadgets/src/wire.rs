//! The frames of a session. All wire types live here, but for what is in dictionaries and what is said of recordings.
//!
//! A frame is `u32 length, u8 type, payload`, little-endian; `length` counts the payload and is at most
//! [`MAX_PAYLOAD`]. A [`Frame::Batch`] carries records as the kernel wrote them (see [`crate::record`]); every other
//! payload is JSON, whose unknown members are ignored, so that a version may add some.
//!
//! The client says [`Hello`] with the [`RunSpec`]; the agent answers with its own Hello, then the schema, then batches,
//! each dictionary entry before the first batch that needs it. Both send heartbeats. The client ends with Stop and
//! reads on to the [`Trailer`], after which nothing follows; a stream without one is incomplete. An [`Failure`] frame
//! ends a session too.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::dictionary::{
    ArgEntry, CgroupEntry, Dictionary, FrameEntry, StackEntry, StackFrame, SyscallEntry, UserStackEntry,
};
pub use crate::recordings::{ProcessEnd, Recorded, Recording, RecordingsRequest, is_recording_id};
use crate::schema::Schema;
use crate::spec::RunSpec;
use crate::tasks::TaskFilter;

/// Version of the frames. Peers whose versions differ by at most one understand each other.
pub const VERSION: u16 = 1;
/// Longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Seconds between heartbeats, in both directions, at most: several are in the time that makes a peer count as gone.
pub const HEARTBEAT_SECONDS: u64 = 3;
/// Seconds of silence after which a peer counts as gone.
pub const SILENCE_SECONDS: u64 = 10;

/// Bytes before a payload: its length, and the type.
pub(crate) const HEAD: usize = 5;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// First in each direction.
    Hello(Box<Hello>),
    /// What the records look like.
    Schema(Schema),
    /// Who is behind the cgroups of the records that follow.
    Dictionary(Dictionary),
    /// Records, back to back.
    Batch(Vec<u8>),
    /// Records that were lost, and where.
    Loss(Loss),
    /// A time in which an unknown number may be missing.
    Gap(Gap),
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// The client wants no more.
    Stop,
    /// The agent has sent everything.
    Trailer(Trailer),
    /// The agent cannot go on.
    Error(Failure),
    /// What the agent says of itself, if it was asked for that instead of a run.
    Status(Box<Status>),
    /// One of the agent's recordings, if it was asked about these.
    Recording(Box<Recording>),
}

/// Who speaks, and what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u16,
    /// Version of the sender's program.
    #[serde(default)]
    pub software: String,
    /// From the client: the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunSpec>,
    /// From the client: the session that broke off, which this one goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// From the client: see [`Heartbeat::allowed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<u64>,
    /// From the client: it wants no run, but the agent's [`Status`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub status: bool,
    /// From the client: it wants no run, but something about recordings. The answer is those that there are then, each in a frame of
    /// its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recordings: Option<RecordingsRequest>,
    /// From the client: proof that it may see what it asks for. No agent asks for one yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<serde_json::Value>,
    /// From the agent: where it runs, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
    /// From the agent: what to call this session in [`Resume`]. No two have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
}

/// What arrived of a session that broke off. The agent goes on counting for it for some seconds, so that the session that
/// goes on from it can tell exactly what was lost between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// [`Hello::session`].
    pub session: u64,
    /// Records that arrived.
    pub records: u64,
    /// Lost records of which was told.
    pub lost: u64,
}

/// Where a session's events come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The node's name, or the host's.
    pub name: String,
    /// Release of its kernel.
    #[serde(default)]
    pub kernel: String,
    /// Relates the records' times to the calendar.
    pub clock: Clock,
    /// For each hook of the gadget, the variant in use; empty for a hook that could not be had.
    #[serde(default)]
    pub variants: BTreeMap<String, String>,
    /// What does not work here, or less well, and why, in words.
    #[serde(default)]
    pub degraded: Vec<String>,
}

/// One moment on two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// CLOCK_BOOTTIME, ns.
    pub boot_ns: u64,
    /// Since 1970 in UTC, ns.
    pub wall_ns: u64,
}

impl Clock {
    /// The calendar time of a record's time, in ns since 1970.
    pub fn wall(&self, boot_ns: u64) -> u64 {
        self.wall_ns.wrapping_add(boot_ns).wrapping_sub(self.boot_ns)
    }
}

/// What an agent says of itself and its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Pods of this node that the agent knows from the API server; `None` if it does not ask there.
    pub pods: Option<u64>,
    /// Containers that it follows.
    pub containers: u64,
    /// Its gadgets, and how each attaches here.
    pub gadgets: Vec<GadgetStatus>,
    /// What it has loaded for sessions.
    pub running: Vec<Running>,
    /// All BPF programs of this kernel, its own included.
    pub programs: Vec<Program>,
    /// Why `programs` is empty, if it could not be read.
    pub programs_error: Option<String>,
}

/// How a gadget attaches on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GadgetStatus {
    /// Its name in the catalogue.
    pub name: String,
    /// For each hook, the variant that loads; empty for one that cannot be had.
    pub variants: BTreeMap<String, String>,
    /// What does not work, or less well, and why, in words.
    pub degraded: Vec<String>,
    /// Why it cannot be loaded at all.
    pub error: Option<String>,
}

/// A gadget that is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {
    /// Its name in the catalogue.
    pub gadget: String,
    /// Values of its constants.
    pub parameters: BTreeMap<String, u64>,
    /// Which tasks it is about.
    #[serde(skip_serializing_if = "TaskFilter::is_any")]
    pub tasks: TaskFilter,
    /// Size of its ring.
    pub ring_bytes: u32,
    /// All that it takes in the kernel: its ring, and what it has for each processor.
    pub kernel_bytes: u64,
    /// Sessions that share it.
    pub sessions: u64,
}

/// A BPF program that is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// The kernel's id.
    pub id: u32,
    /// Its name: at most 15 bytes.
    pub name: String,
    /// Its type, in lower case.
    pub kind: String,
    /// The kernel's function or tracepoint that it is attached to by BTF; empty for other kinds.
    pub hook: String,
    /// A process that holds it, as `comm[pid]`; empty if none does.
    pub holder: String,
    /// Whether it is this agent's.
    pub own: bool,
}

/// Where records can be lost. The names are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The gadget's ring in the kernel was full.
    KernelRing,
    /// A map of the gadget in the kernel was full.
    KernelMap,
    /// The recorder has written newer records over them.
    Recorder,
    /// The agent could not hold or hand on more.
    AgentQueue,
    /// On the way from the agent to the client.
    Stream,
    /// In the client.
    Client,
    /// A stage of a newer peer.
    #[serde(other)]
    Other,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KernelRing => "kernel ring",
            Self::KernelMap => "kernel map",
            Self::Recorder => "recorder",
            Self::AgentQueue => "agent queue",
            Self::Stream => "stream",
            Self::Client => "client",
            Self::Other => "unknown stage",
        })
    }
}

/// A number of lost records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Where.
    pub stage: Stage,
    /// Why, in words.
    pub reason: String,
    /// The pod whose records they were, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// See `namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// They were lost after this, CLOCK_BOOTTIME ns.
    pub from_ns: u64,
    /// They were lost before this, CLOCK_BOOTTIME ns.
    pub to_ns: u64,
    /// How many.
    pub count: u64,
}

/// A time in which records may be missing, nobody knows how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// From, CLOCK_BOOTTIME ns.
    pub from_ns: u64,
    /// To, CLOCK_BOOTTIME ns.
    pub to_ns: u64,
    /// Why, in words.
    pub reason: String,
}

/// A sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// From the agent: its clocks now.
    #[serde(default)]
    pub clock: Option<Clock>,
    /// From the agent: every record of before this was sent, CLOCK_BOOTTIME ns.
    #[serde(default)]
    pub complete_to_ns: Option<u64>,
    /// From the client: bytes of batches that the agent may have sent in this session, all together. It never shrinks. An
    /// agent may send one batch more; without it, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<u64>,
}

/// The end of a stream, and its sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// Records sent.
    pub records: u64,
    /// Records lost, all Loss frames together.
    pub lost: u64,
    /// Gap frames.
    #[serde(default)]
    pub gaps: u64,
}

/// Kinds of failure. The client turns them into advice and exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// What was asked for makes no sense.
    Usage,
    /// Something that was named does not exist.
    NotFound,
    /// The agent may not do it.
    Permission,
    /// This kernel or host cannot do it.
    Unsupported,
    /// The peers do not understand each other.
    Protocol,
    /// Too much is running already.
    Busy,
    /// The agent does not serve (yet).
    Unavailable,
    /// The agent's own fault.
    #[serde(other)]
    Internal,
}

/// Why the agent cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What sort.
    pub kind: FailureKind,
    /// What happened, why, and what to do next.
    pub message: String,
}

/// Why bytes are not frames.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// A frame claims to be longer than any may be.
    #[error("frame of {0} bytes: at most {MAX_PAYLOAD} are allowed")]
    Oversized(usize),
    /// A frame of no known type.
    #[error("frame of unknown type {0}")]
    UnknownType(u8),
    /// The stream ended inside a frame.
    #[error("the stream ended within a frame ({0} bytes of it came)")]
    Truncated(usize),
    /// A frame's payload is not what its type says.
    #[error("malformed {frame} frame: {reason}")]
    Malformed {
        /// Its type.
        frame: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The peer is too old or too new.
    #[error("the peer speaks version {theirs} of the protocol, this side {VERSION}: install versions that are closer")]
    Version {
        /// The peer's.
        theirs: u16,
    },
}

impl Frame {
    fn type_and_name(&self) -> (u8, &'static str) {
        match self {
            Self::Hello(_) => (1, "hello"),
            Self::Schema(_) => (2, "schema"),
            Self::Dictionary(_) => (3, "dictionary"),
            Self::Batch(_) => (4, "batch"),
            Self::Loss(_) => (5, "loss"),
            Self::Gap(_) => (6, "gap"),
            Self::Heartbeat(_) => (7, "heartbeat"),
            Self::Stop => (8, "stop"),
            Self::Trailer(_) => (9, "trailer"),
            Self::Error(_) => (10, "error"),
            Self::Status(_) => (11, "status"),
            Self::Recording(_) => (12, "recording"),
        }
    }

    /// The type's name, for messages.
    pub fn name(&self) -> &'static str {
        self.type_and_name().1
    }

    /// The frame's bytes.
    ///
    /// # Errors
    /// [`WireError::Oversized`] if the payload is longer than [`MAX_PAYLOAD`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        match self {
            Self::Hello(payload) => self.encode_json(payload.as_ref()),
            Self::Schema(payload) => self.encode_json(payload),
            Self::Dictionary(payload) => self.encode_json(payload),
            Self::Batch(payload) => self.encode_bytes(payload),
            Self::Loss(payload) => self.encode_json(payload),
            Self::Gap(payload) => self.encode_json(payload),
            Self::Heartbeat(payload) => self.encode_json(payload),
            Self::Stop => self.encode_bytes(&[]),
            Self::Trailer(payload) => self.encode_json(payload),
            Self::Error(payload) => self.encode_json(payload),
            Self::Status(payload) => self.encode_json(payload.as_ref()),
            Self::Recording(payload) => self.encode_json(payload.as_ref()),
        }
    }

    fn encode_json(&self, payload: &impl Serialize) -> Result<Vec<u8>, WireError> {
        let bytes = serde_json::to_vec(payload)
            .map_err(|error| WireError::Malformed { frame: self.name(), reason: error.to_string() })?;
        self.encode_bytes(&bytes)
    }

    fn encode_bytes(&self, payload: &[u8]) -> Result<Vec<u8>, WireError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(WireError::Oversized(payload.len()));
        }
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.push(self.type_and_name().0);
        bytes.extend_from_slice(payload);
        Ok(bytes)
    }

    pub(crate) fn decode(kind: u8, payload: &[u8]) -> Result<Self, WireError> {
        Ok(match kind {
            1 => Self::Hello(Box::new(decode_hello(payload)?)),
            2 => Self::Schema(decode_json("schema", payload)?),
            3 => Self::Dictionary(decode_json("dictionary", payload)?),
            4 => Self::Batch(payload.to_vec()),
            5 => Self::Loss(decode_json("loss", payload)?),
            6 => Self::Gap(decode_json("gap", payload)?),
            7 => Self::Heartbeat(decode_json("heartbeat", payload)?),
            8 => Self::Stop,
            9 => Self::Trailer(decode_json("trailer", payload)?),
            10 => Self::Error(decode_json("error", payload)?),
            11 => Self::Status(Box::new(decode_json("status", payload)?)),
            12 => Self::Recording(Box::new(decode_json("recording", payload)?)),
            other => return Err(WireError::UnknownType(other)),
        })
    }
}

fn decode_json<T: DeserializeOwned>(frame: &'static str, payload: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(payload).map_err(|error| WireError::Malformed { frame, reason: error.to_string() })
}

/// The version comes first: the rest of a Hello that is too far away may look like anything.
fn decode_hello(payload: &[u8]) -> Result<Hello, WireError> {
    #[derive(Deserialize)]
    struct Version {
        version: u16,
    }
    let Version { version } = decode_json("hello", payload)?;
    if version.abs_diff(VERSION) > 1 {
        return Err(WireError::Version { theirs: version });
    }
    decode_json("hello", payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::Decoder;
    use proptest::prelude::*;

    fn one_of_each() -> Vec<Frame> {
        let schema = Schema::from_object(bpf::object("execsnoop").expect("an object")).expect("a schema");
        let run = RunSpec { gadget: "execsnoop".into(), ..RunSpec::default() };
        let entry = CgroupEntry { cgroup: 7, path: "/a".into(), pod: Some("web".into()), ..CgroupEntry::default() };
        let stack = StackEntry { number: 8, frames: vec!["cap_capable+0x1".into()], cut: false };
        let user_stack =
            UserStackEntry { number: 9, frames: vec![1], cut: true, short: true, problem: Some("gone".into()) };
        let frame = StackFrame { function: Some("main".into()), line: Some(3), ..StackFrame::default() };
        let arg = ArgEntry { name: "fd".into(), kind: "unsigned int".into() };
        let syscall = SyscallEntry { number: 3, name: "close".into(), args: vec![arg] };
        let loss = Loss {
            stage: Stage::KernelRing,
            reason: "ring full".into(),
            namespace: None,
            pod: Some("web".into()),
            from_ns: 1,
            to_ns: 2,
            count: 3,
        };
        vec![
            Frame::Hello(Box::new(Hello { version: VERSION, run: Some(run), ..Hello::default() })),
            Frame::Schema(schema),
            Frame::Dictionary(Dictionary {
                cgroups: vec![entry],
                gone: vec![6],
                stacks_anew: true,
                stacks: vec![stack],
                user_stacks: vec![user_stack],
                frames: vec![FrameEntry { id: 1, frame }],
                syscalls: vec![syscall],
            }),
            Frame::Batch(vec![0, 1, 2, 255]),
            Frame::Loss(loss),
            Frame::Gap(Gap { from_ns: 1, to_ns: 2, reason: "why".into() }),
            Frame::Heartbeat(Heartbeat {
                clock: Some(Clock { boot_ns: 1, wall_ns: 2 }),
                complete_to_ns: Some(3),
                allowed: None,
            }),
            Frame::Stop,
            Frame::Trailer(Trailer { records: 4, lost: 5, gaps: 6 }),
            Frame::Error(Failure { kind: FailureKind::Usage, message: "no".into() }),
            Frame::Status(Box::new(Status { pods: Some(3), ..Status::default() })),
        ]
    }

    fn bytes_of(frames: &[Frame]) -> Vec<u8> {
        frames.iter().flat_map(|frame| frame.encode().expect("small")).collect()
    }

    fn hello(version: u16) -> Vec<u8> {
        Frame::Hello(Box::new(Hello { version, ..Hello::default() })).encode().expect("small")
    }

    #[test]
    fn neighbours_in_version_understand_each_other() {
        for (version, understood) in [(VERSION - 1, true), (VERSION, true), (VERSION + 1, true), (VERSION + 2, false)] {
            let mut decoder = Decoder::default();
            decoder.push(&hello(version));
            assert_eq!(decoder.next_frame().is_ok(), understood, "version {version}");
        }
    }

    #[test]
    fn a_distant_version_is_named_whatever_else_the_hello_holds() {
        let payload = br#"{"version":40,"run":"a shape nobody here knows"}"#;
        let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
        bytes.push(1);
        bytes.extend_from_slice(payload);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert_eq!(decoder.next_frame(), Err(WireError::Version { theirs: 40 }));
    }

    #[test]
    fn what_is_unknown_or_too_long_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 0, 99]);
        assert_eq!(decoder.next_frame(), Err(WireError::UnknownType(99)));
        let mut decoder = Decoder::default();
        decoder.push(&[255, 255, 255, 255, 4]);
        assert_eq!(decoder.next_frame(), Err(WireError::Oversized(u32::MAX as usize)));
        let long = Frame::Batch(vec![0; MAX_PAYLOAD + 1]);
        assert_eq!(long.encode(), Err(WireError::Oversized(MAX_PAYLOAD + 1)));
    }

    #[test]
    fn members_of_a_newer_peer_are_ignored() {
        let loss: Loss = serde_json::from_str(
            r#"{"stage":"teleporter","reason":"x","from_ns":0,"to_ns":1,"count":2,"colour":"red"}"#,
        )
        .expect("a loss");
        assert_eq!(loss.stage, Stage::Other);
    }

    proptest! {
        #[test]
        fn frames_survive_any_portions(cuts in proptest::collection::vec(1usize..200, 1..64)) {
            let frames = one_of_each();
            let bytes = bytes_of(&frames);
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(bytes.len());
                decoder.push(&bytes[at..end]);
                at = end;
                while let Some(frame) = decoder.next_frame().expect("frames") {
                    seen.push(frame);
                }
                if at == bytes.len() {
                    break;
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn a_stream_that_ends_early_says_so(keep in any::<prop::sample::Index>()) {
            let frames = one_of_each();
            let bytes = bytes_of(&frames);
            let keep = keep.index(bytes.len());
            let mut decoder = Decoder::default();
            decoder.push(&bytes[..keep]);
            let mut whole = 0;
            while let Some(frame) = decoder.next_frame().expect("frames") {
                whole += frame.encode().expect("small").len();
            }
            prop_assert_eq!(decoder.finish().is_ok(), whole == keep);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(portions in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut decoder = Decoder::default();
            'stream: for portion in portions {
                decoder.push(&portion);
                loop {
                    match decoder.next_frame() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
            }
        }

        #[test]
        fn damaged_frames_are_decoded_or_refused(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = bytes_of(&one_of_each());
            for (index, value) in damage {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
