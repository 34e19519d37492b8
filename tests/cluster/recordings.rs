//! What was recorded of pods can be had when they are gone, from all nodes.

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tests::cluster::{
    NODES, Namespace, agent_process, agents, agents_alone, deploy, deployment, exists, gadget, gadget_command, get,
    kubectl, pod,
};
use tests::{Client, Seen, wait_for};

/// Fails after a while, over and over.
const FAILS: &str = "sleep 3; cat /etc/missing; exit 3";

/// A recording of a namespace's pods.
struct Recording<'a> {
    id: &'a str,
}

impl<'a> Recording<'a> {
    fn start(namespace: &'a Namespace) -> Self {
        let id = &namespace.name;
        succeed(&["start", "--name", id, "-n", id, "--budget", "4MiB"]);
        Self { id }
    }

    /// What each node has.
    fn list(&self) -> Vec<Value> {
        let list: Vec<Value> = serde_json::from_str(&succeed(&["list", "-o", "json"])).unwrap();
        list.into_iter().filter(|one| one["recording"]["id"] == self.id).collect()
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let _ = gadget(&["traceloop", "stop", self.id]);
    }
}

fn succeed(args: &[&str]) -> String {
    let output = gadget(&[&["traceloop"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn show(args: &[&str]) -> Seen {
    Client::spawn(gadget_command(&[&["traceloop", "show", "-o", "json"], args].concat())).finish()
}

#[test]
fn a_pods_last_calls_when_it_is_gone() {
    let _agents = agents();
    let namespace = Namespace::new("crashing");
    let recording = Recording::start(&namespace);
    namespace.run(&[deployment("web", FAILS)]);
    let pods: Vec<String> = namespace.pods().into_iter().map(|pod| pod.name).collect();
    assert_eq!(pods.len(), NODES.len());
    let has_failed = |pod: &String| {
        let status = &get(&["pod", pod, "-n", &namespace.name])["status"]["containerStatuses"][0];
        let ends = [&status["state"], &status["lastState"]].map(|state| state["terminated"]["exitCode"].clone());
        ends.contains(&3.into())
    };
    wait_for("the pods to fail", || pods.iter().all(has_failed));
    kubectl(&["delete", "deployment", "web", "-n", &namespace.name]);
    wait_for("the pods to be gone", || !pods.iter().any(|pod| exists(&["pod", pod, "-n", &namespace.name])));
    for pod in &pods {
        let seen = show(&[&format!("pod/{pod}"), "-n", &namespace.name]);
        let events = seen.events();
        assert!(events.iter().all(|event| event["pod"] == **pod), "{pod}");
        let fails = |event: &&&Value| {
            event["comm"] == "cat" && event["ret"] == -2 && event["syscall"].as_str().unwrap().starts_with("open")
        };
        assert!(events.iter().any(|event| fails(&event)), "{pod}: {} events", events.len());
        assert_eq!((&seen.summary()["complete"], seen.status.code()), (&true.into(), Some(0)), "{}", seen.said);
    }
    let all = show(&[recording.id]);
    let on_both = NODES.iter().all(|node| all.events().iter().any(|event| event["node"] == *node));
    assert!(on_both, "{}", all.said);
    let list = recording.list();
    let nodes: Vec<&str> = list.iter().map(|one| one["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, NODES);
    succeed(&["stop", recording.id]);
    assert!(recording.list().is_empty());
}

#[test]
fn what_a_killed_agent_had_is_told_as_lost() {
    let _alone = agents_alone();
    deploy(&[]);
    let namespace = Namespace::new("recording");
    let recording = Recording::start(&namespace);
    kill(agent_process("node-a"), Signal::SIGKILL).unwrap();
    namespace.run(&[deployment("web", FAILS)]);
    let has_both = || {
        let has = |one: &Value| one["recording"]["containers"].as_array().is_some_and(|all| !all.is_empty());
        gadget(&["traceloop", "list"]).status.success() && recording.list().iter().filter(|one| has(one)).count() == 2
    };
    wait_for("calls on both nodes", has_both);
    let seen = show(&[recording.id]);
    let gaps = seen.gaps();
    assert!(
        matches!(&gaps[..], [gap] if gap["node"] == "node-a" && gap["reason"].as_str().unwrap().contains("is lost")),
        "{gaps:?}"
    );
}

#[test]
fn who_is_killed_for_want_of_memory_is_told() {
    let _agents = agents();
    let namespace = Namespace::new("starved");
    let recording = Recording::start(&namespace);
    let mut hungry = pod("hungry", NODES[0], &["app"], "exec tail /dev/zero");
    hungry["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "32Mi"}});
    hungry["spec"]["restartPolicy"] = "Never".into();
    namespace.create(&[hungry]);
    let status = || get(&["pod", "hungry", "-n", &namespace.name])["status"]["containerStatuses"][0]["state"].clone();
    wait_for("it to be killed", || status()["terminated"]["reason"] == "OOMKilled");
    let list = recording.list();
    let containers = list.iter().flat_map(|one| one["recording"]["containers"].as_array().unwrap());
    let ends: Vec<&Value> = containers.map(|container| &container["end"]).collect();
    assert_eq!(ends, ["out_of_memory"], "{list:?}");
    let seen = show(&["pod/hungry", "-n", &namespace.name, "--last", "10"]);
    let events = seen.events();
    let last = events.last().unwrap();
    assert_eq!((&last["end"], &last["comm"], &last["ret"]), (&"out_of_memory".into(), &"tail".into(), &9.into()));
    assert!(events.len() == 10 && events.iter().any(|event| event["syscall"] == "read"), "{events:?}");
}
