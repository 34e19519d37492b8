//! Pods are named by what they belong to, and shown with it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::cluster::{NODES, Namespace, TICK, agents, deployment, get, kubectl, pod, start};
use tests::wait_for;

/// Something that makes pods of one container `main`, which ticks.
fn workload(api: &str, kind: &str, name: &str, node: Option<&str>) -> Value {
    let mut template = pod(name, NODES[0], &["main"], TICK);
    match node {
        Some(node) => template["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node}),
        None => template["spec"]["nodeSelector"] = json!({}),
    }
    let labels = json!({"app": name});
    let mut spec = json!({"template": {"metadata": {"labels": labels}, "spec": template["spec"]}});
    match kind {
        "Job" => spec["template"]["spec"]["restartPolicy"] = "Never".into(),
        _ => spec["selector"] = json!({"matchLabels": labels}),
    }
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

#[test]
fn pods_of_a_workload_are_seen_and_no_others() {
    let _agents = agents();
    let namespace = Namespace::new("workloads");
    // It is never due: what it would make is made here.
    namespace.create(&[json!({
        "apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": {"name": "backup"},
        "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {
            "spec": {"template": {"spec": workload("batch/v1", "Job", "none", None)["spec"]["template"]["spec"]}},
        }},
    })]);
    let cron_job = get(&["cronjob", "backup", "-n", &namespace.name]);
    let mut scheduled = workload("batch/v1", "Job", "backup-1", Some("node-a"));
    scheduled["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": "backup", "uid": cron_job["metadata"]["uid"],
        "controller": true,
    }]);
    namespace.create(&[
        scheduled,
        // Its name is like that of the other, and it belongs to nobody.
        workload("batch/v1", "Job", "backup-2", Some("node-b")),
        workload("apps/v1", "StatefulSet", "db", Some("node-b")),
        workload("apps/v1", "DaemonSet", "proxy", None),
        deployment("web", TICK),
        pod("alone", "node-a", &["main"], TICK),
    ]);
    wait_for("all pods", || namespace.pods().len() == 8);
    kubectl(&["wait", "pod", "--all", "-n", &namespace.name, "--for=condition=Ready", "--timeout=60s"]);
    let pods = namespace.pods();
    let of_app = |app: &str| -> BTreeSet<String> {
        pods.iter().filter(|pod| pod.labels["app"] == app).map(|pod| pod.name.clone()).collect()
    };

    // What is asked for, on how many nodes, whose pods these are, and what is said of them.
    let replica_set = get(&["replicaset", "-n", &namespace.name])["items"][0]["metadata"]["name"].clone();
    let replica_set = format!("rs/{}", replica_set.as_str().unwrap());
    let cases = [
        ("cronjob/backup", 2, "backup-1", json!("CronJob/backup")),
        ("job/backup-1", 1, "backup-1", json!("CronJob/backup")),
        ("jobs.batch/backup-2", 1, "backup-2", json!("Job/backup-2")),
        ("sts/db", 1, "db", json!("StatefulSet/db")),
        ("ds/proxy", 2, "proxy", json!("DaemonSet/proxy")),
        ("deploy/web", 2, "web", json!("Deployment/web")),
        (&replica_set, 2, "web", json!("Deployment/web")),
        ("pod/alone", 1, "alone", Value::Null),
    ];
    let run = |workload: &str, nodes| start(&["execsnoop", "-n", &namespace.name, workload], nodes);
    let clients: Vec<_> = cases.iter().map(|(workload, nodes, ..)| run(workload, *nodes)).collect();
    let pods_of = |lines: &[Value]| -> BTreeSet<String> {
        lines.iter().filter_map(|line| Some(line["pod"].as_str()?.to_owned())).collect()
    };
    for ((workload, _, app, owner), mut client) in cases.into_iter().zip(clients) {
        let wanted = of_app(app);
        assert!(!wanted.is_empty(), "{app}");
        client.read_until_seen("events of all pods", |seen| pods_of(seen).is_superset(&wanted));
        let seen = client.stop();
        assert_eq!(pods_of(&seen.lines), wanted, "{workload}");
        assert!(seen.events().iter().all(|event| event["owner"] == owner), "{workload}: {:?}", seen.events()[0]);
    }
}
