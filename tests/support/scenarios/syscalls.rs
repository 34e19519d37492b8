//! syscalls shows each system call of a container once, those of programs of 32 bits apart, and nobody else's.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::{Attempt, Containers, Scenario, provide_workload};
use crate::Seen;

/// All of it.
pub(super) static SYSCALLS: Scenario = Scenario {
    gadget: "syscalls",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    // A container has too few different calls to fill the smallest ring.
    storm: None,
};

/// What no test does.
const NEVER: [&str; 4] = ["reboot", "swapon", "kexec_load", "init_module"];

/// A call, from either side: the architecture, and its name.
type Call = (String, String);

fn call(event: &Value) -> Call {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    (text("architecture"), text("syscall"))
}

fn exact(containers: &mut dyn Containers, options: &[&str], size: usize) -> Seen {
    let log = containers.shared_folder().join("syscalls.log");
    let _ = fs::remove_file(&log);
    let workload = provide_workload(containers);
    let select = ["-n", "shop", "-p", "web", "-c", "app"];
    let client = SYSCALLS.client(&[&select[..], options].concat());
    let machinery = SYSCALLS.client(&[&select[..], &["--machinery"], options].concat());
    let size = size.to_string();
    containers.start("shop/db", "app", &[&workload, "checks", &size, "/tmp/db.log"]);
    containers.start("shop/web", "app", &[&workload, "syscalls", &size, "/tmp/syscalls.log"]);
    containers.wait("shop/web", "app");
    containers.wait("shop/db", "app");
    let (seen, machinery) = (client.stop(), machinery.stop());

    for seen in [&seen, &machinery] {
        assert_eq!(seen.lost(), 0);
        assert!(seen.events().iter().all(|event| event["pod"] == "web" && event["container"] == "app"));
    }
    assert!(seen.events().iter().all(|event| event.get("setup").is_none()));
    let mut times = BTreeMap::<Call, usize>::new();
    seen.events().into_iter().for_each(|event| *times.entry(call(event)).or_default() += 1);
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    let made: Vec<Call> = Attempt::read_all(&log).iter().map(|attempt| (attempt.text(0), attempt.text(1))).collect();
    assert!(made.len() >= 6 && made.iter().all(|call| times.contains_key(call)), "{made:?}: {times:?}");
    // Of 32 bits there is nothing but what the workload does.
    let of_compat = |call: &&Call| call.0 != made[0].0;
    assert_eq!(times.keys().filter(of_compat).collect::<Vec<_>>(), made.iter().filter(of_compat).collect::<Vec<_>>());
    assert!(!times.keys().any(|(_, name)| NEVER.contains(&&**name) || name == "settimeofday"), "{times:?}");

    let starts_it = |event: &&Value| event["setup"] == true && event["syscall"] == "execve";
    assert!(machinery.events().iter().any(starts_it), "{:?}", machinery.lines);
    seen
}
