//! capabilities shows every check of a container, once, with what came of it, and nobody else's.

use std::fs;

use gadgets::catalogue::Release;
use serde_json::Value;

use super::{Attempt, Containers, Scenario, Storm, provide_workload};
use crate::Seen;

/// All of it.
pub(super) static CAPABILITIES: Scenario = Scenario {
    gadget: "capabilities",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    storm: Some(Storm {
        name: "check-storm",
        count: 2000,
        args: &[],
        each: 1,
        others: Some(0),
        options: &["--comm", "storm"],
    }),
};

/// A check, from either side: its result, the capability, and the call in which it was made.
type Check = (i64, String, String);

/// The kernel checks in others, too: to start a program, to give it memory.
const CALLS: [&str; 5] = ["reboot", "sethostname", "setgroups", "acct", "settimeofday"];

/// Calls in which the kernel only tries whether a process may have the last of the memory.
const MEMORY: [&str; 4] = ["brk", "clone", "execve", "mmap"];

fn check_of_log(attempt: &Attempt) -> Check {
    (attempt.result, attempt.text(0), attempt.text(1))
}

fn check_of(event: &Value) -> Check {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    (event["ret"].as_i64().unwrap(), text("capability"), text("syscall"))
}

fn exact(containers: &mut dyn Containers, options: &[&str], checks: usize) -> Seen {
    let log = containers.shared_folder().join("checks.log");
    let _ = fs::remove_file(&log);
    let workload = provide_workload(containers);
    let select = ["-n", "shop", "-p", "web", "-c", "app"];
    let every = CAPABILITIES.client(&[&select[..], &["--stack"], options].concat());
    let once = CAPABILITIES.client(&[&select[..], &["--unique", "--audit-only", "--quiet-noise"], options].concat());
    let checks = checks.to_string();
    containers.start("shop/db", "app", &[&workload, "checks", &checks, "/tmp/db.log"]);
    containers.start("shop/web", "app", &[&workload, "checks", &checks, "/tmp/checks.log"]);
    containers.wait("shop/web", "app");
    containers.wait("shop/db", "app");
    let (every, once) = (every.stop(), once.stop());

    for seen in [&every, &once] {
        assert_eq!(seen.lost(), 0);
        assert!(seen.events().iter().all(|event| event["pod"] == "web" && event["container"] == "app"));
    }
    let all: Vec<Check> = every.events().into_iter().map(check_of).collect();
    let expected: Vec<Check> = Attempt::read_all(&log).iter().map(check_of_log).collect();
    let of_workload: Vec<Check> = all.iter().filter(|check| CALLS.contains(&&*check.2)).cloned().collect();
    assert_eq!(of_workload, expected);
    check_stacks(&every);
    assert!(once.events().into_iter().all(|event| event["stack"].is_null()));

    let is_noise =
        |event: &&Value| event["capability"] == "CAP_SYS_ADMIN" && MEMORY.contains(&event["syscall"].as_str().unwrap());
    assert_eq!(once.events().into_iter().find(is_noise), None);
    let mut shown: Vec<_> = once.events().into_iter().map(check_of).map(|(ret, name, _)| (name, ret)).collect();
    let count = shown.len();
    shown.sort_unstable();
    shown.dedup();
    assert_eq!(shown.len(), count, "{shown:?}");
    assert!(expected.iter().all(|(ret, name, _)| shown.contains(&(name.clone(), *ret))), "{shown:?}");
    every
}

/// Where there are stacks they lead from the system call to the check.
fn check_stacks(seen: &Seen) {
    let start = &seen.lines[0];
    let release = Release::parse(start["kernel"].as_str().unwrap()).unwrap();
    let has_stacks = start["variants"]["check"] != "kprobe" || release >= Release(5, 16);
    for event in seen.events() {
        let syscall = event["syscall"].as_str().unwrap();
        if !has_stacks {
            assert!(event["stack"].is_null(), "{event}");
        } else if CALLS.contains(&syscall) {
            let stack = event["stack"].as_array().unwrap_or_else(|| panic!("{event}"));
            let calls = |frame: &Value, function: &str| frame.as_str().unwrap().contains(function);
            // Where it returns, the kernel may have left cap_capable() itself.
            assert!(calls(&stack[0], "capable+"), "{event}");
            assert!(stack.iter().any(|frame| calls(frame, &format!("sys_{syscall}+"))), "{event}");
        }
    }
}
