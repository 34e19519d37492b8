//! A fake agent: one session, in which the test says what the agent says.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use gadgets::decoder::Decoder;
use gadgets::record::HEADER_SIZE;
use gadgets::schema::Schema;
use gadgets::wire::{
    CgroupEntry, Clock, Dictionary, Failure, FailureKind, Frame, Heartbeat, Hello, Node, Trailer, VERSION,
};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::interval;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{now, within};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// Bytes of a message, as nodes cut a stream.
const PORTION: usize = 32 << 10;
const HEARTBEAT: Duration = Duration::from_millis(100);

/// The cgroup that all execs are of.
pub const CGROUP: u64 = 7;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let object = bpf::object("execsnoop").expect("an object");
    Schema::from_object(object).expect("a schema")
});

type Socket = WebSocketStream<TcpStream>;

/// One session. Dropped, its connection is cut, without a word.
pub struct FakeAgent {
    /// Where it is.
    pub node: String,
    voice: Voice,
    /// What the client says; ends when the client does.
    heard: mpsc::UnboundedReceiver<Frame>,
    /// Bytes of batches that the client can take, by its word, and those that it was sent.
    allowed: watch::Receiver<u64>,
    sent_bytes: u64,
    tasks: JoinSet<()>,
    heart: Option<AbortHandle>,
    sent: u64,
    /// What the session is called.
    pub session: u64,
}

/// What can speak for the agent.
#[derive(Clone)]
struct Voice {
    sink: Arc<Mutex<SplitSink<Socket, Message>>>,
    /// When the node was started, ns since 1970: each has a clock of its own.
    booted: u64,
    /// The time of the last record that was sent.
    complete_to: Arc<AtomicU64>,
}

impl Voice {
    fn clock(&self) -> Clock {
        let wall_ns = now();
        Clock { boot_ns: wall_ns - self.booted, wall_ns }
    }

    async fn say(&self, channel: u8, bytes: &[u8]) {
        let mut sink = self.sink.lock().await;
        for portion in bytes.chunks(PORTION) {
            let message = Message::binary([&[channel], portion].concat());
            // A client that is gone is noticed where it is listened to.
            let _ = within("the client to read", sink.send(message)).await;
        }
    }
}

impl FakeAgent {
    /// Behind a connection.
    pub(super) fn new(node: &str, socket: Socket) -> Self {
        let (sink, stream) = socket.split();
        let (sender, heard) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let (allow, allowed) = watch::channel(0);
        tasks.spawn(listen(stream, sender, allow));
        let uptime: u64 = node.bytes().map(|byte| u64::from(byte) * 1_000_000_000).sum();
        let voice = Voice { sink: Arc::new(Mutex::new(sink)), booted: now() - uptime, complete_to: Arc::default() };
        Self {
            node: node.to_owned(),
            voice,
            heard,
            tasks,
            heart: None,
            sent: 0,
            allowed,
            sent_bytes: 0,
            session: now(),
        }
    }

    /// Hears the client's Hello and says what comes before the first record.
    pub async fn greet(&mut self) -> Hello {
        let hello = self.hear_hello().await;
        self.send(&self.hello(VERSION)).await;
        self.introduce().await;
        hello
    }

    /// The client's Hello.
    pub async fn hear_hello(&mut self) -> Hello {
        let heard = within("the client's Hello", self.heard.recv()).await;
        let Some(Frame::Hello(hello)) = heard else { panic!("a client begins with Hello") };
        *hello
    }

    /// An agent's Hello.
    pub fn hello(&self, version: u16) -> Frame {
        let node = Node { name: self.node.clone(), clock: self.voice.clock(), ..Node::default() };
        let session = Some(self.session);
        Frame::Hello(Box::new(Hello { version, node: Some(node), session, ..Hello::default() }))
    }

    /// Schema and dictionary, and signs of life from now on.
    pub async fn introduce(&mut self) {
        self.send(&Frame::Schema(SCHEMA.clone())).await;
        let entry = CgroupEntry {
            cgroup: CGROUP,
            namespace: Some("shop".into()),
            pod: Some(format!("web-of-{}", self.node)),
            ..CgroupEntry::default()
        };
        self.send(&Frame::Dictionary(Dictionary { cgroups: vec![entry], ..Dictionary::default() })).await;
        let voice = self.voice.clone();
        self.heart = Some(self.tasks.spawn(async move {
            let mut interval = interval(HEARTBEAT);
            loop {
                interval.tick().await;
                let complete_to_ns = Some(voice.complete_to.load(Ordering::Relaxed));
                let heartbeat = Heartbeat { clock: Some(voice.clock()), complete_to_ns, allowed: None };
                voice.say(STDOUT, &Frame::Heartbeat(heartbeat).encode().unwrap()).await;
            }
        }));
    }

    /// Says nothing more by itself.
    pub fn fall_silent(&mut self) {
        if let Some(heart) = self.heart.take() {
            heart.abort();
        }
    }

    /// Says a frame.
    pub async fn send(&self, frame: &Frame) {
        self.say(&frame.encode().unwrap()).await;
    }

    /// Writes to standard output.
    pub async fn say(&self, bytes: &[u8]) {
        self.voice.say(STDOUT, bytes).await;
    }

    /// Writes to standard error.
    pub async fn complain(&self, bytes: &[u8]) {
        self.voice.say(STDERR, bytes).await;
    }

    /// Sends an exec of this program, of now.
    pub async fn exec(&mut self, program: &str) {
        self.execs(&[(now(), program)]).await;
    }

    /// Sends execs of these programs, in one batch.
    pub async fn execs(&mut self, execs: &[(u64, &str)]) {
        let batch = execs.iter().flat_map(|(wall_ns, program)| self.record(*wall_ns, program, &[program.as_bytes()]));
        self.send(&Frame::Batch(batch.collect())).await;
        self.sent += execs.len() as u64;
        let last = execs.last().map_or(0, |(wall_ns, _)| wall_ns - self.voice.booted);
        self.voice.complete_to.fetch_max(last, Ordering::Relaxed);
    }

    /// Says that everything of before this was sent.
    pub async fn is_complete_to(&self, wall_ns: u64) {
        let complete_to_ns = Some(wall_ns - self.voice.booted);
        self.send(&Frame::Heartbeat(Heartbeat { complete_to_ns, ..Heartbeat::default() })).await;
    }

    /// Sends a batch of so many records.
    pub async fn batch(&mut self, records: u64, batch: Vec<u8>) {
        self.send(&Frame::Batch(batch)).await;
        self.sent += records;
    }

    /// The same, once the client can take it.
    pub async fn batch_when_allowed(&mut self, records: u64, batch: Vec<u8>) {
        let sent = self.sent_bytes;
        // A client that is gone is noticed where it is listened to.
        let _ = within("the client to take more", self.allowed.wait_for(|allowed| *allowed > sent)).await;
        self.sent_bytes += batch.len() as u64;
        self.batch(records, batch).await;
    }

    /// An exec's record.
    pub fn record(&self, wall_ns: u64, program: &str, args: &[&[u8]]) -> Vec<u8> {
        record(self.boot_ns(wall_ns), program, args)
    }

    /// What a record of this time has as its own, on this node's clock.
    pub fn boot_ns(&self, wall_ns: u64) -> u64 {
        wall_ns.wrapping_sub(self.voice.booted)
    }

    /// How many records were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Waits until the client says such a frame.
    pub async fn hear_until(&mut self, wanted: &Frame) {
        let is_wanted = |frame: &Frame| std::mem::discriminant(frame) == std::mem::discriminant(wanted);
        let what = format!("the client to say {} to {}", wanted.name(), self.node);
        let heard =
            async { while !is_wanted(&self.heard.recv().await.unwrap_or_else(|| panic!("{what}: it left"))) {} };
        within(&what, heard).await;
    }

    /// Waits until the client is gone.
    pub async fn until_left(&mut self) {
        within("the client to leave", async { while self.heard.recv().await.is_some() {} }).await;
    }

    /// Forgets what the client has said so far.
    pub fn forget(&mut self) {
        while self.heard.try_recv().is_ok() {}
    }

    /// Says that this was all.
    pub async fn conclude(&mut self) {
        self.fall_silent();
        self.send(&Frame::Trailer(Trailer { records: self.sent, ..Trailer::default() })).await;
    }

    /// Ends as a process does, and waits until the client has noticed.
    pub async fn exit(mut self, code: i32) {
        self.fall_silent();
        let status = match code {
            0 => json!({"metadata": {}, "status": "Success"}),
            _ => json!({
                "metadata": {},
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit code {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
        };
        self.voice.say(STATUS, status.to_string().as_bytes()).await;
        let _ = self.voice.sink.lock().await.close().await;
        self.until_left().await;
    }

    /// Waits until the client wants no more, and ends as it should.
    pub async fn finish(mut self) {
        self.hear_until(&Frame::Stop).await;
        self.conclude().await;
        self.exit(0).await;
    }

    /// Hears the client's Hello, refuses, and ends.
    pub async fn refuse(mut self, kind: FailureKind, message: &str) {
        self.hear_hello().await;
        self.send(&Frame::Error(Failure { kind, message: message.to_owned() })).await;
        self.exit(1).await;
    }
}

/// Reads what the client says until it ends.
async fn listen(mut stream: SplitStream<Socket>, heard: mpsc::UnboundedSender<Frame>, allow: watch::Sender<u64>) {
    let mut decoder = Decoder::default();
    while let Some(Ok(message)) = stream.next().await {
        let Message::Binary(bytes) = message else { continue };
        let Some((&STDIN, bytes)) = bytes.split_first() else { continue };
        decoder.push(bytes);
        while let Some(frame) = decoder.next_frame().unwrap() {
            let allowed = match &frame {
                Frame::Hello(hello) => hello.allowed,
                Frame::Heartbeat(heartbeat) => heartbeat.allowed,
                _ => None,
            };
            allowed.into_iter().for_each(|allowed| _ = allow.send_replace(allowed));
            if heard.send(frame).is_err() {
                return;
            }
        }
    }
}

fn record(boot_ns: u64, program: &str, args: &[&[u8]]) -> Vec<u8> {
    let stream = &SCHEMA.streams[0];
    let mut bytes = vec![0; stream.size as usize];
    let args: Vec<u8> = args.iter().flat_map(|arg| [arg, &b"\0"[..]].concat()).collect();
    let tail = |at: usize, length: usize| [(at as u16).to_le_bytes(), (length as u16).to_le_bytes()].concat();
    let values = [
        ("pid", 42u32.to_le_bytes().to_vec()),
        ("comm", program.bytes().take(15).collect()),
        ("file", tail(bytes.len(), program.len())),
        ("args", tail(bytes.len() + program.len(), args.len())),
    ];
    for (name, value) in values {
        let at = stream.field(name).unwrap().offset as usize;
        bytes[at..at + value.len()].copy_from_slice(&value);
    }
    bytes.extend_from_slice(program.as_bytes());
    bytes.extend_from_slice(&args);
    let size = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&size.to_le_bytes());
    bytes[4..6].copy_from_slice(&stream.id.to_le_bytes());
    bytes[8..16].copy_from_slice(&boot_ns.to_le_bytes());
    bytes[16..24].copy_from_slice(&CGROUP.to_le_bytes());
    debug_assert!(bytes.len() > HEADER_SIZE);
    bytes
}
