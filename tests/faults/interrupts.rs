//! Ctrl-C: once for an end in good order, twice for an end at once.

use std::time::{Duration, Instant};

use futures::future::join;
use gadgets::wire::Frame;
use nix::sys::signal::Signal;

use crate::client::Client;
use tests::fake::{Answer, FakeCluster};

const NODES: [&str; 2] = ["node-a", "node-b"];
/// A client that waits for an agent's last words takes longer.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn once() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let fake = FakeCluster::of(&NODES).await;
        let mut client = Client::start(&fake, &[]);
        let [mut a, mut b] = fake.agents(NODES).await;
        client.until_started(2).await;
        client.signal(signal);
        a.hear_until(&Frame::Stop).await;
        b.hear_until(&Frame::Stop).await;
        // What was on its way is still printed.
        a.exec("1").await;
        a.conclude().await;
        b.conclude().await;
        join(a.exit(0), b.exit(0)).await;
        let ended = client.end().await;
        ended.must_be(code);
        assert_eq!(ended.programs(), ["1"]);
        assert_eq!(ended.summary()["complete"], true);
    }
}

#[tokio::test]
async fn once_with_an_agent_that_does_not_answer() {
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &[]);
    let [mut a, b] = fake.agents(NODES).await;
    client.until_started(2).await;
    a.fall_silent();
    client.signal(Signal::SIGINT);
    b.finish().await;
    let ended = client.end().await;
    ended.must_be(130);
    let [gap] = ended.of_type("gap")[..] else { panic!("one gap: {:?}", ended.lines) };
    assert_eq!(gap["node"], "node-a");
}

#[tokio::test]
async fn twice() {
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &[]);
    let [mut a, b] = fake.agents(NODES).await;
    client.until_started(2).await;
    client.signal(Signal::SIGINT);
    // It says nothing to this, ever.
    a.hear_until(&Frame::Stop).await;
    b.finish().await;
    let began = Instant::now();
    client.signal(Signal::SIGINT);
    client.end().await.must_be(130);
    assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn before_anything_has_begun() {
    for target in ["/pods?", "/exec?"] {
        let fake = FakeCluster::of(&["node-a"]).await;
        fake.answer(target, Answer::Silence);
        let client = Client::start(&fake, &[]);
        fake.until_asked(target).await;
        let began = Instant::now();
        client.signal(Signal::SIGINT);
        client.end().await.must_be(130);
        assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
    }
}
