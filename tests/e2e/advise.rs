//! What follows from what containers were seen to do; runtimes that obey it are the witnesses.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tests::{Client, Folder, Pod, client_command, client_output, loads_programs, shared_folder, wait_for};

use super::cgroups::Cgroups;

#[test]
fn capabilities_that_were_used_and_lacked_and_why() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("report");
    let path = cgroups.make("");
    let client = Client::start(&["capabilities", "--cgroup", &path, "--summary"]);
    cgroups.run("", "chroot / true; setpriv --bounding-set -sys_chroot --inh-caps -sys_chroot chroot / true || true");
    let seen = client.stop();
    assert!(seen.events().is_empty() && seen.of_type("capabilities").len() == 1, "{:?}", seen.lines);
    let found = &seen.of_type("capabilities")[0];
    assert_eq!(found["used"]["SYS_CHROOT"], serde_json::json!(["chroot"]), "{found}");
    assert_eq!(found["lacked"]["SYS_CHROOT"], serde_json::json!(["chroot"]), "{found}");
    // All programs want memory, and none needs that for it.
    assert_eq!(found["used"].get("SYS_ADMIN"), None, "{found}");
}

#[test]
fn what_nobody_did_needs_nothing() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("nothing");
    let path = cgroups.make("");
    let args = ["capabilities", "--local", "--cgroup", &path, "--summary", "--timeout", "100ms"];
    let output = client_command("kubectl-gadget", &args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && output.stdout.is_empty() && said.contains("shown at the end"), "{said}");
}

#[test]
fn capabilities_of_a_recording() {
    let _loads = loads_programs();
    let (cgroups, folder) = (Cgroups::new("recorded"), Folder::new("recorded"));
    let path = cgroups.make("");
    let args = ["advise", "capabilities", "monitor", "--local", "--cgroup", &path, "-o", "-"];
    let mut client = Client::spawn(client_command("kubectl-gadget", &args));
    client.wait_for_nodes(1);
    cgroups.run("", "chroot / true");
    let recording = folder.write("recording", &client.stop().lines);
    let said = client_output(&["advise", "capabilities", "report", "-i", &recording]);
    let yaml = text(&said.stdout);
    assert!(said.status.success() && yaml.contains("    drop: [ALL]\n    add:\n    - SYS_CHROOT # chroot\n"), "{yaml}");
}

const ADVISE: [&str; 2] = ["advise", "seccomp-profile"];
/// What the watched container does, and what it does not.
const SEEN: &str = "mkdir /tmp/advised && rmdir /tmp/advised";
const UNSEEN: &str = "ln -s nowhere /tmp/unadvised && rm /tmp/unadvised";

/// What a container is seen to call, in a file.
fn record(folder: &Folder, pod: &str, script: &str) -> String {
    let select = ["monitor", "--local", "-n", "advice", "-p", pod, "-o", "-"];
    let mut client = Client::spawn(client_command("kubectl-gadget", &[&ADVISE[..], &select].concat()));
    client.wait_for_nodes(1);
    Pod::new("advice", pod).run_once("app", &["sh", "-c", script]);
    let seen = client.stop();
    assert_eq!(seen.lost(), 0);
    folder.write(pod, &seen.lines)
}

fn report(args: &[&str]) -> Output {
    client_output(&[&ADVISE[..], &["report"], args].concat())
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// Runs a script in a container of this runtime that has this profile.
fn run_confined(folder: &Folder, runtime: &str, profile: &str, script: &str) -> Output {
    let profile: Value = serde_json::from_slice(&fs::read(profile).unwrap()).unwrap();
    let name = format!("kubectl-gadget-advice-{runtime}");
    let namespaces = ["pid", "mount"].map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {"args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": shared_folder().parent().unwrap()},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{name}"), "seccomp": profile},
    });
    fs::write(folder.path("config.json"), config.to_string()).unwrap();
    // crun wants cgroup v2 and nothing else.
    let start = format!("mount -t cgroup2 none /sys/fs/cgroup && exec {runtime} run {name}");
    let own_mounts = ["--mount", "--propagation", "private", "sh", "-c", &start];
    Command::new("unshare").args(own_mounts).current_dir(folder.path(".")).output().unwrap()
}

#[test]
fn a_profile_lets_a_container_do_what_it_did_and_nothing_else() {
    let _loads = loads_programs();
    let folder = Folder::new("advice");
    let (seen, unseen) = (record(&folder, "web", SEEN), record(&folder, "odd", UNSEEN));
    let written = report(&["-i", &seen, "--dir", &folder.path("profiles")]);
    assert!(written.status.success() && written.stderr.is_empty(), "{}", text(&written.stderr));
    assert!(text(&written.stdout).ends_with("web-app.json: advice: Pod/web, container app, 1 pod\n"));
    let profile = folder.path("profiles/advice-web-app.json");

    for runtime in ["runc", "crun"] {
        let same = run_confined(&folder, runtime, &profile, SEEN);
        assert!(same.status.success(), "{runtime}: {}", text(&same.stderr));
        let other = run_confined(&folder, runtime, &profile, UNSEEN);
        let said = text(&other.stderr);
        assert!(!other.status.success() && said.contains("Operation not permitted"), "{runtime}: {said}");
    }
    assert!(!Path::new("/sys/fs/cgroup/unified/kubectl-gadget-advice-crun").exists());

    let check = |recording: &str| report(&["-i", recording, "--check", &profile]);
    assert_eq!(check(&seen).status.code(), Some(0));
    let refused = check(&unseen);
    assert_eq!(refused.status.code(), Some(4));
    let refused = text(&refused.stdout);
    assert!(refused.contains("Pod/odd, container app: symlink would be refused (SCMP_ACT_ERRNO"), "{refused}");

    let wrong = client_output(&["advise", "capabilities", "report", "-i", &seen]);
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("this is a recording of syscalls"));
}

#[test]
fn a_profile_of_a_container_that_ran_before_says_so() {
    let _loads = loads_programs();
    let pod = Pod::new("advice", "early");
    pod.run("app", &["sh", "-c", "while sleep 0.05; do mkdir /tmp/early; rmdir /tmp/early; done"]);
    let select = ["--local", "-n", "advice", "-p", "early", "-o", "json"];
    let client = Client::spawn(client_command("kubectl-gadget", &[&ADVISE[..], &select].concat()));
    wait_for("the start", || client.said().contains("watching"));
    pod.run("other", &["true"]);
    pod.wait("other");
    assert!(client.seen.is_empty());
    let seen = client.stop();
    let profiles = seen.of_type("seccomp-profile");
    let [early, other] = profiles[..] else { panic!("{:?}", seen.lines) };
    assert_eq!((&early["container"], &other["container"]), (&"app".into(), &"other".into()));
    let has = |profile: &Value, name: &str| {
        profile["profile"]["syscalls"][0]["names"].as_array().unwrap().contains(&name.into())
    };
    assert!(has(early, "mkdir") && !has(other, "mkdir"));
    assert!(seen.said.contains("app, 1 pod: it was running already") && !seen.said.contains("other, 1 pod: it was"));
}
