//! Output that nobody reads: memory stays bounded, sessions stay alive, and what is not printed is counted.

use gadgets::wire::{Frame, Heartbeat};
use nix::sys::signal::Signal;

use crate::client::{Client, Ended};
use tests::fake::{FakeAgent, FakeCluster, now};
use tests::memory;

/// Twice what may wait, what a client needs anyway, and some air.
const MEMORY: u64 = 150 << 20;

/// The client must take all in, and keep saying that it lives.
async fn must_stay_alive(client: &Client, agents: &mut [FakeAgent]) {
    for agent in agents.iter_mut() {
        agent.forget();
        for _ in 0..2 {
            agent.hear_until(&Frame::Heartbeat(Heartbeat::default())).await;
        }
    }
    let memory = memory(client.pid(), "VmRSS").unwrap();
    assert!(memory < MEMORY, "{} MiB", memory >> 20);
}

/// Reads everything; what was sent must have been printed or told as lost.
async fn must_be_honest(client: Client, agents: Vec<FakeAgent>) -> Ended {
    let sent: u64 = agents.iter().map(FakeAgent::sent).sum();
    client.signal(Signal::SIGINT);
    let finishing = futures::future::join_all(agents.into_iter().map(FakeAgent::finish));
    let (ended, _) = futures::future::join(client.end(), finishing).await;
    ended.must_be(130);
    let losses = ended.of_type("loss");
    assert!(!losses.is_empty());
    assert!(losses.iter().all(|loss| loss["stage"] == "client"), "{losses:?}");
    let lost: u64 = losses.iter().map(|loss| loss["count"].as_u64().unwrap()).sum();
    assert!(lost > 0);
    assert_eq!(ended.of_type("event").len() as u64 + lost, sent);
    assert_eq!((&ended.summary()["lost"], &ended.summary()["complete"]), (&lost.into(), &true.into()));
    ended
}

#[tokio::test]
async fn large_batches() {
    const BATCHES: usize = 64;
    let fake = FakeCluster::of(&["node-a"]).await;
    let mut client = Client::start(&fake, &[]);
    let [mut a] = fake.agents(["node-a"]).await;
    client.until_started(1).await;
    let argument = [b'x'; 4000];
    let record = a.record(now(), "ls", &[&argument]);
    let records = 200;
    for _ in 0..BATCHES {
        a.batch(records, record.repeat(records as usize)).await;
    }
    let mut agents = [a];
    must_stay_alive(&client, &mut agents).await;
    let ended = must_be_honest(client, agents.into()).await;
    // A few lines tell of it, not one for each batch.
    assert!(ended.of_type("loss").len() < BATCHES / 2);
}

#[tokio::test]
async fn many_small_batches_of_several_nodes() {
    const ROUNDS: usize = 800;
    let nodes = ["node-a", "node-b", "node-c"];
    let fake = FakeCluster::of(&nodes).await;
    let mut client = Client::start(&fake, &[]);
    let mut agents = Vec::from(fake.agents(nodes).await);
    client.until_started(nodes.len()).await;
    let mut portion = Vec::new();
    let heartbeat = Frame::Heartbeat(Heartbeat::default()).encode().unwrap();
    for _ in 0..250 {
        portion.extend(Frame::Batch(agents[0].record(now(), "ls", &[])).encode().unwrap());
        portion.extend(&heartbeat);
    }
    for _ in 0..ROUNDS {
        for agent in &mut agents {
            agent.say(&portion).await;
            agent.batch(250, Vec::new()).await;
        }
    }
    must_stay_alive(&client, &mut agents).await;
    must_be_honest(client, agents).await;
}

#[tokio::test]
async fn an_agent_that_sends_what_the_client_takes_loses_nothing() {
    const BATCHES: u64 = 64;
    const RECORDS: u64 = 200;
    let fake = FakeCluster::of(&["node-a"]).await;
    let mut client = Client::start(&fake, &[]);
    let [mut a] = fake.agents(["node-a"]).await;
    client.until_started(1).await;
    let sending = async {
        let record = a.record(now(), "ls", &[&[b'x'; 4000]]);
        for _ in 0..BATCHES {
            a.batch_when_allowed(RECORDS, record.repeat(RECORDS as usize)).await;
        }
        a.exec("last").await;
        a
    };
    let (a, ()) = futures::future::join(sending, client.until_exec("last")).await;
    client.signal(Signal::SIGINT);
    a.finish().await;
    let ended = client.end().await;
    ended.must_be(130);
    assert_eq!((ended.of_type("event").len() as u64, ended.of_type("loss").len()), (BATCHES * RECORDS + 1, 0));
}
