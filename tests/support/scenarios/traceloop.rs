//! traceloop shows every system call of a container, of each thread in its order, with what it was given and returned, and
//! nobody else's.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Attempt, Containers, Scenario, provide_workload};
use crate::Seen;

/// All of it.
pub(super) static TRACELOOP: Scenario = Scenario {
    gadget: "traceloop",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    // In its ring there are no events.
    storm: None,
};

/// In their order: which thread it is, the first being 0; name, first argument, and result.
pub type Calls = Vec<(usize, String, String, i64)>;

/// Numbers threads by their first calls: inside of a container they have other ids.
fn numbered(calls: impl Iterator<Item = (u64, String, String, i64)>) -> Calls {
    let mut threads = Vec::new();
    let number = |(tid, name, arg, result)| {
        if !threads.contains(&tid) {
            threads.push(tid);
        }
        (threads.iter().position(|known| *known == tid).unwrap_or_default(), name, arg, result)
    };
    calls.map(number).collect()
}

/// Those that the workload has written down: its children come one after the other.
pub fn calls_of_log(log: &Path) -> Calls {
    let attempts = Attempt::read_all(log);
    numbered(
        attempts
            .iter()
            .map(|attempt| (attempt.text(0).parse().unwrap(), attempt.text(1), attempt.text(2), attempt.result)),
    )
}

/// Those that the gadget has shown, but for what every program does.
pub fn calls_of(events: &[&Value]) -> Calls {
    let is_its = |event: &&&Value| event["syscall"] == "getpgid" || event["syscall"] == "dup";
    numbered(events.iter().filter(is_its).map(|event| {
        let args = event["args"].as_object().unwrap_or_else(|| panic!("without a signature: {event}"));
        let arg = args.values().next().unwrap();
        let name = event["syscall"].as_str().unwrap().to_owned();
        (event["tid"].as_u64().unwrap(), name, arg.to_string(), event["ret"].as_i64().unwrap())
    }))
}

/// What the workload's calls were given that point to something.
fn assert_content(events: &[&Value]) {
    let of = |call: &str, arg: &str, value: &Value| {
        let is_it = |event: &&&Value| event["syscall"] == call && event["args"][arg] == *value;
        let found: Vec<_> = events.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{call} with {arg} {value}: {found:#?}");
        found[0]
    };
    let file = of("openat", "filename", &"/tmp/with \"content\"\n".into());
    let fd = &file["ret"];
    assert_eq!(
        file["args"],
        json!({
            "dfd": "AT_FDCWD",
            "filename": "/tmp/with \"content\"\n",
            "flags": "O_RDWR|O_CREAT|O_CLOEXEC",
            "mode": "0640",
        })
    );
    let text = "\x1b[31m0123456789".repeat(5);
    assert_eq!(
        of("write", "count", &75.into())["args"],
        json!({"fd": fd, "buf": text[..64], "buf_truncated": true, "count": 75})
    );
    assert_eq!(of("pread64", "pos", &4.into())["args"], json!({"fd": fd, "buf": text[4..12], "count": 8, "pos": 4}));
    let bound = of("bind", "umyaddr", &"{AF_INET, 10.0.0.7:4711}".into());
    assert_eq!((&bound["args"]["addrlen"], &bound["ret_name"]), (&16.into(), &"EADDRNOTAVAIL".into()));
    let argv = json!(["workload", "no \"such\" command", ""]);
    assert_eq!(of("execve", "argv", &argv)["args"], json!({"filename": "/proc/self/exe", "argv": argv}));
}

fn exact(containers: &mut dyn Containers, options: &[&str], size: usize) -> Seen {
    let log = containers.shared_folder().join("calls.log");
    let _ = fs::remove_file(&log);
    let workload = provide_workload(containers);
    let client = TRACELOOP.client(&[&["-n", "shop", "-p", "web", "-c", "app", "--buffer", "4MiB"], options].concat());
    let size = size.to_string();
    containers.start("shop/db", "app", &[&workload, "calls", &size, "/tmp/others.log"]);
    containers.start("shop/web", "app", &[&workload, "calls", &size, "/tmp/calls.log"]);
    containers.wait("shop/web", "app");
    containers.wait("shop/db", "app");
    let seen = client.stop();
    assert_eq!(seen.lost(), 0);
    let events = seen.events();
    assert!(events.iter().all(|event| event["pod"] == "web" && event["container"] == "app"));
    assert_eq!((&events[0]["syscall"], &events[0]["ret"]), (&"execve".into(), &0.into()));
    assert_eq!(calls_of(&events), calls_of_log(&log));
    assert_content(&events);
    seen
}
