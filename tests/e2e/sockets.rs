//! A socket belongs to whoever made it, or its listener, not to whoever runs or holds it.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};

use serde_json::Value;
use tests::{Client, Pod, Seen, loads_programs, shared_folder, wait_for};

const CONNECTIONS: usize = 5;
// As in include/net/tcp_states.h.
const ESTABLISHED: u64 = 1;
const SYN_SENT: u64 = 2;
const SYN_RECV: u64 = 3;

fn changes(seen: &Seen, old: u64, new: u64) -> impl Iterator<Item = &Value> {
    seen.events().into_iter().filter(move |event| event["old"] == old && event["new"] == new)
}

#[test]
fn of_a_pod_in_the_hosts_network_and_of_the_host() {
    let _loads = loads_programs();
    let watch = |args: &[&str]| Client::start_with("tiny-client", &[&["tcpstates"], args].concat());
    let (pods, host) = (watch(&["-n", "passing"]), watch(&["--host=outside"]));
    let mut traced = Client::start(&["tcptracer", "-n", "passing"]);
    let name = |kind: &str| format!("passing-{}.{kind}", std::process::id());
    let inside = |kind: &str| format!("/tmp/{}", name(kind));
    let workload = format!("/tmp/{}", name("workload"));
    fs::copy(tests::dist("workload"), shared_folder().join(name("workload"))).unwrap();
    // One makes the socket, another takes what comes; both have the host's network.
    let (maker, taker) = (Pod::new("passing", "maker"), Pod::new("passing", "taker"));
    maker.run("app", &[&workload, "offer", &inside("port"), &inside("socket")]);
    taker.run("app", &[&workload, "take-over", &CONNECTIONS.to_string(), &inside("socket")]);
    let file = shared_folder().join(name("port"));
    wait_for("the port", || file.exists());
    let port: u16 = fs::read_to_string(&file).unwrap().parse().unwrap();
    // This process is the host's.
    let connect = |_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap().local_addr().unwrap().port();
    let own: Vec<u16> = (0..CONNECTIONS).map(connect).collect();
    taker.wait("app");
    maker.wait("app");
    let count = |seen: &[Value], operation: &str| seen.iter().filter(|line| line["operation"] == operation).count();
    traced.read_until_seen("the ends", |seen| count(seen, "close") == CONNECTIONS);
    let (pods, host, traced) = (pods.stop(), host.stop(), traced.stop());

    assert_eq!(changes(&pods, SYN_RECV, ESTABLISHED).count(), CONNECTIONS);
    // One that is closed has no port any more.
    assert!(pods.events().iter().all(|event| event["port"] == port || event["port"] == 0));
    assert!(pods.events().iter().all(|event| event["pod"] == "maker"));
    assert_eq!(changes(&pods, SYN_SENT, ESTABLISHED).count(), 0);

    let called = changes(&host, SYN_SENT, ESTABLISHED).map(|event| event["port"].as_u64().unwrap());
    let called: Vec<u64> = called.filter(|port| own.iter().any(|own| u64::from(*own) == *port)).collect();
    assert_eq!(called, own.iter().map(|port| u64::from(*port)).collect::<Vec<_>>());
    assert!(host.events().iter().all(|event| event["pod"].is_null() && event["port"] != port));
    assert_eq!((pods.lost(), host.lost()), (0, 0));

    // Who takes one is another's process; the connection is the listener's.
    assert_eq!(
        (count(&traced.lines, "accept"), traced.events().len(), traced.lost()),
        (CONNECTIONS, 2 * CONNECTIONS, 0)
    );
    assert!(traced.events().iter().all(|event| event["pod"] == "maker" && event["pid"] == traced.events()[0]["pid"]));
}
