//! Parts of the cluster go away and come back. Runs go on by themselves, and say what they missed.

use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use tests::Client;
use tests::cluster::{
    NODES, Namespace, SLEEP, TICK, agents_alone, deploy, deployment, exists, get, kubectl, pod, script, start,
};

use super::faults::{has_events_after_gaps, has_gaps, untold_holes};

/// A part of the cluster that is stopped until this is dropped.
struct Outage(&'static str);

impl Outage {
    fn new(part: &'static str) -> Self {
        script(&["stop", part]);
        Self(part)
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        script(&["start", self.0]);
    }
}

/// Ticks of pods, on every node.
fn watch_ticks(namespace: &Namespace) -> Client {
    namespace.run(&[deployment("web", TICK)]);
    start(&["execsnoop", "-n", &namespace.name, "-l", "app in (web,late-node-a,late-node-b)"], NODES.len())
}

/// After an outage: the run goes on on these nodes, told what it missed, sees pods that are made now, and is complete.
fn must_go_on(mut client: Client, namespace: &Namespace, nodes: &[&str]) {
    client.read_until_seen("events after a gap", |seen| has_events_after_gaps(seen, nodes));
    namespace.run(&nodes.iter().map(|node| pod(&format!("late-{node}"), node, &["main"], TICK)).collect::<Vec<_>>());
    let is_late =
        |line: &Value, name: &str| line["type"] == "event" && line["pod"] == name && line["labels"]["app"] == name;
    for node in nodes {
        let name = format!("late-{node}");
        client.read_until_seen("a pod that came later", |seen| seen.iter().any(|line| is_late(line, &name)));
    }
    let seen = client.stop();
    assert_eq!(seen.status.code(), Some(130), "{}", seen.said);
    assert_eq!(seen.summary()["complete"], true);
    assert_eq!(untold_holes(&seen), [""; 0]);
    for other in NODES.iter().filter(|node| !nodes.contains(node)) {
        assert!(!has_gaps(&seen.lines, &[other]), "{other} has a gap: {}", seen.said);
    }
}

/// `OUTAGE=60` makes it last so many seconds longer.
#[test]
fn of_the_api_server() {
    let _alone = agents_alone();
    deploy(&[]);
    let namespace = Namespace::new("no-server");
    let mut client = watch_ticks(&namespace);
    // While it starts, an API server refuses what it allows later. Here it does so for longer.
    kubectl(&["delete", "clusterrolebinding", "gadget-agent"]);
    let outage = Outage::new("kube-apiserver");
    // Its words on the connection that broke, and on the next, which nobody takes.
    tests::wait_for("the run to say so", || NODES.iter().all(|node| client.said().contains(&format!("node {node}"))));
    sleep(Duration::from_secs(std::env::var("OUTAGE").map_or(0, |seconds| seconds.parse().unwrap())));
    drop(outage);
    client.read_until_seen("events after a gap", |seen| has_events_after_gaps(seen, &NODES));
    // The agents lived on, and so did what they know.
    assert!(client.seen.iter().all(|line| line["type"] != "event" || line["labels"]["app"] == "web"));
    tests::wait_for("the API server", || exists(&["namespace", &namespace.name]));
    let agents = || get(&["pods", "-n", "gadget"])["items"].as_array().unwrap().clone();
    for agent in agents() {
        let name = agent["metadata"]["name"].as_str().unwrap();
        let is_refused = || kubectl(&["logs", "-n", "gadget", name]).contains("pods is forbidden");
        tests::wait_for("the agent to be refused", is_refused);
    }
    deploy(&[]);
    must_go_on(client, &namespace, &NODES);
    for agent in agents() {
        assert_eq!(agent["status"]["containerStatuses"][0]["restartCount"], 0, "{}", agent["metadata"]["name"]);
    }
}

#[test]
fn of_a_kubelet_and_of_a_containerd() {
    let _alone = agents_alone();
    deploy(&[]);
    for (part, purpose) in [("node-a/kubelet", "no-kubelet"), ("node-a/containerd", "no-containerd")] {
        let namespace = Namespace::new(purpose);
        let client = watch_ticks(&namespace);
        let outage = Outage::new(part);
        tests::wait_for("the run to say so", || client.said().contains("node node-a"));
        drop(outage);
        must_go_on(client, &namespace, &["node-a"]);
    }
}

/// A node whose agent comes later takes part from then on.
#[test]
fn of_a_nodes_agent_until_it_joins() {
    let _alone = agents_alone();
    let taint = |how: &str| kubectl(&["taint", "node", "node-b", how]);
    taint("joins=later:NoExecute");
    deploy(&["--tolerations", ""]);
    let mut client = start(&["execsnoop", "-A"], 1);
    taint("joins=later:NoExecute-");
    client.wait_for_nodes(1);
    let namespace = Namespace::new("joins");
    namespace.run(&[pod("first", "node-b", &["main"], SLEEP)]);
    namespace.pods()[0].exec("main", "joined");
    client.read_until_seen("its event", |seen| seen.iter().any(|line| line["args"][1] == "joined"));
    let seen = client.stop();
    assert!(seen.lines.iter().any(|line| line["type"] == "start" && line["node"] == "node-b"));
}
