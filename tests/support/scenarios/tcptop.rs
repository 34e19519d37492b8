//! tcptop's sums are what the connections of a container carried, byte by byte, and nobody else's.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use super::calls::Call;
use super::{Containers, Scenario, Storm, provide_workload};
use crate::{Seen, endpoint, wait_for};

/// All of it.
pub(super) static TCPTOP: Scenario = Scenario {
    gadget: "tcptop",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: true,
    exact,
    storm: Some(Storm { name: "transfers", count: 2000, args: &[], each: 2, others: Some(0), options: &[] }),
};

/// By the two ends, its own first: bytes that were sent and received.
type Sums = BTreeMap<(SocketAddr, SocketAddr), (u64, u64)>;

fn sums(seen: &[Value]) -> Sums {
    let mut sums = Sums::new();
    for row in seen.iter().filter(|line| line["type"] == "event") {
        let sum = sums.entry((endpoint(&row["local"]), endpoint(&row["peer"]))).or_default();
        sum.0 += row["sent"].as_u64().unwrap();
        sum.1 += row["received"].as_u64().unwrap();
    }
    sums
}

/// One pod calls another in the same network; a third goes on with a connection from before.
fn exact(containers: &mut dyn Containers, options: &[&str], calls: usize) -> Seen {
    let folder = containers.shared_folder();
    let [port, log, held, go, held_log] = ["port", "calls.log", "held", "go", "held.log"].map(|name| folder.join(name));
    [&port, &log, &held, &go, &held_log].into_iter().for_each(|file| _ = fs::remove_file(file));
    let workload = provide_workload(containers);
    containers.start("net/holding", "app", &[&workload, "hold", "/tmp/held", "/tmp/go", "/tmp/held.log"]);
    wait_for("the connection from before", || held.exists());
    let watch = |pod| TCPTOP.client(&[&["-p", pod], options].concat());
    let (mut server, mut caller, mut holder) = (watch("answering"), watch("calling"), watch("holding"));
    let count = calls.to_string();
    containers.start("net/answering", "app", &[&workload, "answer", &count, "/tmp/port"]);
    containers.start("net/calling", "app", &[&workload, "call", &count, "/tmp/port", "/tmp/calls.log"]);
    fs::write(&go, "").unwrap();
    ["net/calling", "net/answering", "net/holding"].into_iter().for_each(|pod| containers.wait(pod, "app"));

    let made: Vec<Call> = Call::read_all(&log).into_iter().filter(|call| call.result == 0).collect();
    let of_caller: Sums =
        made.iter().map(|call| ((call.local.unwrap(), call.peer), (call.sent, call.received))).collect();
    let of_server = of_caller.iter().map(|((local, peer), (sent, received))| ((*peer, *local), (*received, *sent)));
    let of_server: Sums = of_server.collect();
    let kept = &Call::read_all(&held_log)[0];
    let (local, peer) = (kept.local.unwrap(), kept.peer);
    let of_holder = Sums::from([((local, peer), (kept.sent, 0)), ((peer, local), (0, kept.sent))]);
    // The last of it may happen when all have ended.
    for (client, expected) in [(&mut server, &of_server), (&mut caller, &of_caller), (&mut holder, &of_holder)] {
        let total = |sums: &Sums| sums.values().map(|(sent, received)| sent + received).sum::<u64>();
        client.read_until_seen("all that was sent", |seen| total(&sums(seen)) >= total(expected));
    }
    let [server, caller, holder] = [server, caller, holder].map(|client| client.stop());
    for (seen, expected, pod) in
        [(&server, &of_server, "answering"), (&caller, &of_caller, "calling"), (&holder, &of_holder, "holding")]
    {
        assert_eq!((&sums(&seen.lines), seen.lost()), (expected, 0));
        let events = seen.events();
        assert!(events.iter().all(|event| event["pod"] == pod && event["interval_ms"] == 1000), "{events:?}");
    }
    for seen in [&caller, &holder] {
        let events = seen.events();
        assert!(events.iter().all(|event| event["pid"] == events[0]["pid"] && event["pid"] != 0), "{events:?}");
    }
    server
}
