//! Streams of several nodes: their order, and what happens when one is cut, silent, or ends too early.

use futures::future::{join, join_all};
use gadgets::format::rfc3339;
use gadgets::wire::{Clock, Frame, Heartbeat, Resume};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::client::{Client, Ended};
use tests::fake::{Answer, FakeCluster, V4, V5, now};

const NODES: [&str; 2] = ["node-a", "node-b"];

async fn two_nodes(protocol: &'static str) {
    let fake = FakeCluster::speaking(protocol, &NODES).await;
    let mut client = Client::start(&fake, &["--timeout", "500ms"]);
    let [mut a, mut b] = fake.agents(NODES).await;
    client.until_started(2).await;
    let start = now();
    // What comes later than by the time that a record is held may be out of order: here it all comes at once.
    client.signal(Signal::SIGSTOP);
    a.execs(&[(start, "1"), (start + 2000, "3"), (start + 5000, "6")]).await;
    b.execs(&[(start + 1000, "2"), (start + 3000, "4"), (start + 4000, "5")]).await;
    client.signal(Signal::SIGCONT);
    join(a.finish(), b.finish()).await;
    let ended = client.end().await;
    ended.must_be(0);
    assert_eq!(ended.programs(), ["1", "2", "3", "4", "5", "6"]);
    let event = ended.of_type("event")[1];
    assert_eq!(event["node"], "node-b");
    assert_eq!(event["pod"], "web-of-node-b");
    assert_eq!(event["time"], rfc3339(start + 1000));
    let summary = ended.summary();
    assert_eq!((&summary["events"], &summary["complete"]), (&6.into(), &true.into()));
    assert_eq!((&summary["lost"], &summary["gaps"]), (&0.into(), &0.into()));
    ended.must_say(&["6 events of 2 nodes, none lost"]);
}

/// Times are the node's calendar's, which somebody may set while it runs. Nothing is lost, and nobody waits for it.
#[tokio::test]
async fn a_clock_that_is_set() {
    const HOUR: u64 = 3_600_000_000_000;
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &["--timeout", "5s"]);
    let [mut a, mut b] = fake.agents(NODES).await;
    client.until_started(2).await;
    a.fall_silent();
    let mut set = Vec::new();
    for (wall_ns, program) in [(now() + HOUR, "forward"), (now() - HOUR, "back")] {
        let boot_ns = a.boot_ns(now());
        let clock = Some(Clock { boot_ns, wall_ns });
        a.send(&Frame::Heartbeat(Heartbeat { clock, complete_to_ns: Some(boot_ns), allowed: None })).await;
        a.exec(program).await;
        client.until_exec(program).await;
        b.exec("meanwhile").await;
        client.until_exec("meanwhile").await;
        set.push((wall_ns, program));
    }
    join(a.finish(), b.finish()).await;
    let ended = client.end().await;
    ended.must_be(0);
    assert_eq!(ended.programs(), ["forward", "meanwhile", "back", "meanwhile"]);
    for (event, (wall_ns, program)) in ended.of_type("event").into_iter().step_by(2).zip(set) {
        let time = event["time"].as_str().unwrap();
        assert!(*rfc3339(wall_ns) <= *time && *time < *rfc3339(wall_ns + HOUR / 60), "{program} at {time}");
    }
    assert_eq!((&ended.summary()["lost"], &ended.summary()["gaps"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn two_nodes_through_a_server_of_today() {
    two_nodes(V5).await;
}

#[tokio::test]
async fn two_nodes_through_an_old_server() {
    two_nodes(V4).await;
}

async fn cut(args: &[&str], code: i32) {
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &[&["--timeout", "5s"], args].concat());
    let [mut a, mut b] = fake.agents(NODES).await;
    client.until_started(2).await;
    a.exec("before").await;
    client.until_exec("before").await;
    let cut_at = now();
    let resume = Resume { session: a.session, records: 1, lost: 0 };
    drop(a);
    b.exec("meanwhile").await;
    client.until_exec("meanwhile").await;
    let mut a = fake.agent("node-a").await;
    // So that the agent can tell what was lost between.
    assert_eq!(a.greet().await.resume, Some(resume));
    a.exec("after").await;
    client.until_exec("after").await;
    join(a.finish(), b.finish()).await;
    let ended = client.end().await;
    ended.must_be(code);
    let [gap] = ended.of_type("gap")[..] else { panic!("one gap: {:?}", ended.lines) };
    assert_eq!(gap["node"], "node-a");
    let (from, to) = (gap["from"].as_str().unwrap(), gap["to"].as_str().unwrap());
    let cut_at = rfc3339(cut_at);
    assert!(from <= cut_at.as_str() && cut_at.as_str() <= to, "cut at {cut_at}: {gap}");
    assert_eq!(ended.summary()["gaps"], 1);
    assert_eq!(ended.programs(), ["before", "meanwhile", "after"]);
}

#[tokio::test]
async fn a_connection_that_is_cut_comes_back_with_a_gap() {
    join(cut(&[], 0), cut(&["--fail-on-loss"], 3)).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_and_stays_so() {
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &["--timeout", "1s"]);
    let [a, b] = fake.agents(NODES).await;
    client.until_started(2).await;
    fake.answer("agent-of-node-a/exec", Answer::Http(500, "no kubelet there".into()));
    drop(a);
    b.finish().await;
    must_be_incomplete(&client.end().await);
}

/// What a stream that broke off and did not come back leaves.
fn must_be_incomplete(ended: &Ended) {
    ended.must_be(1);
    ended.must_say(&["the stream is incomplete", "node-a"]);
    let [gap] = ended.of_type("gap")[..] else { panic!("one gap: {:?}", ended.lines) };
    assert_eq!(gap["node"], "node-a");
    assert_eq!(ended.summary()["complete"], false);
}

#[tokio::test]
async fn a_stream_that_falls_silent_holds_up_nobody_and_counts_as_lost() {
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &[]);
    let [mut a, mut b] = fake.agents(NODES).await;
    client.until_started(2).await;
    a.fall_silent();
    let silent_from = now();
    for program in ["1", "2", "3"] {
        b.exec(program).await;
        client.until_exec(program).await;
    }
    a.until_left().await;
    let mut again = fake.agent("node-a").await;
    again.greet().await;
    let gap = client.until("a gap", |line| line["type"] == "gap").await;
    assert_eq!(gap["node"], "node-a");
    assert!(gap["from"].as_str() <= Some(rfc3339(silent_from).as_str()), "{gap}");
    assert!(gap["reason"].as_str().unwrap().contains("not been heard of for 10 s"), "{gap}");
    client.signal(Signal::SIGINT);
    join(again.finish(), b.finish()).await;
    client.end().await.must_be(130);
}

/// An agent's process ends with success, but its stream with this.
async fn truncated(rest: &[u8], why: &str) {
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &["--timeout", "5s", "--fail-on-loss"]);
    let [mut a, b] = fake.agents(NODES).await;
    client.until_started(2).await;
    a.exec("before").await;
    a.say(rest).await;
    a.exit(0).await;
    let mut a = fake.agent("node-a").await;
    a.greet().await;
    let gap = client.until("a gap", |line| line["type"] == "gap").await;
    assert!(gap["reason"].as_str().unwrap().contains(why), "{gap}");
    a.exec("after").await;
    join(a.finish(), b.finish()).await;
    let ended = client.end().await;
    ended.must_be(3);
    assert_eq!(ended.programs(), ["before", "after"]);
    ended.must_say(&[why]);
}

#[tokio::test]
async fn a_stream_that_ends_without_saying_that_this_was_all() {
    let frame = Frame::Batch(vec![0; 100]).encode().unwrap();
    join(truncated(&[], "without saying that this was all"), truncated(&frame[..50], "ended within a frame")).await;
}

#[tokio::test]
async fn an_end_without_the_sums_is_none() {
    let fake = FakeCluster::of(&NODES).await;
    let client = Client::start(&fake, &["--timeout", "200ms"]);
    let [mut a, b] = fake.agents(NODES).await;
    a.hear_until(&Frame::Stop).await;
    join(a.exit(0), b.finish()).await;
    must_be_incomplete(&client.end().await);
}

#[tokio::test]
async fn a_stream_that_is_not_what_its_sums_say() {
    let fake = FakeCluster::of(&["node-a"]).await;
    let client = Client::start(&fake, &["--timeout", "200ms"]);
    let [mut a] = fake.agents(["node-a"]).await;
    a.exec("1").await;
    // As if one more had been sent, which a proxy has swallowed.
    a.batch(1, Vec::new()).await;
    a.finish().await;
    let ended = client.end().await;
    ended.must_be(1);
    ended.must_say(&["1 events came of 2", "node-a"]);
    let [loss] = ended.of_type("loss")[..] else { panic!("one loss: {:?}", ended.lines) };
    assert_eq!((&loss["stage"], &loss["count"]), (&"stream".into(), &1.into()));
    assert_eq!(ended.summary()["complete"], false);
}

#[tokio::test]
async fn a_flood_of_complaints_holds_up_nothing() {
    let fake = FakeCluster::of(&["node-a"]).await;
    let mut client = Client::start(&fake, &["--timeout", "500ms"]);
    let mut a = fake.agent("node-a").await;
    let flood = b"warning: nobody reads this\n".repeat(100_000);
    a.complain(&flood).await;
    a.greet().await;
    let programs = ["1", "2", "3", "4"];
    for program in programs {
        a.complain(&flood).await;
        a.exec(program).await;
        client.until_exec(program).await;
    }
    a.finish().await;
    let ended = client.end().await;
    ended.must_be(0);
    assert_eq!(ended.programs(), programs);
}

#[tokio::test]
async fn a_hundred_nodes() {
    const ROUNDS: usize = 100;
    const EVENTS: u64 = 10;
    let nodes: Vec<String> = (0..100).map(|node| format!("node-{node}")).collect();
    let fake = FakeCluster::of(&nodes.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut client = Client::start(&fake, &[]);
    let mut agents = join_all(nodes.iter().map(async |node| {
        let mut agent = fake.agent(node).await;
        agent.greet().await;
        agent
    }))
    .await;
    client.until_started(nodes.len()).await;
    for _ in 0..ROUNDS {
        let start = now();
        // As in two_nodes.
        client.signal(Signal::SIGSTOP);
        for (offset, agent) in (0..).zip(&mut agents) {
            let times = (0..EVENTS).map(|event| start + event * 1000 + offset);
            agent.execs(&times.map(|time| (time, "ls")).collect::<Vec<_>>()).await;
            agent.is_complete_to(start + EVENTS * 1000).await;
        }
        client.signal(Signal::SIGCONT);
        for _ in 0..EVENTS * nodes.len() as u64 {
            client.until("an event", |line| line["type"] == "event").await;
        }
    }
    client.signal(Signal::SIGINT);
    join_all(agents.into_iter().map(|agent| agent.finish())).await;
    let ended = client.end().await;
    ended.must_be(130);
    let summary = ended.summary();
    assert_eq!((&summary["lost"], &summary["gaps"], &summary["complete"]), (&0.into(), &0.into(), &true.into()));

    let events: Vec<(&str, &str)> = ended.of_type("event").iter().map(|event| node_and_time(event)).collect();
    let rounds = events.chunks(EVENTS as usize * nodes.len());
    assert_eq!((rounds.len(), events.len()), (ROUNDS, ROUNDS * EVENTS as usize * nodes.len()));
    for node in &nodes {
        let of_node = events.iter().filter(|(name, _)| name == node);
        assert!(of_node.is_sorted_by(|one, next| one.1 < next.1), "{node}");
    }
    // Where others take all processors, reading a round may take longer than a record waits.
    let ordered = rounds.filter(|round| round.is_sorted_by_key(|(_, time)| time)).count();
    assert!(ordered > ROUNDS * 8 / 10, "{ordered} of {ROUNDS} rounds are in order");
}

fn node_and_time(event: &Value) -> (&str, &str) {
    (event["node"].as_str().unwrap(), event["time"].as_str().unwrap())
}
