//! Events belong to the right container, from its first instruction.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{Client, Daemon, Pod, bundles, loads_programs};

use super::cgroups::Cgroups;

#[test]
fn containers_that_start_during_the_run_are_seen_from_their_first_exec() {
    let _loads = loads_programs();
    let client = Client::start(&["execsnoop", "-n", "short"]);
    let watched = Pod::new("short", "lived");
    let unwatched = Pod::new("other", "lived");
    for index in 0..20 {
        watched.run(&format!("app-{index}"), &["/bin/true", &format!("watched-{index}")]);
        unwatched.run(&format!("app-{index}"), &["/bin/true", &format!("unwatched-{index}")]);
    }
    let seen = client.stop();
    let events: Vec<_> = seen
        .events()
        .iter()
        .map(|event| (event["pod"].clone(), event["container"].clone(), event["args"][1].clone()))
        .collect();
    let expected: Vec<_> = (0..20)
        .map(|index| ("lived".into(), format!("app-{index}").into(), format!("watched-{index}").into()))
        .collect();
    assert_eq!(events, expected);
}

#[test]
fn containers_that_ran_before_are_known_by_name() {
    let _loads = loads_programs();
    let pod = Pod::new("old", "one");
    pod.run("app", &["sleep", "1000"]);
    let client = Client::start(&["execsnoop", "-c", "app", "-n", "old"]);
    pod.exec("app", &["/bin/true", "inside"]);
    let seen = client.stop();
    let events = seen.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0]["pod"], &events[0]["args"][1]), (&"one".into(), &"inside".into()));
}

#[test]
fn sandboxes_are_shown_only_when_asked_for() {
    let _loads = loads_programs();
    let quiet = Client::start(&["execsnoop", "-n", "boxes"]);
    let full = Client::start(&["execsnoop", "-n", "boxes", "--machinery"]);
    let pod = Pod::new("boxes", "one");
    pod.run("app", &["/bin/true", "app"]);
    // Now and then runc executes itself in the cgroup; those rows are marked.
    let programs = |client: Client| -> Vec<String> {
        let seen = client.stop();
        let own = seen.events().into_iter().filter(|event| event.get("setup").is_none());
        own.map(|event| event["args"][0].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(programs(quiet), ["/bin/true"]);
    assert_eq!(programs(full), ["sleep", "/bin/true"]);
}

fn args(seen: &tests::Seen) -> Vec<String> {
    seen.events().iter().map(|event| event["args"][1].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn any_cgroup_can_be_named_and_those_made_in_it_belong_to_it() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("named");
    let path = cgroups.make("/a");
    cgroups.make("/b");
    cgroups.make("/a/before");
    let client = Client::start(&["execsnoop", "--cgroup", &path]);
    cgroups.make("/a/after/deep");
    for (below, token) in [("/a", "1"), ("/b", "2"), ("/a/before", "3"), ("/a/after/deep", "4")] {
        cgroups.run(below, &format!("/bin/true {token}"));
    }
    assert_eq!(args(&client.stop()), ["1", "3", "4"]);
}

#[test]
fn a_cgroup_that_was_named_is_followed_when_it_is_made_anew() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("anew");
    let path = cgroups.make("/unit");
    cgroups.make("/elsewhere");
    let client = Client::start(&["execsnoop", "--cgroup", &path]);
    cgroups.run("/unit", "/bin/true 1");
    fs::remove_dir(cgroups.directory("/unit")).unwrap();
    cgroups.make("/unit/below");
    cgroups.make("/elsewhere/unit");
    for (below, token) in [("/unit", "2"), ("/unit/below", "3"), ("/elsewhere/unit", "4")] {
        cgroups.run(below, &format!("/bin/true {token}"));
    }
    assert_eq!(args(&client.stop()), ["1", "2", "3"]);
}

#[test]
fn a_container_cannot_hide_what_it_does_by_moving_it() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("hide");
    let path = cgroups.make(&format!("/kubepods/pod{}/{}", "d".repeat(32), "e".repeat(64)));
    let below = path.strip_prefix(&cgroups.path("")).unwrap().to_owned();
    cgroups.make(&format!("{below}/sub"));
    let client = Client::start(&["execsnoop", "--cgroup", &path]);
    let sub = cgroups.directory(&below).join("sub/cgroup.procs");
    let fifo = cgroups.file();
    let script = format!(
        "mkfifo {fifo}; (read go; /bin/true moved) <{fifo} & exec 3>{fifo}; echo $! >{sub}; echo go >&3; wait $!; rm {fifo}",
        fifo = fifo.display(),
        sub = sub.display()
    );
    cgroups.run(&below, &script);
    assert!(args(&client.stop()).contains(&"moved".to_owned()));
}

#[test]
fn a_runtimes_steps_before_the_program_are_marked_and_hidden() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("setup");
    let path = cgroups.make(&format!("/kubepods/pod{}/{}", "a".repeat(32), "b".repeat(64)));
    let below = path.strip_prefix(&cgroups.path("")).unwrap().to_owned();
    let quiet = Client::start(&["execsnoop", "--cgroup", &path]);
    let full = Client::start(&["execsnoop", "--cgroup", &path, "--machinery"]);
    // As runc does: what is moved in executes once more in the host's mount namespace, and the program in its own.
    let steps = "echo ready; read go; /missing step 2>/dev/null; exec /usr/bin/unshare --mount /bin/true program";
    let script = r#"
        mkfifo $0.go $0.ready
        sh -c "$1" <$0.go >$0.ready & exec 3>$0.go 4<$0.ready
        read ready <&4; echo $! >$2; echo go >&3; wait $!
        rm $0.go $0.ready"#;
    let procs = cgroups.directory(&below).join("cgroup.procs");
    let name = cgroups.file();
    assert!(Command::new("sh").args(["-c", script]).arg(name).arg(steps).arg(procs).status().unwrap().success());
    assert_eq!(args(&quiet.stop()), ["program"]);
    let full = full.stop();
    assert_eq!(args(&full), ["step", "--mount", "program"]);
    let marked: Vec<bool> = full.events().iter().map(|event| event.get("setup").is_some()).collect();
    assert_eq!(marked, [true, true, false]);
}

#[test]
fn events_of_a_container_whose_names_come_late_wait_for_them() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("late");
    let id = format!("{:064x}", std::process::id());
    let path = cgroups.make("/kubepods");
    let client = Client::start(&["execsnoop", "-p", "late"]);
    let below = format!("/kubepods/pod{}/{id}", "c".repeat(32));
    cgroups.make(&below);
    cgroups.run(&below, "exec /bin/true early");
    // The bundle appears only now: the event was let through, and held back, because nobody knew whose it was.
    let bundle = Path::new(bundles().trim_end_matches('*')).join("k8s.io").join(&id);
    fs::create_dir_all(&bundle).unwrap();
    let config =
        r#"{"annotations":{"io.kubernetes.cri.sandbox-name":"late","io.kubernetes.cri.container-name":"app"}}"#;
    fs::write(bundle.join("config.json"), config).unwrap();
    cgroups.run(&below, "exec /bin/true later");
    let mut client = client;
    assert!(client.read_until(|line| line["args"][1] == "later"));
    let seen = client.stop();
    fs::remove_dir_all(&bundle).unwrap();
    assert_eq!(args(&seen), ["early", "later"], "{path}");
    assert!(seen.events().iter().all(|event| event["container"] == "app"));
}

/// The same for a runtime that lets its child be born in the cgroup (clone3), as newer ones do.
#[test]
fn a_child_that_is_born_in_the_container_is_marked_too() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("born");
    let path = cgroups.make(&format!("/kubepods/pod{}/{}", "1".repeat(32), "2".repeat(64)));
    let directory = cgroups.directory(path.strip_prefix(&cgroups.path("")).unwrap());
    let client = Client::start(&["execsnoop", "--cgroup", &path, "--machinery"]);
    let status = Command::new(tests::dist("workload"))
        .arg("into")
        .arg(directory)
        .args(["/usr/bin/unshare", "--mount", "/bin/true", "program"])
        .status();
    assert!(status.unwrap().success());
    let seen = client.stop();
    assert_eq!(args(&seen), ["step", "--mount", "program"]);
    let marked: Vec<bool> = seen.events().iter().map(|event| event.get("setup").is_some()).collect();
    assert_eq!(marked, [true, true, false]);
}

/// More containers at once than the tracker's ring holds, while the agent stands still: it finds them, and says so.
#[test]
fn containers_that_overran_the_tracker_are_found_and_told_as_a_gap() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("gap");
    let path = cgroups.make(&format!("/kubepods/pod{}", "f".repeat(32)));
    let below = path.strip_prefix(&cgroups.path("")).unwrap().to_owned();
    let mut client = Client::start(&["execsnoop", "--cgroup", &path]);
    let frozen = client.freeze_agent();
    let container = |number: usize| format!("{below}/{number:064x}");
    for number in 0..12_000 {
        fs::create_dir(cgroups.directory(&container(number))).unwrap();
    }
    drop(frozen);
    assert!(client.read_until(|line| line["type"] == "gap"));
    cgroups.run(&container(11_999), "/bin/true found");
    let seen = client.stop();
    assert_eq!(args(&seen), ["found"]);
    assert_eq!(seen.summary()["gaps"], 1);
    assert_eq!(seen.summary()["complete"], true);
}

/// More containers than the kernel's map takes: what has no room in it is filtered in the agent, and lost is nothing.
#[test]
fn containers_that_find_the_map_full_are_seen_all_the_same() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("full");
    let client = Client::start(&["execsnoop", "--cgroup", &cgroups.make("/watched")]);
    for number in 0..17_000 {
        cgroups.make(&format!("/watched/{number}"));
    }
    cgroups.make("/watched/last/inside");
    cgroups.make("/beside");
    for below in ["/watched/last", "/watched/last/inside", "/beside"] {
        cgroups.run(below, &format!("/bin/true {below}"));
    }
    let seen = client.stop();
    assert_eq!(args(&seen), ["/watched/last", "/watched/last/inside"]);
    assert_eq!(seen.summary()["lost"], 0);
}

/// More pods than the filter has slots: those that share one are told apart in the agent.
#[test]
fn pods_that_find_all_slots_taken_are_seen_all_the_same() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("slots");
    let below = |number: usize| format!("/kubepods/pod{number:032x}/{number:064x}");
    let daemon = Daemon::start("slots");
    let run = |number: usize| {
        let path = cgroups.path(&below(number));
        Client::start(&["execsnoop", "--socket", daemon.socket(), "--cgroup", &path])
    };
    let last = 4500;
    (0..=last).for_each(|number| _ = cgroups.make(&below(number)));
    let clients = [0, last - 1, last].map(run);
    for number in [0, 1, last - 2, last - 1, last] {
        cgroups.run(&below(number), &format!("/bin/true {number}"));
    }
    for (client, number) in clients.into_iter().zip([0, last - 1, last]) {
        let seen = client.stop();
        assert_eq!(args(&seen), [number.to_string()]);
        let degraded = seen.lines[0]["degraded"].as_array().unwrap();
        assert!(degraded.iter().any(|what| what.as_str().unwrap().contains("slots taken")), "{degraded:?}");
    }
}

/// What a container makes in its own cgroup is its own, deeper than a path can say, whether before the run or in it.
#[test]
fn cgroups_a_thousand_deep_belong_to_their_container() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("deep");
    let path = cgroups.make(&format!("/kubepods/pod{}/{}", "6".repeat(32), "7".repeat(64)));
    let directory = cgroups.directory(path.strip_prefix(&cgroups.path("")).unwrap());
    let run = |name: &str, token: &str| {
        let nest = ["nest", "1000", name, "/bin/true", token];
        let status = Command::new(tests::dist("workload")).args(nest).current_dir(&directory).status();
        assert!(status.unwrap().success());
    };
    run("former", "unseen");
    let client = Client::start(&["execsnoop", "--cgroup", &path]);
    run("former", "former");
    run("later", "later");
    let seen = client.stop();
    assert_eq!(args(&seen), ["former", "later"]);
    assert!(seen.events().iter().all(|event| event["container"] == "7".repeat(12)), "{:?}", seen.events());
}

#[test]
fn the_host_includes_everything() {
    let _loads = loads_programs();
    let client = Client::start(&["execsnoop", "--host"]);
    let token = format!("host-{}", std::process::id());
    assert!(Command::new("/bin/true").arg(&token).status().unwrap().success());
    let pod = Pod::new("host", "one");
    pod.run("app", &["/bin/true", "inside"]);
    let seen = client.stop();
    let find = |token: &str| seen.events().into_iter().find(|event| event["args"][1] == token).unwrap().clone();
    assert_eq!(find(&token)["pod"], serde_json::Value::Null);
    assert_eq!(find("inside")["pod"], "one");
}
