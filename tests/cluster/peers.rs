//! Who is at the other end of a connection: kubectl is the witness.

use serde_json::{Value, json};
use tests::cluster::{NODES, Namespace, agents, get, kubectl, pod, start};

const SERVE: &str = "nc -ll -p 9090 -e cat & exec httpd -f -p 8080 -h /etc";

/// Keeps a connection to a pod on another node open; fetches a page of it, and connects to the service of the API server, over and over.
fn calls(server: &str, service: &str) -> String {
    format!(
        "sleep 86400 | nc {server} 9090 & while sleep 0.2; do wget -q -O /dev/null http://{server}:8080/passwd; nc -w 1 {service} 443 </dev/null; done"
    )
}

/// The address of a pod or service, by a field of it.
fn address(kind: &str, name: &str, namespace: &str, pointer: &str) -> String {
    get(&[kind, name, "-n", namespace]).pointer(pointer).unwrap().as_str().unwrap().to_owned()
}

/// Whether an event has such a peer.
fn has_peer(event: &Value, port: u16, name: Option<&[&str; 3]>) -> bool {
    let peer = &event["peer"];
    let named = name.is_none_or(|[kind, namespace, name]| {
        *peer == json!({"address": peer["address"], "port": port, "kind": kind, "namespace": namespace, "name": name})
    });
    event["type"] == "event" && peer["port"] == port && named && (name.is_some() || peer.get("kind").is_none())
}

#[test]
fn have_names_as_far_as_the_user_may_know_them() {
    let _agents = agents();
    let namespace = Namespace::new("peers");
    let name = namespace.name.as_str();
    namespace.run(&[pod("server", NODES[0], &["main"], SERVE)]);
    let server = address("pod", "server", name, "/status/podIP");
    let service = address("service", "kubernetes", "default", "/spec/clusterIP");
    namespace.run(&[pod("caller", NODES[1], &["main"], &calls(&server, &service))]);
    let caller = address("pod", "caller", name, "/status/podIP");

    let (by_pod, by_service) = (["pod", name, "server"], ["svc", "default", "kubernetes"]);
    let sees = |args: &[&str], pod: Option<&[&str; 3]>, service: Option<&[&str; 3]>| {
        let mut client = start(&[args, &["-n", name, "-l", "app=caller"]].concat(), 1);
        client.read_until_seen(&format!("both peers by {args:?}"), |seen| {
            let has = |port, name| seen.iter().any(|event| has_peer(event, port, name));
            has(8080, pod) && has(443, service)
        });
        client.stop();
    };
    sees(&["tcptracer", "--connect"], Some(&by_pod), Some(&by_service));
    sees(&["tcptracer", "--connect", "--numeric"], None, None);

    // What is there now has names at both ends, from the first row on.
    let held = |args: &[&str]| {
        let sockets = [&["snapshot", "socket", "-n", name, "-l", "app=caller"], args].concat();
        let seen = start(&sockets, 1).finish();
        let is_held = |event: &&Value| event["comm"] == "nc" && event["peer"]["port"] == 9090;
        let events: Vec<Value> = seen.events().into_iter().filter(is_held).cloned().collect();
        assert!(events.len() == 1 && events[0]["state"] == "established", "{events:#?} {}", seen.said);
        let end = |end: &str| events[0][end].clone();
        (end("local"), end("peer"))
    };
    let (local, peer) = held(&["--numeric"]);
    let port = &local["port"];
    assert_eq!((&local, &peer), (&json!({"address": caller, "port": port}), &json!({"address": server, "port": 9090})));
    let (local, peer) = held(&[]);
    let is_pod = |end: &Value, address: &str, pod: &str| {
        let port = &end["port"];
        *end == json!({"address": address, "port": port, "kind": "pod", "namespace": name, "name": pod})
    };
    assert!(is_pod(&local, &caller, "caller") && is_pod(&peer, &server, "server"), "{local} {peer}");

    // She may use the agents and list pods of this namespace, and knows nothing of others.
    let allow = |namespace: &str, role: &str, verbs: &str, resource: &str| {
        kubectl(&["create", "role", role, "-n", namespace, "--verb", verbs, "--resource", resource]);
        kubectl(&["create", "rolebinding", role, "-n", namespace, "--role", role, "--user=ann"]);
    };
    allow("gadget", "ann-agents", "list,watch", "pods");
    allow("gadget", "ann-exec", "get,create", "pods/exec");
    allow(name, "ann-pods", "list,watch", "pods");
    sees(&["tcptracer", "--connect", "--as", "ann"], Some(&by_pod), None);
    for role in ["ann-agents", "ann-exec"] {
        kubectl(&["delete", "role,rolebinding", role, "-n", "gadget"]);
    }

    // A sum over both ends of it, by who is at the other.
    let mut top = start(&["tcptop", "-n", name, "--by", "pod,peer", "-l", "app=caller"], 1);
    top.read_until_seen("what came from the server", |seen| {
        let is_it = |event: &Value| has_peer(event, 8080, Some(&by_pod)) && event["received"].as_u64() > Some(1000);
        seen.iter().any(|event| is_it(event) && event["pod"] == "caller" && event.get("local").is_none())
    });
    top.stop();
}
