//! What the agents say of themselves and their nodes.

use serde_json::Value;
use tests::cluster::{NODES, agent_process, agents, gadget, start};
use tests::{Client, dist};

fn printed(args: &[&str]) -> String {
    let output = gadget(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A node's agent, as the holder of a program.
fn agent_holder(node: &str) -> String {
    format!("gadget-agent[{}]", agent_process(node))
}

#[test]
fn status_tells_what_runs_on_each_node_and_what_else_its_kernel_has() {
    let _agents = agents();
    let run = start(&["execsnoop", "-A", "--buffer", "1MiB"], 2);
    // Not one of our agents, by its name.
    let tiny = dist("tiny-agent");
    let other = Client::start_with("tiny-client", &["forksnoop", "--agent", tiny.to_str().unwrap()]);
    let holder = format!("tiny-agent[{}]", other.process.children()[0]);

    let nodes: Value = serde_json::from_str(&printed(&["status", "-o", "json"])).unwrap();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 2);
    for (node, name) in nodes.as_array().unwrap().iter().zip(NODES) {
        assert_eq!((&node["node"], &node["ready"]), (&name.into(), &true.into()));
        assert_eq!((&node["version"], &node["kernel"]), (&"0.1.0".into(), &kernel.trim().into()));
        let status = &node["status"];
        let execsnoop = &status["gadgets"][0];
        assert_eq!((&execsnoop["name"], &execsnoop["error"]), (&"execsnoop".into(), &Value::Null));
        let variants = execsnoop["variants"].as_object().unwrap();
        assert!(variants.len() == 2 && variants.values().all(|variant| variant != ""), "{execsnoop}");
        let ours = |running: &&Value| running["ring_bytes"] == 1 << 20;
        assert_eq!(status["running"].as_array().unwrap().iter().find(ours).unwrap()["sessions"], 1);
        let programs = status["programs"].as_array().unwrap();
        let is_listed = |program: &str, holder: &str, own: bool| {
            let wanted = (&program.into(), &"tracing".into(), &holder.into(), &own.into());
            let mut all = programs.iter().map(|one| (&one["name"], &one["kind"], &one["holder"], &one["own"]));
            all.any(|one| one == wanted)
        };
        assert!(is_listed("forked", &holder, false), "{status}");
        // The kernel is both nodes'.
        for agent in NODES {
            assert!(is_listed("exec_started", &agent_holder(agent), agent == name), "{status}");
        }
    }

    let text = printed(&["status"]);
    for part in ["node-a", "node-b", "0.1.0", "ready", kernel.trim(), "start: ", "1 session, ring of 1.0 MiB", &holder]
    {
        assert!(text.contains(part), "no {part:?}: {text}");
    }
    for node in NODES {
        let own = agent_holder(node);
        let is_row = |line: &str| line.trim_start().starts_with(node) && line.contains(&own);
        assert!(!text.lines().any(is_row), "an agent's own programs are no others: {text}");
    }
    assert_eq!(run.stop().status.code(), Some(130));
}

#[test]
fn version_tells_of_both_sides() {
    let _agents = agents();
    let text = printed(&["version"]);
    for part in ["kubectl-gadget 0.1.0", "gadget-agent 0.1.0 (image localhost/gadget-agent:0.1.0)"] {
        assert!(text.contains(part), "no {part:?}: {text}");
    }
    let versions: Value = serde_json::from_str(&printed(&["version", "-o", "json"])).unwrap();
    assert_eq!((&versions["client"]["version"], &versions["agents"]["version"]), (&"0.1.0".into(), &"0.1.0".into()));
}
