//! execsnoop shows every exec of a container, once, with its arguments, and nobody else's.

use std::collections::HashMap;
use std::fs;

use super::{Attempt, Containers, Scenario, Storm, provide_workload};
use crate::{Seen, texts};

/// All of it.
pub(super) static EXECSNOOP: Scenario = Scenario {
    gadget: "execsnoop",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    storm: Some(Storm { name: "storm", count: 400, args: &["8000"], each: 1, others: Some(1), options: &[] }),
};

/// Bytes of arguments that are kept: the limits of `execsnoop.bpf.c`.
const ARGS_MAX: usize = 16384;
const ARG_MAX: usize = 4096;
const ARGC_MAX: usize = 256;

/// An exec, from either side.
#[derive(Debug, PartialEq, Eq)]
struct Exec {
    ret: i64,
    args: Vec<Vec<u8>>,
    truncated: bool,
}

/// What the workload did, by token: its log is written from /proc by the programs that were started, and by the caller
/// of those that were not.
fn read_log(path: &std::path::Path) -> HashMap<Vec<u8>, Exec> {
    let lines: Vec<_> = Attempt::read_all(path).into_iter().map(exec_of_log).collect();
    let count = lines.len();
    let by_token: HashMap<_, _> = lines.into_iter().collect();
    assert_eq!(by_token.len(), count, "the workload's log names a token twice");
    by_token
}

fn exec_of_log(Attempt { result: ret, args }: Attempt) -> (Vec<u8>, Exec) {
    let token = token_of(&args).unwrap();
    let (args, truncated) = if ret == 0 { kept_of_started(args) } else { kept_of_failed(args) };
    (token, Exec { ret, args, truncated })
}

fn token_of(args: &[Vec<u8>]) -> Option<Vec<u8>> {
    args.iter().find(|arg| arg.starts_with(b"token-")).cloned()
}

/// A program that was started has its arguments kept up to a number of bytes.
fn kept_of_started(args: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, bool) {
    let bytes: Vec<u8> = args.iter().flat_map(|arg| [arg.as_slice(), b"\0"].concat()).collect();
    if bytes.len() <= ARGS_MAX {
        return (args, false);
    }
    let kept = bytes[..ARGS_MAX].strip_suffix(b"\0").unwrap_or(&bytes[..ARGS_MAX]);
    (kept.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect(), true)
}

/// An attempt that failed has them kept up to the first that is not whole.
fn kept_of_failed(args: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, bool) {
    let count = args.len();
    let mut kept = Vec::new();
    let mut bytes = 0;
    for mut arg in args {
        if bytes >= ARGS_MAX || kept.len() == ARGC_MAX {
            return (kept, true);
        }
        let whole = arg.len() < ARG_MAX;
        arg.truncate(ARG_MAX - 1);
        let room = ARGS_MAX - bytes;
        bytes += arg.len() + 1;
        if arg.len() + 1 > room {
            arg.truncate(room);
            kept.push(arg);
            return (kept, true);
        }
        kept.push(arg);
        if !whole {
            return (kept, true);
        }
    }
    let truncated = kept.len() < count;
    (kept, truncated)
}

fn exact(containers: &mut dyn Containers, options: &[&str], execs: usize) -> Seen {
    let folder = containers.shared_folder();
    let log = folder.join("execs.log");
    let _ = fs::remove_file(&log);
    let workload = provide_workload(containers);

    let client = EXECSNOOP.client(&[&["-n", "shop", "-p", "web", "-c", "app"], options].concat());
    containers.start("shop/db", "app", &[&workload, "execs", &execs.to_string(), "/tmp/db.log"]);
    containers.start("shop/web", "app", &[&workload, "execs", &execs.to_string(), "/tmp/execs.log"]);
    containers.wait("shop/web", "app");
    containers.wait("shop/db", "app");
    let seen = client.stop();

    let mut expected = read_log(&log);
    assert_eq!(expected.len(), execs);
    assert_eq!(seen.lost(), 0);
    let mut others = Vec::new();
    for event in seen.events() {
        assert_eq!(
            (&event["namespace"], &event["pod"], &event["container"]),
            (&"shop".into(), &"web".into(), &"app".into())
        );
        let args = texts(event, "args");
        let Some(token) = token_of(&args) else {
            others.push(event);
            continue;
        };
        let truncated = event.get("args_truncated").is_some_and(|truncated| truncated == true);
        let exec = Exec { ret: event["ret"].as_i64().unwrap(), args, truncated };
        let name = String::from_utf8_lossy(&token).into_owned();
        assert_eq!(Some(exec), expected.remove(&token), "{name} is wrong, or there twice");
    }
    assert!(expected.is_empty(), "{} execs were not shown: {:?}", expected.len(), expected.keys().next());
    // The container's own program comes first, and is the only other.
    assert_eq!(others.len(), 1, "{others:?}");
    assert_eq!(texts(others[0], "args")[..2], [workload.into_bytes(), b"execs".to_vec()]);
    assert!(seen.events()[0]["args"][1] == "execs", "the container's first exec is not the first event");
    let truncated = seen.events().iter().filter(|event| event.get("args_truncated").is_some()).count();
    assert!(truncated >= execs / 100, "the workload has truncated arguments in it");
    seen
}
