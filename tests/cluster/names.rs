//! Containers are shown by name, whoever tells it.

use serde_json::{Value, json};
use tests::cluster::{
    Namespace, SLEEP, TICK, agents, agents_alone, deploy, exists, gadget_command, kubectl, pod, script, start,
};
use tests::{Client, wait_for};

/// Container and token of each event of a pod.
fn rows<'a>(lines: &'a [Value], pod: &str) -> Vec<(&'a str, &'a str)> {
    let is_its = |line: &&Value| line["type"] == "event" && line["pod"] == pod;
    let row = |line: &'a Value| (line["container"].as_str().unwrap(), line["args"][1].as_str().unwrap_or_default());
    lines.iter().filter(is_its).map(row).collect()
}

#[test]
fn of_containers_of_every_kind() {
    let _agents = agents();
    let namespace = Namespace::new("names");
    let mut all = start(&["execsnoop", "-A"], 2);
    let mut several = pod("several", "node-a", &["left", "right"], SLEEP);
    let init = json!({"name": "prepare", "image": "busybox:1", "command": ["/bin/true", "prepared"]});
    several["spec"]["initContainers"] = json!([init]);
    let pods = namespace.run(&[several]);
    ["left", "right"].iter().for_each(|container| pods[0].exec(container, container));
    namespace.debug("several", "debugger", &["/bin/true", "debugged"]);
    all.read_until_seen("the ephemeral container", |seen| {
        rows(seen, "several").iter().any(|(_, token)| *token == "debugged")
    });
    let seen = all.stop();
    let rows = rows(&seen.lines, "several");
    assert_eq!(rows.first(), Some(&("prepare", "prepared")), "{rows:?}");
    for (container, token) in [("left", "left"), ("right", "right"), ("debugger", "debugged")] {
        assert_eq!(rows.iter().filter(|row| row.1 == token).collect::<Vec<_>>(), [&(container, token)]);
    }
    assert!(rows.iter().all(|(container, _)| ["prepare", "left", "right", "debugger"].contains(container)), "{rows:?}");
}

/// Two pods, one after the other: what one did is never the other's, though both are remembered.
#[test]
fn of_pods_that_are_called_the_same() {
    let _agents = agents();
    let namespace = Namespace::new("same");
    let all = start(&["execsnoop", "-A"], 2);
    for life in ["first", "second"] {
        let mut same = pod("same", "node-a", &["main"], "");
        same["metadata"]["labels"]["life"] = life.into();
        same["spec"]["restartPolicy"] = "Never".into();
        same["spec"]["containers"][0]["command"] = json!(["/bin/true", life]);
        namespace.create(&[same]);
        let phase = ["get", "pod", "same", "-n", &namespace.name, "-o", "jsonpath={.status.phase}"];
        wait_for("its end", || kubectl(&phase) == "Succeeded");
        kubectl(&["delete", "pod", "same", "-n", &namespace.name]);
    }
    let seen = all.stop();
    let of_pod = seen.events().into_iter().filter(|event| event["namespace"] == namespace.name);
    let rows: Vec<_> = of_pod.map(|event| (&event["pod"], &event["args"][1], &event["labels"]["life"])).collect();
    let [same, first, second] = ["same", "first", "second"].map(Value::from);
    assert_eq!(rows, [(&same, &first, &first), (&same, &second, &second)]);
}

/// A pod of a node's own, from a file there: its cgroups are called by another id than the API server calls it by. Gone
/// when it is dropped.
struct StaticPod(&'static str);

impl StaticPod {
    fn new(node: &'static str, manifest: &Value) -> Self {
        let write = format!("mkdir -p {STATIC}; echo '{manifest}' >{STATIC}/pod.json");
        script(&["enter", node, "sh", "-c", &write]);
        Self(node)
    }
}

impl Drop for StaticPod {
    fn drop(&mut self) {
        script(&["enter", self.0, "rm", "-f", &format!("{STATIC}/pod.json")]);
    }
}

/// Where kubelets look for them.
const STATIC: &str = "/run/kubernetes/static";

#[test]
fn of_a_static_pod() {
    let _agents = agents();
    let namespace = Namespace::new("static");
    let mut client = Client::spawn(gadget_command(&["execsnoop", "-A", "-l", "app=fixed", "-o", "json"]));
    let mut manifest = pod("fixed", "node-a", &["main"], TICK);
    manifest["metadata"]["namespace"] = namespace.name.clone().into();
    let fixed = StaticPod::new("node-a", &manifest);
    let name = "fixed-node-a";
    client.read_until_seen("its events", |seen| rows(seen, name).len() > 3);
    let seen = client.stop();
    drop(fixed);
    wait_for("the pod to go", || !exists(&["pod", name, "-n", &namespace.name]));
    assert!(rows(&seen.lines, name).iter().all(|(container, _)| *container == "main"));
    let is_its = |event: &&Value| event["namespace"] == namespace.name && event["owner"] == "Node/node-a";
    assert!(seen.events().iter().all(is_its), "{:?}", seen.events()[0]);
}

/// Agents that find no bundles, until this is dropped.
struct BundlesElsewhere;

impl BundlesElsewhere {
    fn new() -> Self {
        set_bundles("GADGET_BUNDLES=");
        Self
    }
}

impl Drop for BundlesElsewhere {
    fn drop(&mut self) {
        set_bundles("GADGET_BUNDLES-");
    }
}

fn set_bundles(variable: &str) {
    kubectl(&["set", "env", "daemonset/gadget-agent", "-n", "gadget", variable]);
    kubectl(&["rollout", "status", "daemonset/gadget-agent", "-n", "gadget", "--timeout=120s"]);
}

/// Where nobody finds a runtime's bundles, the API server has the names, soon after a container has begun.
#[test]
fn from_the_api_server_where_the_runtime_says_none() {
    let _alone = agents_alone();
    deploy(&[]);
    let _elsewhere = BundlesElsewhere::new();
    let namespace = Namespace::new("no-bundles");
    let mut client = start(&["execsnoop", "-A"], 2);
    namespace.run(&[pod("late", "node-a", &["main"], TICK)]);
    client.read_until_seen("the name", |seen| rows(seen, "late").iter().any(|(container, _)| *container == "main"));
    let named = client.seen.len();
    client.read_until_seen("more", |seen| rows(&seen[named..], "late").len() > 3);
    assert!(rows(&client.seen[named..], "late").iter().all(|(container, _)| *container == "main"));
    client.stop();
}
