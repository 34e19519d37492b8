//! opensnoop shows every open of a container, once, with its result and path, and nobody else's.

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Containers, Scenario, Storm, provide_workload};
use crate::{Seen, texts};

/// All of it.
pub(super) static OPENSNOOP: Scenario = Scenario {
    gadget: "opensnoop",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    exact,
    storm: Storm { name: "failing-opens", count: 2000, args: &[], others: OWN },
};

/// Files that a program of the tests opens before it begins.
const OWN: u64 = 1;
/// Bytes that the kernel takes of a path, its NUL included; of longer ones as many are kept.
const PATH_MAX: usize = 4096;

/// An open, from either side: its result, its path, and whether that is cut.
#[derive(Debug, PartialEq, Eq)]
struct Open(i64, Vec<u8>, bool);

fn read_log(path: &std::path::Path) -> Vec<Open> {
    let parse = |line: &str| {
        let (result, path) = line.split_once(' ').unwrap();
        let (result, mut path) = (result.parse().unwrap(), BASE64_STANDARD.decode(path).unwrap());
        // What the kernel could not read, we cannot either.
        let cut = path.len() >= PATH_MAX || result == i64::from(-libc::EFAULT);
        path.truncate(PATH_MAX);
        Open(result, path, cut)
    };
    fs::read_to_string(path).unwrap().lines().map(parse).collect()
}

fn exact(containers: &mut dyn Containers, options: &[&str], opens: usize) -> Seen {
    let log = containers.shared_folder().join("opens.log");
    let _ = fs::remove_file(&log);
    let workload = provide_workload(containers);
    let client = OPENSNOOP.client(&[&["-n", "shop", "-p", "web", "-c", "app"], options].concat());
    containers.start("shop/db", "app", &[&workload, "opens", &opens.to_string(), "/tmp/db.log"]);
    containers.start("shop/web", "app", &[&workload, "opens", &opens.to_string(), "/tmp/opens.log"]);
    containers.wait("shop/web", "app");
    containers.wait("shop/db", "app");
    let seen = client.stop();

    let expected = read_log(&log);
    assert_eq!(expected.len(), opens + 1);
    assert_eq!(seen.lost(), 0);
    let mut shown = Vec::new();
    let mut logged = 0;
    for event in seen.events() {
        assert_eq!(
            (&event["namespace"], &event["pod"], &event["container"]),
            (&"shop".into(), &"web".into(), &"app".into())
        );
        let path = texts(event, "path").remove(0);
        match path.as_slice() {
            b"/tmp/opens.log" => logged += 1,
            b"" => shown.push(open_of(event, path)),
            _ if path.windows(6).any(|part| part == b"token-") || path.starts_with(b"/x") => {
                shown.push(open_of(event, path));
            }
            _ => assert!(shown.is_empty(), "{event} is none of the workload's"),
        }
    }
    // One program made them, one after the other.
    assert_eq!(shown, expected);
    assert_eq!(logged, expected.len());
    seen
}

fn open_of(event: &serde_json::Value, path: Vec<u8>) -> Open {
    let cut = event.get("path_truncated").is_some_and(|truncated| truncated == true);
    Open(event["ret"].as_i64().unwrap(), path, cut)
}
