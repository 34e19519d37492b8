//! Streams of real agents through a real API server, as much as there is.

use std::cell::Cell;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::Client;
use tests::cluster::{Namespace, agent_process, agents, agents_alone, deploy, deployment, kubectl, start};

/// Opens of each pod.
const STORM: u64 = 50_000;
/// The same where it has to last for seconds.
const LASTING: u64 = 3000;

/// A run that watches a storm on each node, which begins: so many opens, each after a command, and three seconds later one
/// more.
fn watch_storms(namespace: &Namespace, count: u64, between: &str) -> Client {
    let script = format!(
        "exec 2>/dev/null; until [ -e /tmp/go ]; do sleep 0.1; done; \
         i=0; while [ $i -lt {count} ]; do {between}; true </missing/storm; i=$((i+1)); done; \
         sleep 3; true </missing/end; sleep 1000"
    );
    let pods = namespace.run(&[deployment("storm", &script)]);
    let client = start(&["opensnoop", "-n", &namespace.name], 2);
    for pod in pods {
        kubectl(&["--namespace", &namespace.name, "exec", &pod.name, "--", "touch", "/tmp/go"]);
    }
    client
}

fn is_open(line: &Value, path: &str) -> bool {
    line["type"] == "event" && line["path"] == path
}

/// Reads until there were so many opens of a path.
fn read_opens(client: &mut Client, path: &str, count: u64) {
    let seen = Cell::new(0);
    let is_last = |line: &Value| {
        seen.set(seen.get() + u64::from(is_open(line, path)));
        seen.get() == count
    };
    assert!(client.read_until(is_last), "{} of {count} opens of {path}: {}", seen.get(), client.said());
}

#[test]
fn all_events_of_two_nodes_come_and_each_node_has_its_order() {
    let _agents = agents();
    let namespace = Namespace::new("streams");
    let mut client = watch_storms(&namespace, STORM, "true");
    read_opens(&mut client, "/missing/end", 2);
    let seen = client.stop();
    assert_eq!((&seen.summary()["lost"], seen.gaps().len()), (&0.into(), 0), "{}", seen.said);
    let opens: Vec<_> = seen.events().into_iter().filter(|event| is_open(event, "/missing/storm")).collect();
    assert_eq!(opens.len() as u64, 2 * STORM);
    for node in ["node-a", "node-b"] {
        let of_node = opens.iter().filter(|event| event["node"] == node).map(|event| event["time"].as_str().unwrap());
        assert!(of_node.clone().is_sorted());
        assert_eq!(of_node.count() as u64, STORM);
    }
}

/// The processes in an agent's container that carry sessions.
fn relays(agent: Pid) -> Vec<Pid> {
    let cgroup = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let of_agent = cgroup(&agent.to_string());
    let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_relay = |pid: &String| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split('\0').any(|word| word == "session") && cgroup(pid) == of_agent
    };
    pids.filter(is_relay).map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

#[test]
fn what_a_broken_connection_has_cost_is_told_exactly() {
    let _alone = agents_alone();
    deploy(&[]);
    let namespace = Namespace::new("broken");
    let mut client = watch_storms(&namespace, LASTING, "sleep 0");
    read_opens(&mut client, "/missing/storm", LASTING / 4);
    let relays = relays(agent_process("node-a"));
    assert!(!relays.is_empty());
    relays.into_iter().for_each(|relay| kill(relay, Signal::SIGKILL).unwrap());
    read_opens(&mut client, "/missing/end", 2);
    let seen = client.stop();
    let shown = seen.events().into_iter().filter(|event| is_open(event, "/missing/storm")).count() as u64;
    assert_eq!(shown + seen.lost(), 2 * LASTING, "{}", seen.said);
    assert!(seen.lost() > 0);
    for loss in seen.of_type("loss") {
        assert_eq!((&loss["node"], &loss["stage"]), (&"node-a".into(), &"stream".into()), "{loss}");
    }
    let [gap] = seen.gaps()[..] else { panic!("one gap: {}", seen.said) };
    assert_eq!(gap["node"], "node-a");
}
