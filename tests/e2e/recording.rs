//! What a recorder keeps: the last of each container, and the number of the rest.

use std::collections::BTreeSet;
use std::fs;

use tests::scenarios::traceloop::{Calls, calls_of, calls_of_log};
use tests::{Client, Pod, Seen, client_output, dist, loads_programs, shared_folder};

/// Each of two processes makes two such.
const COUNT: usize = 10_000;

/// What is shown of a container that makes calls, and what it has written down.
fn record(pod: &str, buffer: &str) -> (Seen, Calls) {
    let log = shared_folder().join(format!("{pod}.log"));
    let _ = fs::remove_file(&log);
    fs::copy(dist("workload"), shared_folder().join(format!("workload-{pod}"))).unwrap();
    let client = Client::start(&["traceloop", "-p", pod, "--buffer", buffer]);
    let container = Pod::new("recorded", pod);
    container.run("app", &[&format!("/tmp/workload-{pod}"), "calls", &COUNT.to_string(), &format!("/tmp/{pod}.log")]);
    container.wait("app");
    (client.stop(), calls_of_log(&log))
}

#[test]
fn what_is_written_over_is_counted_and_the_rest_is_the_last() {
    let _loads = loads_programs();
    let (all, log) = record("kept-whole", "64MiB");
    assert_eq!((calls_of(&all.events()), all.lost()), (log, 0));

    let (last, log) = record("kept-last", "1MiB");
    let shown = last.events();
    assert_eq!(shown.len() as u64 + last.lost(), all.events().len() as u64, "{}", last.said);
    assert!(last.lost() > 0 && shown.len() > 1000, "{} shown", shown.len());
    for loss in last.of_type("loss") {
        assert_eq!((&loss["stage"], &loss["pod"]), (&"recorder".into(), &"kept-last".into()), "{loss}");
    }
    // Nothing is missing from the first that is shown to the last that there was, which the second child made.
    let kept = calls_of(&shown);
    let calls =
        |calls: &Calls| calls.iter().map(|(_, name, arg, result)| (name.clone(), arg.clone(), *result)).collect();
    let (kept, made): (Vec<_>, Vec<_>) = (calls(&kept), calls(&log));
    assert_eq!(kept, made[made.len() - kept.len()..]);
}

#[test]
fn only_some_calls() {
    let _loads = loads_programs();
    let log = shared_folder().join("chosen.log");
    let record = |calls: &str| {
        let _ = fs::remove_file(&log);
        fs::copy(dist("workload"), shared_folder().join("workload-chosen")).unwrap();
        let client =
            Client::start(&["traceloop", "-p", "chosen", "-c", "app", "--buffer", "1MiB", "--syscalls", calls]);
        let container = Pod::new("recorded", "chosen");
        container.run("app", &["/tmp/workload-chosen", "calls", "5", "/tmp/chosen.log"]);
        container.wait("app");
        client.stop()
    };
    let names = |seen: &Seen| -> BTreeSet<String> {
        seen.events().iter().filter_map(|event| event["syscall"].as_str().map(str::to_owned)).collect()
    };
    let only = record("getpgid,exit_group");
    assert_eq!(names(&only), ["exit_group", "getpgid"].map(str::to_owned).into());
    // The ends of processes are no calls.
    assert!(only.events().iter().any(|event| event["end"] == "exited"));
    let others = names(&record("!getpgid,!dup"));
    assert!(others.contains("openat") && !others.contains("getpgid") && !others.contains("dup"), "{others:?}");

    for (list, reason) in [("getpgid,!dup", "--syscalls"), ("getpgidd", "no system call is called \"getpgidd\"")] {
        let output = client_output(&["traceloop", "--local", "--syscalls", list]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(reason), "{list}: {said}");
    }
}
