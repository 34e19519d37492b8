//! What breaks interrupts a run as little as it must, and the run says what it missed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tests::cluster::{
    CutOff, NODES, Namespace, TICK, agent_process, agents_alone, deploy, deployment, gadget_command, start,
};
use tests::{Loaded, Process, Seen};

fn of<'a>(lines: &'a [Value], kind: &'static str, node: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["type"] == kind && line["node"] == node)
}

/// Whether a gap of each of these nodes was told.
pub(crate) fn has_gaps(lines: &[Value], nodes: &[&str]) -> bool {
    nodes.iter().all(|node| of(lines, "gap", node).next().is_some())
}

/// The same, and events of each have come since.
pub(crate) fn has_events_after_gaps(lines: &[Value], nodes: &[&str]) -> bool {
    nodes.iter().all(|node| {
        let gap = lines.iter().rposition(|line| line["type"] == "gap" && line["node"] == *node);
        gap.is_some_and(|gap| of(&lines[gap..], "event", node).next().is_some())
    })
}

/// Numbers that are missing between the ticks of a pod, or are there twice, in a time that no gap was told of.
pub(crate) fn untold_holes(seen: &Seen) -> Vec<String> {
    let mut last: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    let mut holes = Vec::new();
    for tick in seen.events().into_iter().filter(|event| event["args"][0] == "/bin/true") {
        let number = tick["args"][1].as_str().unwrap().parse().unwrap();
        let (pod, time) = (tick["pod"].as_str().unwrap(), tick["time"].as_str().unwrap());
        let before = last.insert(pod, (number, time));
        let Some((before, since)) = before.filter(|(before, _)| before + 1 != number) else { continue };
        let covers = |gap: &Value| gap["from"].as_str().unwrap() <= time && gap["to"].as_str().unwrap() >= since;
        if number <= before || !of(&seen.lines, "gap", tick["node"].as_str().unwrap()).any(covers) {
            holes.push(format!("{before} at {since} to {number} at {time} in {pod}"));
        }
    }
    holes
}

#[test]
fn a_killed_agent_is_found_again_when_it_is_back() {
    let _alone = agents_alone();
    deploy(&[]);
    let namespace = Namespace::new("killed");
    namespace.run(&[deployment("web", TICK)]);
    let run = ["execsnoop", "-n", &namespace.name, "--timeout", "15s"];
    let lenient = start(&run, 2);
    let strict = start(&[&run[..], &["--fail-on-loss"]].concat(), 2);
    kill(agent_process("node-a"), Signal::SIGKILL).unwrap();
    let (lenient, strict) = (lenient.finish(), strict.finish());
    assert_eq!((lenient.status.code(), strict.status.code()), (Some(0), Some(3)), "{}", lenient.said);
    for seen in [lenient, strict] {
        assert!(has_events_after_gaps(&seen.lines, &["node-a"]), "{}", seen.said);
        assert!(!has_gaps(&seen.lines, &["node-b"]));
        assert_eq!(seen.summary()["complete"], true);
        assert_eq!(untold_holes(&seen), [""; 0]);
    }
}

#[test]
fn a_node_that_is_cut_off_holds_up_nobody_and_comes_back() {
    let _alone = agents_alone();
    deploy(&[]);
    let namespace = Namespace::new("cut-off");
    namespace.run(&[deployment("web", TICK)]);
    let mut client = start(&["execsnoop", "-n", &namespace.name], 2);
    client.read_until_seen("events of both", |seen| NODES.iter().all(|node| of(seen, "event", node).next().is_some()));
    let cut = CutOff::new("node-a");
    let before = of(&client.seen, "event", "node-b").count();
    // Long before anybody can know that it will not come back.
    client.read_until_seen("the other's events", |seen| of(seen, "event", "node-b").count() > before + 10);
    assert_eq!(client.said(), "");
    tests::wait_for("the node to be missed", || client.said().contains("node node-a"));
    drop(cut);
    client.read_until_seen("its events", |seen| has_events_after_gaps(seen, &["node-a"]));
    let seen = client.stop();
    assert_eq!(seen.status.code(), Some(130), "{}", seen.said);
    assert!(!has_gaps(&seen.lines, &["node-b"]));
    assert_eq!(seen.summary()["complete"], true);
    assert_eq!(untold_holes(&seen), [""; 0]);
}

#[test]
fn nothing_stays_loaded_however_a_run_ends() {
    let _alone = agents_alone();
    deploy(&[]);
    let idle = Loaded::now();
    let run = || start(&["execsnoop", "-A"], 2);

    let client = run();
    assert_ne!(Loaded::now(), idle);
    assert_eq!(client.stop().status.code(), Some(130));
    idle.wait_for("after Ctrl-C");

    let client = run();
    client.process.signal(Signal::SIGKILL);
    idle.wait_for("after SIGKILL");

    let mut client = gadget_command(&["execsnoop", "-A"]);
    let mut client = Process(client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut header = String::new();
    BufReader::new(client.0.stdout.take().unwrap()).read_line(&mut header).unwrap();
    assert!(header.starts_with("NODE"));
    assert_eq!(client.wait().code(), Some(0));
    idle.wait_for("after the reader went away");
}
