//! A shop, and the policies that would let it work and nothing else: judged by the API server and by the flows themselves.
//!
//! The cluster has neither kube-proxy nor DNS: rules of nft stand in for the one (a fake), and whoever echoes datagrams for the other.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tests::cluster::{
    NODES, Namespace, agents, command, deployment, gadget, gadget_command, get, kubectl, node_folder, pod, script,
};
use tests::{Client, Folder, dist};

/// Where nobody is, outside of the cluster.
const WORLD: &str = "192.0.2.10";
const ADVISE: [&str; 2] = ["advise", "network-policy"];

/// Sends a question to port 53 and asks for pages, over and over. What fails is of no matter.
fn calls(dns: &str, pages: &[String]) -> String {
    let pages: Vec<String> =
        pages.iter().map(|page| format!("timeout 1 wget -q -O /dev/null http://{page}/")).collect();
    format!("while sleep 0.3; do timeout 1 nslookup shop {dns}; {}; done", pages.join("; "))
}

fn serves(port: u16) -> String {
    format!("httpd -p {port} -h /etc")
}

fn service(name: &str, protocol: &str, port: u16, target: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"protocol": protocol, "port": port, "targetPort": target}]},
    })
}

/// A service's address.
fn address(namespace: &Namespace, service: &str) -> String {
    get(&["service", service, "-n", &namespace.name])["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

/// The address of a pod, by its label.
fn pod_address(namespace: &Namespace, app: &str) -> String {
    let pods = get(&["pods", "-n", &namespace.name, "-l", &format!("app={app}")]);
    pods["items"][0]["status"]["podIP"].as_str().unwrap().to_owned()
}

/// What stands for kube-proxy, on both nodes: removed at the end.
struct Proxy(String);

impl Proxy {
    fn new(name: &str, services: &[(&str, &str, u16, &str, u16)]) -> Self {
        let rule = |(address, protocol, port, backend, target): &(&str, &str, u16, &str, u16)| {
            format!("ip daddr {address} {protocol} dport {port} dnat to {backend}:{target}\n")
        };
        let rules: String = services.iter().map(rule).collect();
        // What comes from a pod is routed; what comes from the node itself begins there.
        let chain = |hook| format!("chain {hook} {{\ntype nat hook {hook} priority -100\n{rules}}}\n");
        let chains = ["prerouting", "output"].map(chain).concat();
        for node in NODES {
            script(&["enter", node, "nft", &format!("table ip {name} {{\n{chains}}}\n")]);
        }
        Self(name.to_owned())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // After a failure they stay, until the nodes' networks go.
        for node in NODES.into_iter().filter(|_| !std::thread::panicking()) {
            script(&["enter", node, "nft", "delete", "table", "ip", &self.0]);
        }
    }
}

/// A pod that is in its node's network.
fn in_host_network(mut pod: Value) -> Value {
    pod["spec"]["hostNetwork"] = true.into();
    pod
}

fn stateful_set(name: &str, node: &str, text: &str, port: u16) -> Value {
    let mut template = pod(name, node, &["main"], text);
    template["spec"]["containers"][0]["ports"] = json!([{"name": "sql", "containerPort": port}]);
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "serviceName": name,
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]}},
    })
}

fn job(name: &str, node: &str, text: &str) -> Value {
    let mut template = pod(name, node, &["main"], text);
    template["spec"]["restartPolicy"] = "Never".into();
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]}},
    })
}

/// Whoever answers datagrams: a program of the tests, which the node lends to the pod.
fn echo(name: &str, node: &str, port: u16) -> Value {
    let program = format!("workload-{}", std::process::id());
    fs::copy(dist("workload"), node_folder(node).join("lib").join(&program)).unwrap();
    let mut pod = pod(name, node, &["main"], &format!("exec /host/{program} echo-datagrams {port}"));
    pod["spec"]["volumes"] = json!([{"name": "host", "hostPath": {"path": "/var/lib"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
    pod
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is reported of a recording, and how it ended.
fn report(recording: &str, args: &[&str]) -> (String, String, Option<i32>) {
    let output = gadget(&[&ADVISE[..], &["report", "-i", recording], args].concat());
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Flows that were not seen, made of those that were: with a port, and then a peer, that nobody had.
fn unseen(events: &[&Value]) -> Vec<Value> {
    let is_bound = |event: &&&Value| event["local"]["kind"] == "pod" && event["peer"]["kind"] != "node";
    let seen: Vec<&Value> = events.iter().filter(is_bound).copied().collect();
    let changed = |number: usize| {
        let mut event = seen[number % seen.len()].clone();
        let port = u16::try_from(20_000 + number).unwrap();
        let counting = if event["direction"] == "egress" { "peer" } else { "local" };
        if number.is_multiple_of(2) {
            event[counting]["port"] = port.into();
        } else {
            let port = event["peer"]["port"].clone();
            event["peer"] = json!({"address": format!("203.0.113.{}", 1 + number % 200), "port": port});
        }
        event
    };
    (0..100).map(changed).collect()
}

#[test]
fn policies_let_a_shop_work_and_nothing_else() {
    let _agents = agents();
    let (shop, names, folder) = (Namespace::new("market"), Namespace::new("names"), Folder::new("shop"));
    names.create(&[service("dns", "UDP", 53, json!(5353))]);
    shop.create(&[service("web", "TCP", 80, json!(8080)), service("db", "TCP", 5432, json!("sql"))]);
    names.run(&[echo("dns", NODES[1], 5353)]);
    let edge_address = get(&["node", NODES[1]])["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();
    let [dns, web, db] = [(&names, "dns"), (&shop, "web"), (&shop, "db")].map(|(of, name)| address(of, name));
    let kubernetes = get(&["service", "kubernetes"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let api_server = get(&["endpoints", "kubernetes"])["subsets"][0]["addresses"][0]["ip"].as_str().unwrap().to_owned();

    let select = ["monitor", "-n", &shop.name, "-n", &names.name, "-o", "-"];
    let mut client = Client::spawn(gadget_command(&[&ADVISE[..], &select].concat()));
    client.wait_for_nodes(1);
    let pages =
        [format!("{db}:5432"), format!("{WORLD}:443"), format!("{kubernetes}:443"), format!("{edge_address}:9100")];
    let sql = format!("{}; exec sleep infinity", serves(9000));
    shop.create(&[stateful_set("db", NODES[1], &sql, 9000)]);
    shop.run(&[
        deployment("web", &format!("{}; {}", serves(8080), calls(&dns, &pages))),
        in_host_network(pod(
            "edge",
            NODES[1],
            &["main"],
            &format!("{}; {}", serves(9100), calls(&dns, std::slice::from_ref(&web))),
        )),
    ]);
    kubectl(&["wait", "pod/db-0", "-n", &shop.name, "--for=condition=Ready", "--timeout=60s"]);
    let backends = [pod_address(&names, "dns"), pod_address(&shop, "web"), pod_address(&shop, "db")];
    let services = [
        (&*dns, "udp", 53, &*backends[0], 5353),
        (&web, "tcp", 80, &backends[1], 8080),
        (&db, "tcp", 5432, &backends[2], 9000),
    ];
    let _proxy = Proxy::new(&shop.name, &services);
    // The other node takes part once it has pods. The job runs once.
    client.wait_for_nodes(1);
    shop.create(&[job("import", NODES[0], &format!("wget -q -O /dev/null http://{db}:5432/ || true"))]);

    // (workload, direction, protocol, the port that counts, peer's kind)
    let wanted = [
        ("web", "egress", "udp", 53, "svc"),
        ("web", "egress", "tcp", 5432, "svc"),
        ("web", "egress", "tcp", 443, "svc"),
        ("web", "egress", "tcp", 443, ""),
        ("web", "egress", "tcp", 9100, "node"),
        ("web", "ingress", "tcp", 8080, "node"),
        ("db", "ingress", "tcp", 9000, "pod"),
        ("dns", "ingress", "udp", 5353, "pod"),
        ("import", "egress", "tcp", 5432, "svc"),
    ];
    let has = |seen: &[Value], (app, direction, protocol, port, kind): (&str, &str, &str, i32, &str)| {
        seen.iter().any(|event| {
            let counting = if direction == "egress" { "peer" } else { "local" };
            event["labels"]["app"] == app
                && event["direction"] == direction
                && event["protocol"] == protocol
                && event[counting]["port"] == port
                && event["peer"]["kind"].as_str().unwrap_or_default() == kind
        })
    };
    for flow in wanted {
        client.read_until_seen(&format!("the flow {flow:?}"), |seen| has(seen, flow));
    }
    let seen = client.stop();
    assert_eq!(seen.lost(), 0, "{}", seen.said);
    let recording = folder.write("flows", &seen.lines);

    // The policies, as the API server takes them.
    let (policies, remarks, code) = report(&recording, &[]);
    assert_eq!(code, Some(0), "{remarks}");
    assert!(remarks.contains("edge"), "who is in the host's network is told: {remarks}");
    let file = folder.path("policies.yaml");
    fs::write(&file, &policies).unwrap();
    let dry = command("kubectl", &["apply", "--dry-run=server", "-f", &file]).output().unwrap();
    assert!(dry.status.success(), "{}{policies}", text(&dry.stderr));
    let list: Value = serde_json::from_str(&report(&recording, &["-o", "json"]).0).unwrap();
    let of = |name: &str| {
        let mut items = list["items"].as_array().unwrap().iter();
        &items.find(|policy| policy["metadata"]["name"] == name).unwrap_or_else(|| panic!("{name}: {policies}"))["spec"]
    };
    let names_of: BTreeSet<&str> =
        list["items"].as_array().unwrap().iter().map(|policy| policy["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names_of, BTreeSet::from(["db", "dns", "import", "web"]));
    assert_eq!(of("web")["podSelector"], json!({"matchLabels": {"app": "web"}}));
    assert_eq!(of("import")["podSelector"], json!({"matchLabels": {"app": "import"}}));
    let web = of("web").to_string();
    for part in [
        json!([{"port": "sql", "protocol": "TCP"}]),
        json!([{"port": 5353, "protocol": "UDP"}]),
        json!({"cidr": format!("{WORLD}/32")}),
        json!({"cidr": format!("{edge_address}/32")}),
        json!({"cidr": format!("{api_server}/32")}),
        json!({"matchLabels": {"kubernetes.io/metadata.name": names.name}}),
    ] {
        assert!(web.contains(&part.to_string()), "{part}: {web}");
    }
    let addresses = [&dns, &db, &kubernetes];
    assert!(!addresses.iter().any(|service| policies.contains(&format!("{service}/32"))), "{policies}");

    // They let through what was seen, and nothing else.
    let (told, remarks, code) = report(&recording, &["--check", &file]);
    assert_eq!(code, Some(0), "{told}{remarks}");
    let events = seen.events();
    let start = seen.lines.iter().find(|line| line["type"] == "start").unwrap().clone();
    let others: Vec<Value> = [start].into_iter().chain(unseen(&events)).collect();
    let (told, remarks, code) = report(&folder.write("others", &others), &["--check", &file]);
    assert_eq!(code, Some(4), "{told}{remarks}");
    assert!(told.ends_with("0 of 100 flows that were seen are allowed\n"), "{told}{remarks}");

    // Once they are in force nothing is left to say.
    kubectl(&["apply", "-f", &file]);
    let (more, remarks, code) = report(&recording, &["--with-existing"]);
    assert!(code == Some(0) && more.trim().is_empty(), "{more}{remarks}");
    assert_eq!(report(&recording, &["--check-existing"]).2, Some(0));
    for (form, beginning) in [("svg", "<svg"), ("dot", "digraph"), ("mermaid", "flowchart")] {
        let (picture, remarks, code) = report(&recording, &["-o", form]);
        assert!(code == Some(0) && picture.contains(beginning), "{picture}{remarks}");
    }
}
