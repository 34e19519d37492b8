//! `doctor` says what is well and what is not, before anything is deployed too.

use serde_json::Value;
use tests::cluster::{NODES, agents, agents_alone, deploy, gadget, gadget_command, undeploy};

fn report(args: &[&str], code: i32) -> Value {
    let output = gadget(&[&["doctor", "-o", "json"], args].concat());
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn finding<'a>(findings: &'a Value, check: &str) -> &'a Value {
    let mut findings = findings.as_array().unwrap().iter();
    findings.find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("nothing about {check}"))
}

fn is(finding: &Value, verdict: &str, found: &str) {
    assert_eq!(finding["verdict"], verdict, "{finding}");
    assert!(finding["found"].as_str().unwrap().contains(found), "{finding}");
    if verdict != "ok" {
        assert!(!finding["cost"].as_str().unwrap().is_empty() && !finding["mend"].as_str().unwrap().is_empty());
    }
}

#[test]
fn before_anything_is_deployed() {
    let _alone = agents_alone();
    undeploy();
    let report = report(&[], 1);
    is(finding(&report["cluster"], "api server"), "ok", "v1.20");
    is(finding(&report["cluster"], "rights"), "ok", "you may look");
    is(finding(&report["cluster"], "deployment"), "failed", "no agents");
    is(finding(&report["cluster"], "rights to deploy"), "ok", "");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(report["nodes"].as_array().unwrap().len(), NODES.len());
    for (node, name) in report["nodes"].as_array().unwrap().iter().zip(NODES) {
        assert_eq!(node["node"], name);
        is(finding(&node["findings"], "kernel"), "ok", kernel.trim());
    }
    let text = String::from_utf8(gadget(&["doctor"]).stdout).unwrap();
    assert!(text.contains("mend: kubectl gadget deploy\n"), "{text}");
}

#[test]
fn with_agents_that_are_well() {
    let _agents = agents();
    let report = report(&[], 0);
    is(finding(&report["cluster"], "deployment"), "ok", env!("CARGO_PKG_VERSION"));
    is(finding(&report["cluster"], "pod security"), "ok", "privileged");
    is(finding(&report["cluster"], "clocks"), "ok", "2 nodes");
    assert_eq!(report["nodes"].as_array().unwrap().len(), NODES.len());
    for (node, name) in report["nodes"].as_array().unwrap().iter().zip(NODES) {
        assert_eq!(node["node"], name);
        let findings = &node["findings"];
        is(finding(findings, "privileges"), "ok", "BPF, PERFMON, SYS_PTRACE, SYS_CHROOT");
        is(finding(findings, "cgroups"), "ok", "driver cgroupfs");
        // Each node's own: two nodes share this kernel.
        is(finding(findings, "cgroups"), "ok", &format!("/{name}"));
        is(finding(findings, "memory"), "ok", "512 MiB");
        is(finding(findings, "tracker"), "ok", "");
        // What the other node's agent and the tests have loaded is others'; the node's own agent is not.
        let others = finding(findings, "other programs")["found"].as_str().unwrap();
        for node in NODES {
            let agent = format!("gadget-agent[{}]", tests::cluster::agent_process(node));
            assert_eq!(others.contains(&agent), node != name, "{others}");
        }
        is(finding(findings, "execsnoop start"), "ok", "tp_btf");
        is(finding(findings, "clock"), "ok", "ms");
        let named = finding(findings, "runtime")["found"].as_str().unwrap().to_owned();
        let (named, rest) = named.split_once(" of ").unwrap();
        assert!(named != "0" && rest.starts_with(&format!("{named} containers")), "{named} of {rest}");
        assert!(node["variants"].as_array().unwrap().iter().any(|status| status["state"] == "best"));
    }
}

#[test]
fn for_somebody_with_fewer_rights() {
    let _agents = agents();
    let report = report(&["--as", "joe"], 1);
    is(finding(&report["cluster"], "rights"), "failed", "you may not list pods in namespace gadget");
    is(finding(&report["cluster"], "agents"), "failed", "list agents");
    is(finding(&report["cluster"], "nodes"), "degraded", "list nodes");
}

#[test]
fn without_a_cluster() {
    let output = gadget_command(&["doctor", "--server", "http://127.0.0.1:1", "--token", "x"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.code() == Some(1) && text.contains("api server") && text.contains("connection refused"),
        "{text}"
    );
}

#[test]
fn with_an_agent_that_does_not_start() {
    let _alone = agents_alone();
    deploy(&[]);
    gadget(&["deploy", "--image", "localhost/nothing:1", "--wait=false"]);
    tests::wait_for("the agents to fail", || {
        let output = gadget(&["doctor", "-o", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of_agent = |node: &Value| {
            let mut findings = node["findings"].as_array().unwrap().iter();
            findings.any(|finding| {
                finding["check"] == "agent" && finding["found"].to_string().contains("localhost/nothing:1")
            })
        };
        let nodes = report["nodes"].as_array().unwrap();
        nodes.len() == NODES.len() && nodes.iter().all(of_agent)
    });
}
