//! A run sees the pods that it is about, wherever they are and whenever they come.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tests::cluster::{
    NODES, Namespace, Pod, SLEEP, TICK, agents, cgroup, deployment, gadget_command, kubectl, pod, start,
};
use tests::{Client, Seen, temporary, wait_for};

/// What tells whose an event is, and which.
fn row(event: &Value) -> Value {
    let names = ["node", "namespace", "pod", "container", "owner", "labels"];
    let mut row: Value = names.map(|name| (name, event[name].clone())).into_iter().collect();
    row["token"] = event["args"][1].clone();
    row
}

/// Executes something in each container of a pod, and returns the rows that this makes.
fn exec_in_all(pod: &Pod) -> Vec<Value> {
    let Pod { namespace, name, node, labels, containers } = pod;
    let owner = labels.contains_key("pod-template-hash").then(|| format!("Deployment/{}", pod.app()));
    let exec = |container: &String| {
        let token = format!("{name}/{container}");
        pod.exec(container, &token);
        json!({
            "node": node, "namespace": namespace, "pod": name, "container": container, "owner": owner,
            "labels": labels, "token": token,
        })
    };
    containers.iter().map(exec).collect()
}

/// The same on a node, in no pod.
fn exec_outside(node: &str) -> Value {
    let token = format!("{node}/outside");
    let folder = cgroup(node).join(format!("outside-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let script = format!("echo $$ >{}/cgroup.procs; exec /bin/true {token}", folder.display());
    let status = Command::new("sh").args(["-c", &script]).status();
    wait_for("the cgroup to be empty", || fs::remove_dir(&folder).is_ok());
    assert!(status.unwrap().success());
    row(&json!({"node": node, "args": ["/bin/true", token]}))
}

/// A run, on how many nodes, and which rows it must have.
type Case<'a> = (Vec<&'a str>, usize, Box<dyn Fn(&Value) -> bool>);

#[test]
fn each_run_sees_the_execs_of_what_it_selects_and_no_others() {
    let _agents = agents();
    let (shop, bank) = (Namespace::new("shop"), Namespace::new("bank"));
    let mut pods = shop.run(&[
        deployment("web", SLEEP),
        deployment("db", SLEEP),
        pod("pair", "node-a", &["left", "right"], SLEEP),
    ]);
    pods.extend(bank.run(&[pod("api", "node-b", &["main"], SLEEP)]));
    let nodes_of =
        |app: &str| -> BTreeSet<&str> { pods.iter().filter(|pod| pod.app() == app).map(|pod| &*pod.node).collect() };
    assert_eq!((nodes_of("web"), nodes_of("db")), (NODES.into(), NODES.into()));

    // A context whose namespace is bank.
    let config = temporary("bank.kubeconfig", kubectl(&["config", "view", "--raw"]).as_bytes(), 0o600);
    let config = config.to_str().unwrap();
    kubectl(&["config", "set-context", "--current", "--namespace", &bank.name, "--kubeconfig", config]);

    let web = pods.iter().find(|pod| pod.app() == "web").unwrap().clone();
    let is = |name: &'static str, value: &str| {
        let value = value.to_owned();
        move |row: &Value| row[name] == *value
    };
    let app = |values: &'static [&str]| move |row: &Value| values.iter().any(|app| row["labels"]["app"] == *app);
    let shops = is("namespace", &shop.name);
    let one_or_other = [format!("pod/{}", web.name), "deployment.apps/db".to_owned()];
    let both = format!("{},{}", shop.name, bank.name);
    let cases: Vec<Case> = vec![
        (vec!["-n", &shop.name, "-l", "app=web"], 2, Box::new(app(&["web"]))),
        (vec!["-A", "-l", "app in (web,api)"], 2, Box::new(app(&["web", "api"]))),
        (vec!["-n", &shop.name, "-p", &web.name], 1, Box::new(is("pod", &web.name))),
        (vec!["-n", &shop.name, &one_or_other[0], &one_or_other[1]], 2, {
            let name = web.name.clone();
            Box::new(move |row| row["pod"] == *name || row["owner"] == "Deployment/db")
        }),
        (vec!["-n", &shop.name, "-c", "right"], 2, Box::new(is("container", "right"))),
        (vec!["-n", &both, "-l", "app!=web"], 2, Box::new(app(&["db", "pair", "api"]))),
        (vec!["--kubeconfig", config], 1, Box::new(is("namespace", &bank.name))),
        (vec!["-n", &shop.name, "--node", "node-b"], 1, Box::new(move |row| shops(row) && row["node"] == "node-b")),
        (vec!["-A"], 2, Box::new(|row| row["pod"].is_string())),
        (vec!["--node", "node-a"], 1, Box::new(is("node", "node-a"))),
        (vec!["--node"], 2, Box::new(|_| true)),
        (vec!["--host=outside"], 2, Box::new(|row| row["pod"].is_null())),
    ];
    let runs: Vec<Client> =
        cases.iter().map(|(args, nodes, _)| start(&[&["execsnoop"], &args[..]].concat(), *nodes)).collect();

    let mut made: Vec<Value> = pods.iter().flat_map(exec_in_all).collect();
    made.extend(NODES.map(exec_outside));
    made.sort_by_key(|row| row["token"].to_string());

    for ((args, _, is_wanted), run) in cases.iter().zip(runs) {
        let seen = run.stop();
        let mut rows: Vec<Value> = seen.events().into_iter().map(row).collect();
        if args.contains(&"-A") || args.len() <= 2 && (args[0] == "--node" || args[0] == "--host=outside") {
            // Others' pods too, and what runs outside of pods.
            rows.retain(|row| made.iter().any(|made| made["token"] == row["token"]));
        } else {
            assert_eq!(seen.gaps(), [&Value::Null; 0], "{args:?}");
        }
        assert_eq!(seen.lost(), 0, "{args:?}");
        rows.sort_by_key(|row| row["token"].to_string());
        let wanted: Vec<_> = made.iter().filter(|row| is_wanted(row)).cloned().collect();
        assert_eq!(rows, wanted, "{args:?}");
    }
}

#[test]
fn programs_get_one_object_a_line_and_people_a_summary() {
    let _agents = agents();
    let namespace = Namespace::new("lines");
    namespace.run(&[deployment("web", TICK), deployment("db", TICK)]);
    let args = ["execsnoop", "-l", "app in (web,api)", "-A", "-o", "json", "--timeout", "3s"];
    // Reading it fails if a line is no object.
    let seen = Client::spawn(gadget_command(&args)).finish();
    assert_eq!(seen.status.code(), Some(0), "{}", seen.said);
    let events = seen.events();
    for node in NODES {
        let of_node = |event: &&&Value| event["node"] == node && event["namespace"] == namespace.name;
        assert!(events.iter().any(|event| of_node(&event)), "nothing of {node}");
    }
    assert!(events.iter().all(|event| event["labels"]["app"] == "web" || event["labels"]["app"] == "api"));
    assert_eq!(seen.lines[0]["type"], "start");
    let summary = seen.summary();
    assert_eq!((&summary["complete"], &summary["lost"]), (&true.into(), &0.into()));
    assert_eq!(seen.gaps(), [&Value::Null; 0]);
    assert_eq!(summary["events"], events.len());
    assert_eq!(seen.said.lines().last(), Some(&*format!("{} events of 2 nodes, none lost", events.len())));
}

/// A pod whose first program is all that there is to see of it.
fn first(index: usize) -> Value {
    let mut pod = pod(&format!("first-{index}"), NODES[index % 2], &["main"], "");
    pod["spec"]["restartPolicy"] = "Never".into();
    pod["spec"]["containers"][0]["command"] = json!(["/bin/true", format!("first-{index}")]);
    pod
}

/// `PODS=50` makes so many, instead of a few.
#[test]
fn pods_that_come_later_are_seen_from_their_first_program() {
    let _agents = agents();
    let namespace = Namespace::new("later");
    let everywhere = start(&["execsnoop", "-A"], 2);
    let mut here = Client::spawn(gadget_command(&["execsnoop", "-n", &namespace.name, "-o", "json"]));
    wait_for("a run that watches no node yet", || here.said().contains("no pod matches yet"));
    let count = std::env::var("PODS").map_or(10, |count| count.parse().unwrap());
    let names: Vec<String> = (0..count).map(|index| format!("first-{index}")).collect();
    (0..names.len()).for_each(|index| namespace.create(&[first(index)]));
    kubectl_wait_for_end(&namespace);
    here.wait_for_nodes(2);

    let of_pod = |seen: &Seen, name: &str| -> Vec<Value> {
        let is_its = |event: &&Value| event["namespace"] == namespace.name && event["pod"] == name;
        seen.events().into_iter().filter(is_its).map(|event| event["args"].clone()).collect()
    };
    let (everywhere, here) = (everywhere.stop(), here.stop());
    assert_eq!((everywhere.lost(), here.lost()), (0, 0));
    let first_program = |name: &str| vec![json!(["/bin/true", name])];
    for name in &names {
        assert_eq!(of_pod(&everywhere, name), first_program(name), "where the node was watched");
        // Where it was not, whoever came too late must say so.
        let gap = |gap: &&Value| gap["reason"].as_str().unwrap().contains(name.as_str());
        let events = of_pod(&here, name);
        let is_told = events.is_empty() && here.of_type("gap").iter().any(gap);
        assert!(is_told || events == first_program(name), "{name} is neither seen nor told: {:?}", here.lines);
    }
    let of_namespace = everywhere.events().into_iter().filter(|event| event["namespace"] == namespace.name);
    assert_eq!(of_namespace.count(), names.len());
}

fn kubectl_wait_for_end(namespace: &Namespace) {
    wait_for("the pods to end", || {
        let phases = kubectl(&["get", "pods", "-n", &namespace.name, "-o", "jsonpath={.items[*].status.phase}"]);
        phases.split(' ').all(|phase| phase == "Succeeded")
    });
}

/// The numbers of ticks, in their order.
fn ticks(lines: &[Value]) -> Vec<u64> {
    let is_tick = |line: &&Value| line["type"] == "event" && line["args"][0] == "/bin/true";
    lines.iter().filter(is_tick).map(|tick| tick["args"][1].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_pod_that_is_relabelled_goes_from_one_run_to_another_without_a_hole() {
    let _agents = agents();
    let namespace = Namespace::new("labels");
    namespace.run(&[pod("anchor", "node-a", &["main"], SLEEP), pod("mover", "node-a", &["main"], TICK)]);
    let follow = |apps: &str| start(&["execsnoop", "-n", &namespace.name, "-l", apps], 1);
    // The anchor is there so that both watch the node from the start.
    let (mut one, mut other) = (follow("app in (anchor,mover)"), follow("app in (anchor,moved)"));
    let label =
        |app: &str| kubectl(&["label", "pod", "mover", "-n", &namespace.name, "--overwrite", &format!("app={app}")]);
    let last = |client: &Client| ticks(&client.seen).last().copied();
    one.read_until_seen("a tick", |seen| !ticks(seen).is_empty());
    label("moved");
    other.read_until_seen("a tick after the relabelling", |seen| !ticks(seen).is_empty());
    label("mover");
    let moved = last(&other);
    one.read_until_seen("a tick after it was undone", |seen| ticks(seen).last().copied() > moved);
    let (one, other) = (one.stop(), other.stop());
    let (ones, others) = (ticks(&one.lines), ticks(&other.lines));
    let mut all = [&ones[..], &others[..]].concat();
    all.sort_unstable();
    let (first, last) = (all[0], all[all.len() - 1]);
    assert_eq!(all, (first..=last).collect::<Vec<_>>(), "{ones:?} {others:?}");
    let have = |seen: &Seen, app: &str| seen.events().iter().all(|event| event["labels"]["app"] == app);
    assert!(have(&one, "mover") && have(&other, "moved"));
}
