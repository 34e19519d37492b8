//! Agents that lie: no frame, record or name of theirs crashes the client, or gets at the user's terminal.

use futures::future::join_all;
use gadgets::record::HEADER_SIZE;
use gadgets::wire::{
    CgroupEntry, Clock, Dictionary, FailureKind, Frame, Gap, Heartbeat, Hello, Loss, MAX_PAYLOAD, Node, Stage, Status,
    Trailer, VERSION,
};
use serde_json::Value;

use crate::client::Client;
use tests::fake::{Answer, CGROUP, FakeAgent, FakeCluster, now};

const NODES: [&str; 2] = ["node-a", "node-b"];
/// Clears the screen, renames the window, rings, begins a line anew, colours by a C1 sequence, reorders, hides.
const TRICK: &str = "\x1b[2J\x1b]0;owned\x07\r\u{9b}31m\u{202e}\u{200b}";

fn frame(length: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], &[kind], payload].concat()
}

/// An agent that has (or has not) greeted says these bytes: the client says why it does not go on with it, and does
/// with the other.
async fn says(greeted: bool, bytes: Vec<u8>, words: &str) {
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &["--timeout", "500ms"]);
    let [mut b] = fake.agents(["node-b"]).await;
    let mut a = fake.agent("node-a").await;
    if greeted {
        a.greet().await;
    } else {
        a.hear_hello().await;
    }
    fake.answer("agent-of-node-a/exec", Answer::Http(500, "gone".into()));
    a.say(&bytes).await;
    a.until_left().await;
    client.until_says(words).await;
    b.exec("1").await;
    client.until_exec("1").await;
    b.finish().await;
    let ended = client.end().await;
    ended.must_say(&["node-a"]);
    ended.must_be(1);
    let gaps: Vec<&Value> = ended.of_type("gap").iter().map(|gap| &gap["node"]).collect();
    assert_eq!(gaps, ["node-a"]);
}

#[tokio::test]
async fn what_is_no_frame() {
    let batch = Frame::Batch(Vec::new()).encode().unwrap();
    let cases = [
        (true, frame(MAX_PAYLOAD as u32 + 1, 4, &[]), "at most 1048576"),
        (false, frame(u32::MAX, 1, &[]), "at most 1048576"),
        (true, frame(0, 77, &[]), "unknown type 77"),
        (true, frame(3, 2, b"abc"), "malformed schema frame"),
        (false, b"OCI runtime exec failed: no such file\n".to_vec(), "no frame"),
        (false, batch, "first frame is batch, not hello"),
        (true, Frame::Stop.encode().unwrap(), "not for it to send"),
    ];
    join_all(cases.into_iter().map(|(greeted, bytes, words)| says(greeted, bytes, words))).await;
}

fn with_size(mut record: Vec<u8>, size: u32) -> Vec<u8> {
    record[0..4].copy_from_slice(&size.to_le_bytes());
    record
}

#[tokio::test]
async fn records_that_lie_about_their_size() {
    let sizes = [0, 1, HEADER_SIZE as u32 - 1, 1 << 20, u32::MAX];
    join_all(sizes.map(async |size| {
        let fake = FakeCluster::of(&["node-a"]).await;
        let client = Client::start(&fake, &["--timeout", "200ms"]);
        let [mut a] = fake.agents(["node-a"]).await;
        let record = a.record(now(), "ls", &[]);
        a.batch(3, [record.clone(), with_size(record.clone(), size), record].concat()).await;
        a.exec("after").await;
        a.finish().await;
        let ended = client.end().await;
        ended.must_be(1);
        assert_eq!(ended.programs(), ["ls", "after"], "size {size}");
        assert_eq!(ended.summary()["complete"], false);
        ended.must_say(&["incomplete", "2 events came of 4"]);
    }))
    .await;
}

#[tokio::test]
async fn records_whose_inside_lies() {
    let fake = FakeCluster::of(&["node-a"]).await;
    let client = Client::start(&fake, &["--timeout", "200ms"]);
    let [mut a] = fake.agents(["node-a"]).await;
    let record = a.record(now(), "ls", &[b"ls"]);
    // Its head and no field; half of the fields; tails that point anywhere.
    let head = with_size(record[..HEADER_SIZE].to_vec(), HEADER_SIZE as u32);
    let half = with_size(record[..HEADER_SIZE + 10].to_vec(), HEADER_SIZE as u32 + 10);
    let mut wild = record.clone();
    wild[HEADER_SIZE..].fill(0xff);
    // A stream that the schema has not, a time at the end of all times.
    let mut other = record.clone();
    other[4] = 99;
    let mut late = record.clone();
    late[8..16].fill(0xff);
    for record in [head, half, wild, other, late, record] {
        a.batch(1, record).await;
    }
    a.finish().await;
    let ended = client.end().await;
    ended.must_be(0);
    assert_eq!(ended.of_type("event").len(), 6);
}

/// Frames that an agent may send at a wrong time, or with what makes no sense.
fn oddities() -> Vec<Frame> {
    let clock = Clock { boot_ns: u64::MAX, wall_ns: u64::MAX };
    let node = Node { name: "elsewhere".into(), clock, ..Node::default() };
    let hello = |node| Frame::Hello(Box::new(Hello { version: VERSION, node, ..Hello::default() }));
    let loss = Loss {
        stage: Stage::Other,
        reason: String::new(),
        namespace: None,
        pod: None,
        from_ns: u64::MAX,
        to_ns: 0,
        count: 1 << 40,
    };
    vec![
        Frame::Batch(vec![0xff; 100]),
        Frame::Status(Box::default()),
        Frame::Status(Box::new(Status { pods: Some(u64::MAX), ..Status::default() })),
        Frame::Heartbeat(Heartbeat { clock: Some(clock), complete_to_ns: Some(u64::MAX), allowed: None }),
        Frame::Loss(loss),
        Frame::Gap(Gap { from_ns: u64::MAX, to_ns: 0, reason: String::new() }),
        Frame::Dictionary(Dictionary {
            cgroups: vec![CgroupEntry::default()],
            gone: vec![0, CGROUP, u64::MAX],
            ..Dictionary::default()
        }),
        hello(Some(node)),
        hello(None),
        Frame::Schema(gadgets::schema::Schema { streams: Vec::new() }),
    ]
}

#[tokio::test]
async fn frames_in_any_order() {
    let count = oddities().len();
    join_all((0..count).map(async |turn| {
        let fake = FakeCluster::of(&["node-a"]).await;
        let client = Client::start_as(&fake, &["--timeout", "200ms"]);
        let mut a = fake.agent("node-a").await;
        a.hear_hello().await;
        // Before the schema, and after it.
        a.send(&a.hello(VERSION)).await;
        let mut frames = oddities();
        frames.rotate_left(turn);
        for frame in &frames {
            a.send(frame).await;
        }
        a.introduce().await;
        for frame in &frames {
            a.send(frame).await;
        }
        a.exec("ls").await;
        a.hear_until(&Frame::Stop).await;
        a.send(&Frame::Trailer(Trailer { records: u64::MAX, lost: 1, gaps: 7 })).await;
        a.exit(0).await;
        let (_, ended) = client.text().await;
        ended.must_be(1);
        ended.must_say(&["incomplete"]);
    }))
    .await;
}

/// Says all that an agent can choose the text of.
async fn trick(a: &mut FakeAgent) {
    a.hear_hello().await;
    let node = Node {
        name: format!("node{TRICK}"),
        kernel: TRICK.into(),
        clock: Clock { boot_ns: 1, wall_ns: now() },
        variants: [(TRICK.to_owned(), TRICK.to_owned())].into(),
        degraded: vec![format!("degraded{TRICK}")],
    };
    let software = TRICK.to_owned();
    a.send(&Frame::Hello(Box::new(Hello { version: VERSION, software, node: Some(node), ..Hello::default() }))).await;
    let text = || Some(TRICK.to_owned());
    let entry = CgroupEntry {
        cgroup: CGROUP,
        path: TRICK.into(),
        namespace: text(),
        pod: text(),
        pod_uid: text(),
        container: text(),
        container_id: text(),
        labels: [(TRICK.to_owned(), TRICK.to_owned())].into(),
        owner: text(),
        sandbox: false,
    };
    a.introduce().await;
    a.send(&Frame::Dictionary(Dictionary { cgroups: vec![entry], ..Dictionary::default() })).await;
    let record = a.record(now(), TRICK, &[TRICK.as_bytes(), b"\xff\xfe\x1b[1m", b"line\nline"]);
    a.batch(1, record).await;
    let (namespace, pod) = (text(), text());
    let reason = || TRICK.to_owned();
    a.send(&Frame::Loss(Loss {
        stage: Stage::Stream,
        reason: reason(),
        namespace,
        pod,
        from_ns: 1,
        to_ns: 2,
        count: 1,
    }))
    .await;
    a.send(&Frame::Gap(Gap { from_ns: 1, to_ns: 2, reason: reason() })).await;
    a.complain(TRICK.as_bytes()).await;
    a.hear_until(&Frame::Stop).await;
    a.send(&Frame::Trailer(Trailer { records: 1, lost: 1, gaps: 1 })).await;
}

fn must_be_safe(text: &str) {
    let unsafe_one =
        |character: char| character != '\n' && character.is_control() || ['\u{202e}', '\u{200b}'].contains(&character);
    assert_eq!(text.chars().find(|character| unsafe_one(*character)), None, "{text:?}");
}

#[tokio::test]
async fn names_that_a_terminal_would_obey() {
    let columns = "node,namespace,pod,container,owner,labels,time,comm,file,args";
    for args in [&["--columns", columns][..], &["-o", "json"]] {
        let fake = FakeCluster::of(&["node-a"]).await;
        let client = Client::start_as(&fake, &[&["--timeout", "500ms"], args].concat());
        let mut a = fake.agent("node-a").await;
        trick(&mut a).await;
        a.exit(0).await;
        let (text, ended) = client.text().await;
        ended.must_be(0);
        assert!(text.contains("[2J"), "{text}");
        assert!(ended.said.contains("1 events"), "{}", ended.said);
        must_be_safe(&text);
        must_be_safe(&ended.said);
    }
}

#[tokio::test]
async fn complaints_that_a_terminal_would_obey() {
    // In a refusal, on standard error, and in what a server says.
    for case in 0..3 {
        let fake = FakeCluster::of(&["node-a"]).await;
        if case == 2 {
            fake.answer("/pods?", Answer::Http(500, format!("sorry {TRICK}")));
        }
        let client = Client::start_as(&fake, &["--timeout", "500ms"]);
        match case {
            0 => fake.agent("node-a").await.refuse(FailureKind::Unsupported, &format!("sorry {TRICK}")).await,
            1 => {
                let a = fake.agent("node-a").await;
                a.complain(format!("sorry {TRICK}").as_bytes()).await;
                a.exit(1).await;
            }
            _ => {}
        }
        let (_, ended) = client.text().await;
        ended.must_be(1);
        ended.must_say(&["sorry "]);
        must_be_safe(&ended.said);
    }
}
