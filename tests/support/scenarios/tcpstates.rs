//! tcpstates shows what becomes of a container's sockets, whoever runs when it does, and nobody else's.

use std::fs;

use serde_json::Value;

use super::{Attempt, Containers, Scenario, Storm, provide_workload};
use crate::Seen;

/// All of it.
pub(super) static TCPSTATES: Scenario = Scenario {
    gadget: "tcpstates",
    client: "tiny-client",
    agent: "tiny-agent",
    of_sockets: true,
    exact,
    storm: Some(Storm { name: "failing-connects", count: 1200, args: &[], each: 2, others: Some(0), options: &[] }),
};

// As in include/net/tcp_states.h.
const ESTABLISHED: u64 = 1;
const SYN_SENT: u64 = 2;
const SYN_RECV: u64 = 3;
const CLOSE: u64 = 7;
const LAST_ACK: u64 = 9;
const LISTEN: u64 = 10;

/// The ports of the sockets that went from one state to another.
fn ports(lines: &[Value], old: u64, new: u64) -> Vec<u64> {
    let is_it = |line: &&Value| line["old"] == old && line["new"] == new;
    lines.iter().filter(is_it).map(|event| event["port"].as_u64().unwrap()).collect()
}

/// One pod connects to another in the same network: what becomes of what the one accepts happens while the other runs.
fn exact(containers: &mut dyn Containers, options: &[&str], connections: usize) -> Seen {
    let folder = containers.shared_folder();
    let (port, log) = (folder.join("port"), folder.join("connections.log"));
    [&port, &log].into_iter().for_each(|file| _ = fs::remove_file(file));
    let workload = provide_workload(containers);
    let watch = |pod| TCPSTATES.client(&[&["-p", pod], options].concat());
    let (mut server, caller) = (watch("serving"), watch("calling"));
    let count = connections.to_string();
    containers.start("net/serving", "app", &[&workload, "serve", &count, "/tmp/port"]);
    containers.start("net/calling", "app", &[&workload, "connect", &count, "/tmp/port", "/tmp/connections.log"]);
    containers.wait("net/calling", "app");
    containers.wait("net/serving", "app");
    // The last of it may happen when both have ended.
    server.read_until_seen("the end of all connections", |seen| ports(seen, LAST_ACK, CLOSE).len() == connections);
    let (server, caller) = (server.stop(), caller.stop());

    let called: Vec<u64> = Attempt::read_all(&log).iter().map(|attempt| attempt.text(0).parse().unwrap()).collect();
    assert_eq!(called.len(), connections);
    assert_eq!(ports(&caller.lines, CLOSE, SYN_SENT).len(), connections);
    assert_eq!(ports(&caller.lines, SYN_SENT, ESTABLISHED), called);

    let port: u64 = fs::read_to_string(&port).unwrap().parse().unwrap();
    assert_eq!(ports(&server.lines, CLOSE, LISTEN), [port]);
    // Two processors may each begin a socket for the same connection: one of them is given up.
    let begun = ports(&server.lines, LISTEN, SYN_RECV);
    assert!(begun.len() >= connections && begun.iter().all(|begun| *begun == port), "{begun:?}");
    assert_eq!(ports(&server.lines, SYN_RECV, ESTABLISHED), vec![port; connections]);

    for (seen, pod, others) in [(&server, "serving", SYN_SENT), (&caller, "calling", LISTEN)] {
        assert_eq!(seen.lost(), 0);
        assert!(seen.events().iter().all(|event| event["pod"] == pod));
        assert!(seen.events().iter().all(|event| event["old"] != others && event["new"] != others));
    }
    // What the current task is says nothing.
    let own = |event: &&&Value| event["new"] == LISTEN;
    let pid = server.events().iter().find(own).unwrap()["pid"].clone();
    assert!(server.events().iter().any(|event| event["pid"] != pid), "the server was never interrupted");
    server
}
