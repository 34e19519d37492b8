//! Agents that cannot take part: the others go on, and what is missing is said.

use gadgets::wire::{FailureKind, VERSION};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::client::Client;
use tests::fake::{Answer, FakeCluster, pod_without_image, ready_pod};

const NODES: [&str; 2] = ["node-a", "node-b"];

#[tokio::test]
async fn one_agent_refuses_and_the_others_go_on() {
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &["--timeout", "500ms"]);
    let [mut b] = fake.agents(["node-b"]).await;
    fake.agent("node-a").await.refuse(FailureKind::Unsupported, "no BTF").await;
    b.exec("1").await;
    client.until_exec("1").await;
    b.finish().await;
    let ended = client.end().await;
    ended.must_be(1);
    ended.must_say(&["node node-a: no BTF"]);
    assert_eq!(ended.summary()["events"], 1);
}

async fn all_refuse(kind: FailureKind, code: i32) {
    let fake = FakeCluster::of(&NODES).await;
    let client = Client::start(&fake, &[]);
    for node in NODES {
        fake.agent(node).await.refuse(kind, "not with me").await;
    }
    let ended = client.end().await;
    ended.must_be(code);
    ended.must_say(&["error: node node-a", "not with me"]);
    assert!(ended.lines.is_empty(), "{:?}", ended.lines);
}

#[tokio::test]
async fn all_agents_refuse() {
    all_refuse(FailureKind::Unsupported, 1).await;
}

#[tokio::test]
async fn all_agents_call_it_a_wrong_usage() {
    all_refuse(FailureKind::Usage, 2).await;
}

#[tokio::test]
async fn an_agent_of_a_distant_version() {
    let fake = FakeCluster::of(&["node-a"]).await;
    let client = Client::start(&fake, &[]);
    let mut a = fake.agent("node-a").await;
    a.hear_hello().await;
    a.send(&a.hello(VERSION + 2)).await;
    a.until_left().await;
    let ended = client.end().await;
    ended.must_be(1);
    ended.must_say(&["node-a", &format!("version {} of the protocol", VERSION + 2)]);
}

#[tokio::test]
async fn an_agent_of_a_distant_version_among_others() {
    let fake = FakeCluster::of(&NODES).await;
    let mut client = Client::start(&fake, &["--timeout", "500ms"]);
    let [mut b] = fake.agents(["node-b"]).await;
    let mut a = fake.agent("node-a").await;
    a.hear_hello().await;
    a.send(&a.hello(VERSION + 2)).await;
    a.until_left().await;
    b.exec("1").await;
    client.until_exec("1").await;
    b.finish().await;
    let ended = client.end().await;
    ended.must_be(1);
    ended.must_say(&["node-a", "of the protocol"]);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_keeps_nobody_waiting() {
    let fake = FakeCluster::of(&NODES).await;
    fake.answer("agent-of-node-a/exec", Answer::Http(500, "error dialing backend".into()));
    let client = Client::start(&fake, &["--timeout", "200ms"]);
    let [b] = fake.agents(["node-b"]).await;
    b.finish().await;
    let ended = client.end().await;
    ended.must_be(1);
    ended.must_say(&["not everything was watched", "node node-a"]);
}

#[tokio::test]
async fn an_agent_that_is_not_ready_yet_comes_later() {
    let fake = FakeCluster::of(&NODES).await;
    fake.set_pod("node-a", pod_without_image("node-a"));
    let mut client = Client::start(&fake, &[]);
    let [mut b] = fake.agents(["node-b"]).await;
    b.exec("1").await;
    client.until_exec("1").await;
    client.until_says("node node-a: image registry.example/agent:1 cannot be pulled").await;
    fake.set_pod("node-a", ready_pod("node-a"));
    let [mut a] = fake.agents(["node-a"]).await;
    a.exec("2").await;
    client.until_exec("2").await;
    client.signal(Signal::SIGINT);
    futures::future::join(a.finish(), b.finish()).await;
    let ended = client.end().await;
    ended.must_be(130);
    assert_eq!(ended.summary()["events"], 2);
}

#[tokio::test]
async fn an_agent_that_does_not_come() {
    let fake = FakeCluster::of(&["node-a"]).await;
    fake.set_pod("node-a", pod_without_image("node-a"));
    let ended = Client::start(&fake, &[]).end().await;
    ended.must_be(1);
    ended.must_say(&["error: node node-a", "registry.example/agent:1", "--image"]);
}

#[tokio::test]
async fn no_agents_at_all() {
    let fake = FakeCluster::of(&[]).await;
    let ended = Client::start(&fake, &[]).end().await;
    ended.must_be(1);
    ended.must_say(&["not deployed", "kubectl gadget deploy"]);
}

#[tokio::test]
async fn a_node_without_a_kernel_of_its_own_is_passed_over() {
    let fake = FakeCluster::of(&["node-a"]).await;
    let pod = |name: &str, node: &str| {
        json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"},
            "spec": {"nodeName": node, "containers": []}})
    };
    let pods = [pod("web-1", "node-a"), pod("web-2", "virtual")];
    let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": pods});
    fake.answer("/api/v1/pods?", Answer::Http(200, list.to_string()));
    fake.answer("/api/v1/pods?&watch=true", Answer::Silence);
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "virtual", "labels": {"type": "virtual-kubelet"}}});
    fake.answer("/api/v1/nodes/virtual", Answer::Http(200, node.to_string()));
    let mut client = Client::start(&fake, &["-l", "app=web"]);
    let [mut a] = fake.agents(["node-a"]).await;
    a.exec("1").await;
    client.until_exec("1").await;
    client.signal(Signal::SIGINT);
    a.finish().await;
    let ended = client.end().await;
    ended.must_be(130);
    ended.must_say(&["node virtual is passed over"]);
    assert_eq!((&ended.summary()["complete"], &ended.summary()["nodes"]), (&json!(true), &json!(["node-a"])));
}
