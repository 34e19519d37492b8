//! Advice that is followed: on the nodes' kubelets and by the API server.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::cluster::{
    NODES, Namespace, SLEEP, agents, deployment, gadget, gadget_command, get, kubectl, node_folder, pod,
};
use tests::{Client, Folder, wait_for};

/// What the watched pods do, and what they do not.
const SEEN: &str = "mkdir /seen && rmdir /seen";
const UNSEEN: &str = "ln -s nowhere /unseen";

/// A pod that runs a script once, confined by a profile of its node.
fn confined(name: &str, profile: &str, script: &str) -> Value {
    let mut pod = pod(name, NODES[0], &["main"], script);
    pod["spec"]["restartPolicy"] = "Never".into();
    pod["spec"]["securityContext"] = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": profile}});
    pod
}

fn phase(namespace: &Namespace, pod: &str) -> String {
    get(&["pod", pod, "-n", &namespace.name])["status"]["phase"].as_str().unwrap().to_owned()
}

#[test]
fn a_seccomp_profile_lets_pods_do_what_they_did_and_nothing_else() {
    let _agents = agents();
    let (namespace, folder) = (Namespace::new("confined"), Folder::new("confined"));
    // Both nodes have a pod already, so that the others are seen from their first program.
    namespace.run(&[deployment("first", SLEEP)]);
    let args = ["advise", "seccomp-profile", "monitor", "-n", &namespace.name, "-o", "-"];
    let mut client = Client::spawn(gadget_command(&args));
    client.wait_for_nodes(2);
    namespace.run(&[deployment("web", &format!("{SEEN}; exec sleep infinity"))]);
    client.read_until_seen("what both pods did", |seen| {
        let did = |node| seen.iter().any(|line| line["node"] == node && line["syscall"] == "rmdir");
        NODES.iter().all(|node| did(*node))
    });
    let seen = client.stop();
    assert_eq!(seen.lost(), 0, "{}", seen.said);
    let recording = folder.write("recording", &seen.lines);

    let profiles = folder.path("profiles");
    let said = gadget(&["advise", "seccomp-profile", "report", "-i", &recording, "--dir", &profiles]);
    let (told, remarks) = (String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap());
    assert!(told.contains("Deployment/web, container main, 2 pods\n"), "{told}{remarks}");
    assert!(!remarks.contains("Deployment/web"), "what it needs to start was seen: {remarks}");
    let profile = format!("{}-web-main.json", namespace.name);
    let installed = node_folder(NODES[0]).join("lib/kubelet/seccomp");
    fs::create_dir_all(&installed).unwrap();
    fs::copy(PathBuf::from(&profiles).join(&profile), installed.join(&profile)).unwrap();

    namespace.create(&[confined("same", &profile, SEEN), confined("other", &profile, UNSEEN)]);
    let ended = |pod| ["Succeeded", "Failed"].contains(&&*phase(&namespace, pod));
    wait_for("the confined pods' ends", || ended("same") && ended("other"));
    let said = |pod| kubectl(&["logs", pod, "-n", &namespace.name]);
    assert_eq!(phase(&namespace, "same"), "Succeeded", "{}", said("same"));
    assert_eq!(phase(&namespace, "other"), "Failed");
    assert!(said("other").contains("Operation not permitted"), "{}", said("other"));
    fs::remove_file(installed.join(&profile)).unwrap();
}
