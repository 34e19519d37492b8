//! opensnoop shows every open of a container, once, with its result and path, and nobody else's.

use std::fs;

use super::{Attempt, Containers, Scenario, Storm, provide_workload};
use crate::{Seen, texts};
use gadgets::names::open_flags;

/// All of it.
pub(super) static OPENSNOOP: Scenario = Scenario {
    gadget: "opensnoop",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    storm: Some(Storm { name: "failing-opens", count: 2000, args: &[], each: 1, others: Some(OWN), options: &[] }),
};

/// Files that a program of the tests opens before it begins.
const OWN: u64 = 1;
/// Bytes that the kernel takes of a path, its NUL included; of longer ones as many are kept.
const PATH_MAX: usize = 4096;

/// An open, from either side.
#[derive(Debug, PartialEq, Eq)]
struct Open {
    result: i64,
    path: Vec<u8>,
    is_cut: bool,
    /// Which file it is.
    file: String,
    /// By their names.
    flags: Vec<String>,
    mode: String,
}

fn open_of_log(attempt: &Attempt) -> Open {
    let mut path = attempt.args[0].clone();
    // What the kernel could not read, we cannot either.
    let is_cut = path.len() >= PATH_MAX || attempt.result == i64::from(-libc::EFAULT);
    path.truncate(PATH_MAX);
    let flags = u64::from_str_radix(attempt.text(2).trim_start_matches("0x"), 16).unwrap();
    let (flags, rest) = open_flags::names(flags);
    assert_eq!(rest, 0);
    let flags = flags.into_iter().map(str::to_owned).collect();
    Open { result: attempt.result, path, is_cut, file: attempt.text(1), flags, mode: attempt.text(3) }
}

fn read_log(path: &std::path::Path) -> Vec<Open> {
    Attempt::read_all(path).iter().map(open_of_log).collect()
}

fn exact(containers: &mut dyn Containers, options: &[&str], opens: usize) -> Seen {
    let log = containers.shared_folder().join("opens.log");
    let uring_log = log.with_extension("log.uring");
    [&log, &uring_log].into_iter().for_each(|file| _ = fs::remove_file(file));
    let workload = provide_workload(containers);
    let client = OPENSNOOP.client(&[&["-n", "shop", "-p", "web", "-c", "app", "--paths"], options].concat());
    containers.start("shop/db", "app", &[&workload, "opens", &opens.to_string(), "/tmp/db.log"]);
    containers.start("shop/web", "app", &[&workload, "opens", &opens.to_string(), "/tmp/opens.log"]);
    containers.wait("shop/web", "app");
    containers.wait("shop/db", "app");
    let seen = client.stop();

    let expected = read_log(&log);
    assert_eq!(expected.len(), opens + 1);
    assert_eq!(seen.lost(), 0);
    // What io_uring opens is seen by a hook that not every kernel has.
    let is_seen = seen.lines[0]["variants"]["io_uring"] == "tp_btf";
    let by_uring = if is_seen && uring_log.exists() { read_log(&uring_log) } else { Vec::new() };
    let mut shown = Vec::new();
    let mut shown_by_uring = Vec::new();
    let mut logged = 0;
    for event in seen.events() {
        assert_eq!(
            (&event["namespace"], &event["pod"], &event["container"]),
            (&"shop".into(), &"web".into(), &"app".into())
        );
        let path = texts(event, "path").remove(0);
        match path.as_slice() {
            b"/tmp/opens.log" => logged += 1,
            b"/tmp/opens.log.uring" => {}
            b"" => shown.push(open_of(event, path)),
            _ if path.windows(6).any(|part| part == b"uring-") => shown_by_uring.push(open_of(event, path)),
            _ if path.windows(6).any(|part| part == b"token-") || path.starts_with(b"/x") => {
                shown.push(open_of(event, path));
            }
            _ => assert!(shown.is_empty(), "{event} is none of the workload's"),
        }
    }
    // One program made them, one after the other.
    assert_eq!(shown, expected);
    assert_eq!(shown_by_uring, by_uring);
    assert_eq!(logged, expected.len());
    seen
}

fn open_of(event: &serde_json::Value, path: Vec<u8>) -> Open {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    Open {
        result: event["ret"].as_i64().unwrap(),
        path,
        is_cut: event.get("path_truncated").is_some_and(|truncated| truncated == true),
        file: event.get("file").map(text).unwrap_or_default(),
        flags: event["flags"].as_array().unwrap().iter().map(text).collect(),
        mode: text(&event["mode"]),
    }
}
