//! flows shows whom a container talks to, each peer and port once, by who began, and nobody else's.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, socket,
};
use serde_json::Value;

use super::{Attempt, Containers, Scenario, Storm, provide_workload};
use crate::{Addresses, Client, Seen, endpoint, wait_for};

/// All of it.
pub(super) static FLOWS: Scenario = Scenario {
    gadget: "flows",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: true,
    exact,
    storm: Some(Storm { name: "flow-storm", count: 2000, args: &[], each: 1, others: Some(0), options: &[] }),
};

/// A flow, from either side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    direction: String,
    protocol: String,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Flow {
    fn of(event: &Value) -> Self {
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let (local, peer) = (endpoint(&event["local"]), endpoint(&event["peer"]));
        Self { direction: text("direction"), protocol: text("protocol"), local, peer }
    }

    /// All that were written down, and whether who answers has seen it, too.
    fn read_all(log: &Path) -> Vec<(Self, bool)> {
        let flow = |attempt: &Attempt| {
            let (local, peer) = (attempt.text(2).parse().unwrap(), attempt.text(3).parse().unwrap());
            let flow = Self { direction: attempt.text(0), protocol: attempt.text(1), local, peer };
            (flow, attempt.text(4) == "true")
        };
        Attempt::read_all(log).iter().map(flow).collect()
    }

    /// The same at the other end.
    fn answered(&self) -> Self {
        let (local, peer) = (self.peer, self.local);
        Self { direction: "ingress".into(), protocol: self.protocol.clone(), local, peer }
    }

    /// What makes it the same as another.
    fn key(&self) -> (String, String, String, u16) {
        let port = if self.direction == "egress" { self.peer.port() } else { self.local.port() };
        (self.direction.clone(), self.protocol.clone(), self.peer.ip().to_string(), port)
    }
}

/// Each once: the first.
fn once(flows: impl Iterator<Item = Flow>) -> Vec<Flow> {
    let mut first = BTreeMap::new();
    for flow in flows {
        first.entry(flow.key()).or_insert(flow);
    }
    let mut flows: Vec<Flow> = first.into_values().collect();
    flows.sort();
    flows
}

/// One pod calls another; a third goes on with exchanges from before.
fn exact(containers: &mut dyn Containers, options: &[&str], calls: usize) -> Seen {
    let _addresses = Addresses::add();
    let folder = containers.shared_folder();
    let names = ["flow-ports", "flow-done", "flow-calls.log", "flow-place", "flow-go", "flow-goes-on.log"];
    let [ports, done, log, place, go, on_log] = names.map(|name| folder.join(name));
    [&ports, &done, &log, &place, &go, &on_log].into_iter().for_each(|file| _ = fs::remove_file(file));
    let [ports_inside, done_inside, log_inside, place_inside, go_inside, on_log_inside] =
        names.map(|name| format!("/tmp/{name}"));
    let workload = provide_workload(containers);
    let (v4, v6) = (Addresses::v4(1).to_string(), Addresses::v6(1).to_string());

    // From before: who asks has a port that the kernel chose, and who is asked one that it would not.
    let asker = UdpSocket::bind((Addresses::v4(2), 0)).unwrap();
    let asked = (20_000..32_768).find_map(|port| UdpSocket::bind((Addresses::v4(2), port)).ok()).unwrap();
    let own = Addresses::v4(3).to_string();
    let asked_at = asked.local_addr().unwrap().to_string();
    let goes_on = [&*workload, "flow-goes-on", &own, &asked_at, &place_inside, &go_inside, &on_log_inside];
    containers.start("net/going-on", "app", &goes_on);
    wait_for("the exchange from before", || place.exists());
    let places = fs::read_to_string(&place).unwrap();
    let (server_at, waiter_at) = places.split_once(' ').unwrap();
    asker.send_to(b"?", server_at).unwrap();
    let (_, who_asks) = asked.recv_from(&mut [0; 16]).unwrap();
    // It takes no more than one, and nobody takes that.
    let deaf = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(deaf.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Addresses::v4(2), 0)))).unwrap();
    listen(&deaf, Backlog::new(0).unwrap()).unwrap();
    let deaf_port = getsockname::<SockaddrStorage>(deaf.as_raw_fd()).unwrap().as_sockaddr_in().unwrap().port();
    let deaf_at = SocketAddr::from((Addresses::v4(2), deaf_port));
    let _only_one = TcpStream::connect(deaf_at).unwrap();

    let watch = |pod| FLOWS.client(&[&["-p", pod], options].concat());
    let (mut answering, mut calling, mut going_on) = (watch("answering"), watch("calling"), watch("going-on"));
    fs::write(&go, "").unwrap();
    asker.send_to(b"?", waiter_at).unwrap();
    // From both.
    (0..2).for_each(|_| _ = asker.recv(&mut [0; 16]).unwrap());
    asked.send_to(b"answer", who_asks).unwrap();
    containers.start("net/answering", "app", &[&workload, "flow-answers", &v4, &v6, &ports_inside, &done_inside]);
    wait_for("the ports", || ports.exists());
    let (count, deaf_at) = (calls.to_string(), deaf_at.to_string());
    let call = [&*workload, "flow-calls", &count, &ports_inside, &deaf_at, &v4, &v6, &log_inside];
    containers.start("net/calling", "app", &call);
    containers.wait("net/calling", "app");
    containers.wait("net/going-on", "app");

    let called = Flow::read_all(&log);
    let answered = once(called.iter().filter(|(_, is_answered)| *is_answered).map(|(flow, _)| flow.answered()));
    let called = once(called.into_iter().map(|(flow, _)| flow));
    let gone_on = once(Flow::read_all(&on_log).into_iter().map(|(flow, _)| flow));
    let has_sctp = Path::new("/sys/module/sctp").exists();
    assert_eq!(called.iter().any(|flow| flow.protocol == "sctp"), has_sctp, "{called:?}");
    // The last of it may be taken when who has sent it has ended.
    let count = |seen: &[Value]| seen.iter().filter(|line| line["type"] == "event").count();
    answering.read_until_seen("what was answered", |seen| count(seen) >= answered.len());
    fs::write(&done, "").unwrap();
    containers.wait("net/answering", "app");
    calling.read_until_seen("the calls", |seen| count(seen) >= called.len());
    going_on.read_until_seen("the exchanges from before", |seen| count(seen) >= gone_on.len());
    let check = |client: Client, pod: &str, expected: &[Flow]| {
        let seen = client.stop();
        let mut shown: Vec<Flow> = seen.events().into_iter().map(Flow::of).collect();
        shown.sort();
        assert_eq!(shown, expected, "{pod}");
        assert_eq!(seen.lost(), 0);
        let events = seen.events();
        assert!(events.iter().all(|event| event["pod"] == pod), "{events:?}");
        // Who takes something may not be known; else it is the container's process.
        let pids: Vec<u64> = events.iter().map(|event| event["pid"].as_u64().unwrap()).collect();
        let known: Vec<u64> = pids.iter().copied().filter(|pid| *pid != 0).collect();
        assert!(known.iter().all(|pid| *pid == known[0]), "{events:?}");
        let of = |direction: &str, protocol: &str| {
            let is_it = |event: &&&Value| event["direction"] == direction && event["protocol"] == protocol;
            let pids: Vec<bool> = events.iter().filter(is_it).map(|event| event["pid"] != 0).collect();
            (pids.iter().filter(|is_known| **is_known).count(), pids.len())
        };
        for protocol in ["tcp", "sctp"] {
            let (known, all) = of("egress", protocol);
            assert_eq!(known, all, "{events:?}");
        }
        // Half of them are accepted by a program.
        let (known, all) = of("ingress", "sctp");
        assert_eq!(known * 2, all, "{events:?}");
        seen
    };
    check(calling, "calling", &called);
    check(going_on, "going-on", &gone_on);
    check(answering, "answering", &answered)
}
