//! execsnoop shows every exec of a container, once, with its arguments, and nobody else's.

use std::collections::HashMap;
use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tests::{Client, Pod, loads_programs, shared_folder, texts};

const EXECS: usize = 5000;
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
    let log = fs::read_to_string(path).unwrap();
    let lines: Vec<_> = log.lines().map(parse_line).collect();
    let count = lines.len();
    let by_token: HashMap<_, _> = lines.into_iter().collect();
    assert_eq!(by_token.len(), count, "the workload's log names a token twice");
    by_token
}

fn parse_line(line: &str) -> (Vec<u8>, Exec) {
    let mut words = line.split(' ');
    let ret: i64 = words.next().unwrap().parse().unwrap();
    let args: Vec<Vec<u8>> = words.map(|word| BASE64_STANDARD.decode(word).unwrap()).collect();
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

#[test]
fn every_exec_of_one_container_and_no_other() {
    let _loads = loads_programs();
    let log = shared_folder().join("execs.log");
    let _ = fs::remove_file(&log);
    fs::copy(tests::dist("workload"), shared_folder().join("workload")).unwrap();

    let beside = Pod::new("shop", "db");
    beside.run("app", &["sh", "-c", "while true; do /bin/true; done"]);
    let client = Client::start(&["execsnoop", "-n", "shop", "-p", "web", "-c", "app"]);
    let watched = Pod::new("shop", "web");
    let count = EXECS.to_string();
    watched.run("app", &["/tmp/workload", "execs", &count, "/tmp/execs.log"]);
    watched.wait("app");
    let seen = client.stop();

    let mut expected = read_log(&log);
    assert_eq!(expected.len(), EXECS);
    assert_eq!(seen.lost(), 0);
    let mut others = Vec::new();
    for event in seen.events() {
        assert_eq!(
            (&event["namespace"], &event["pod"], &event["container"]),
            (&"shop".into(), &"web".into(), &"app".into())
        );
        let args = texts(event, "args");
        let Some(token) = token_of(&args) else {
            others.push(args);
            continue;
        };
        let truncated = event.get("args_truncated").is_some_and(|truncated| truncated == true);
        let exec = Exec { ret: event["ret"].as_i64().unwrap(), args, truncated };
        let name = String::from_utf8_lossy(&token).into_owned();
        assert_eq!(Some(exec), expected.remove(&token), "{name} is wrong, or there twice");
    }
    assert!(expected.is_empty(), "{} execs were not shown: {:?}", expected.len(), expected.keys().next());
    // The container's own program comes first, and is the only other.
    assert_eq!(others.len(), 1);
    assert_eq!(others[0][..2], [b"/tmp/workload".to_vec(), b"execs".to_vec()]);
    assert!(seen.events()[0]["args"][1] == "execs", "the container's first exec is not the first event");
    let truncated = seen.events().iter().filter(|event| event.get("args_truncated").is_some()).count();
    assert!(truncated >= EXECS / 100, "the workload has truncated arguments in it");
}

#[test]
fn both_variants_of_the_failure_hook_see_the_same() {
    let _loads = loads_programs();
    fs::copy(tests::dist("workload"), shared_folder().join("workload-variants")).unwrap();
    let pod = Pod::new("shop", "variants");
    let mut failures = Vec::new();
    for variant in ["tracepoint", "tp_btf"] {
        let log = shared_folder().join("variants.log");
        let _ = fs::remove_file(&log);
        let option = format!("failure={variant}");
        let client = Client::start(&["execsnoop", "-p", "variants", "--failed", "--variant", &option]);
        assert_eq!(client.seen[0]["variants"]["failure"], variant);
        pod.run(&format!("app-{}", failures.len()), &["/tmp/workload-variants", "execs", "200", "/tmp/variants.log"]);
        pod.wait(&format!("app-{}", failures.len()));
        let seen = client.stop();
        let expected = read_log(&log).values().filter(|exec| exec.ret != 0).count();
        assert_eq!(seen.events().len(), expected, "{variant}");
        let mut args: Vec<_> =
            seen.events().iter().map(|event| (event["ret"].clone().as_i64(), texts(event, "args"))).collect();
        args.sort();
        failures.push(args);
    }
    assert_eq!(failures[0], failures[1]);
}

/// strace is the witness: it sees the same system calls through ptrace.
#[test]
fn what_strace_sees() {
    use std::process::{Command, Stdio};
    let _loads = loads_programs();
    let mine = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = mine.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
    let marker = format!("strace-witness-{}", std::process::id());
    let client = Client::start(&["execsnoop", "--cgroup", &path]);
    let script = format!("/bin/true {marker} 1; /missing {marker} '2 3'; /bin/sh -c 'exec /bin/echo {marker} 4'");
    let trace = tests::temporary("trace", b"", 0o600);
    let status = Command::new("/usr/bin/strace")
        .args(["-f", "-s", "4096", "-e", "trace=execve,execveat", "-o"])
        .arg(&trace)
        .args(["/bin/sh", "-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    let seen = client.stop();

    // 123 execve("/bin/true", ["/bin/true", "MARKER", "1"], 0x… /* 9 vars */) = 0
    let traced: Vec<(Vec<String>, bool)> = fs::read_to_string(&trace)
        .unwrap()
        .lines()
        .filter(|line| line.contains("execve") && line.contains(&marker))
        .map(|line| {
            let list = &line[line.find('[').unwrap() + 1..line.rfind("], ").unwrap()];
            let args = list.split(", ").map(|arg| arg.trim_matches('"').to_owned()).collect();
            (args, line.ends_with("= 0"))
        })
        .collect();
    let shown: Vec<(Vec<String>, bool)> = seen
        .events()
        .iter()
        .filter(|event| event["args"].to_string().contains(&marker) && event["args"][0] != "/usr/bin/strace")
        .map(|event| {
            let args = texts(event, "args").iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
            (args, event["ret"] == 0)
        })
        .collect();
    assert_eq!(shown, traced);
    assert!(traced.len() >= 4, "{traced:?}");
}
