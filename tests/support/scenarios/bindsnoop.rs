//! bindsnoop shows every bind of a container, once, with the port that was given and the options, and nobody else's.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use super::{Attempt, Containers, Scenario, Storm, provide_workload};
use crate::{Seen, endpoint};

/// All of it.
pub(super) static BINDSNOOP: Scenario = Scenario {
    gadget: "bindsnoop",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    storm: Some(Storm { name: "failing-binds", count: 2000, args: &[], each: 1, others: Some(0), options: &[] }),
};

/// A bind, from either side.
#[derive(Debug, PartialEq, Eq)]
struct Bind {
    result: i64,
    protocol: String,
    address: SocketAddr,
    options: String,
}

fn bind_of_log(attempt: &Attempt) -> Bind {
    let (protocol, address, options) = (attempt.text(0), attempt.text(1).parse().unwrap(), attempt.text(2));
    Bind { result: attempt.result, protocol, address, options }
}

fn bind_of(event: &Value) -> Bind {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let options: Vec<String> = event["options"].as_array().unwrap().iter().map(text).collect();
    Bind {
        result: event["ret"].as_i64().unwrap(),
        protocol: text(&event["protocol"]),
        address: endpoint(&event["address"]),
        options: options.join("|"),
    }
}

fn exact(containers: &mut dyn Containers, options: &[&str], binds: usize) -> Seen {
    let log = containers.shared_folder().join("binds.log");
    let _ = fs::remove_file(&log);
    let workload = provide_workload(containers);
    let client = BINDSNOOP.client(&[&["-n", "shop", "-p", "web", "-c", "app"], options].concat());
    let binds = binds.to_string();
    containers.start("shop/db", "app", &[&workload, "binds", &binds, "/tmp/db.log"]);
    containers.start("shop/web", "app", &[&workload, "binds", &binds, "/tmp/binds.log"]);
    containers.wait("shop/web", "app");
    containers.wait("shop/db", "app");
    let seen = client.stop();

    assert_eq!(seen.lost(), 0);
    let whose = |event: &Value| [&event["namespace"], &event["pod"], &event["container"]].map(Value::to_string);
    assert!(seen.events().iter().all(|event| whose(event) == ["\"shop\"", "\"web\"", "\"app\""]));
    let shown: Vec<Bind> = seen.events().into_iter().map(bind_of).collect();
    assert_eq!(shown, Attempt::read_all(&log).iter().map(bind_of_log).collect::<Vec<_>>());
    seen
}
