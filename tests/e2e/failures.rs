//! What goes wrong is said: what happened, why, what to do next; and nothing is left behind.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use gadgets::spec::RunSpec;
use gadgets::tasks::{Choice, TaskFilter};
use gadgets::wire::{FailureKind, Frame, Hello, MAX_PAYLOAD, VERSION};
use tests::{
    Client, Daemon, Loaded, Session, bundles, client_command, client_output, compares_loaded, dist, temporary,
};

/// Runs the client, which must fail with this code and say all of these.
fn fails(args: &[&str], code: i32, words: &[&str]) {
    check(client_output(args), code, words, &format!("{args:?}"));
}

fn check(output: std::process::Output, code: i32, words: &[&str], what: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{what}: {said}");
    for word in words {
        assert!(said.contains(word), "{what} does not say {word:?}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_command_line_that_makes_no_sense() {
    fails(&["execsnop", "--local"], 2, &["execsnop", "execsnoop"]);
    fails(&["explain", "execsnop"], 2, &["no gadget \"execsnop\"", "did you mean \"execsnoop\"?"]);
    fails(&["execsnoop", "--local", "--columns", "pid,argz"], 2, &["no column \"argz\"", "did you mean \"args\"?"]);
    fails(&["execsnoop", "--local", "--columns", "colour"], 2, &["execsnoop has: node, namespace"]);
    fails(&["execsnoop", "--local", "--timeout", "5"], 2, &["'5'", "30s"]);
    fails(&["execsnoop", "--local", "--buffer", "1KiB"], 2, &["1KiB", "64.0 KiB"]);
    fails(&["execsnoop", "--local", "--args-bytes", "many"], 2, &["many", "a number from 0 to 16384"]);
    fails(&["execsnoop", "--local", "--host", "-p", "web"], 2, &["--host"]);
    fails(&["execsnoop", "-l", "app in web"], 2, &["app in web", "app in (web,api)"]);
    fails(&["execsnoop", "--local", "-l", "app=web"], 2, &["--local"]);
    fails(&["execsnoop", "--local", "--pid", "7,!8"], 2, &["--pid", "either"]);
    fails(&["execsnoop", "--local", "--uid", "root"], 2, &["'root'", "--uid"]);
    fails(&["execsnoop", "--local", "--comm", "a-name-that-is-too-long"], 2, &["15 bytes"]);
    fails(&["execsnoop", "deploi/web"], 2, &["\"deploi\"", "Rollout/web"]);
    fails(&["execsnoop", "web"], 2, &["'web'", "deploy/web"]);
    fails(&["execsnoop", "--local", "deploy/web"], 2, &["--local"]);
    for given in [&["--user", "--kernel"][..], &["--off-cpu", "--idle"], &["--off-cpu", "--freq", "99"]] {
        let args = [&["profile", "--local"], given].concat();
        fails(&args, 2, &["exclude each other", given[0], given[1]]);
    }
}

#[test]
fn what_the_agent_refuses() {
    let _alone = compares_loaded();
    let before = Loaded::now();
    fails(&["execsnoop", "--local", "--cgroup", "/no/such"], 1, &["no cgroup \"/no/such\"", "/proc/PID/cgroup"]);
    fails(&["execsnoop", "--local", "--cgroup", "/../../etc"], 1, &["no cgroup"]);
    fails(&["execsnoop", "--local", "--variant", "start=magic"], 2, &["no variant \"magic\"", "tp_btf"]);
    fails(&["execsnoop", "--local", "--variant", "nose=tp_btf"], 2, &["no hook \"nose\"", "start, failure"]);
    before.wait_for("after refusals");
}

#[test]
fn an_agent_that_cannot_be_reached() {
    fails(&["execsnoop", "--local", "--agent", "/missing/agent"], 2, &["no agent at /missing/agent", "--agent"]);
    fails(
        &["execsnoop", "--local", "--socket", "/missing/agent.sock"],
        1,
        &["no agent listens on /missing/agent.sock", "gadget-agent daemon"],
    );
    // A copy without an agent beside it, and none in PATH.
    let alone = temporary("kubectl-gadget", &std::fs::read(dist("kubectl-gadget")).unwrap(), 0o755);
    let output = Command::new(alone).args(["execsnoop", "--local"]).env("PATH", "/missing").output().unwrap();
    check(output, 2, &["neither beside this program nor in PATH", "--agent"], "no agent anywhere");
    let mute = temporary("mute-agent", b"#!/bin/sh\nexit 7\n", 0o755);
    fails(&["execsnoop", "--local", "--agent", mute.to_str().unwrap()], 1, &["ended without a word", "7"]);
}

#[test]
fn somebody_who_is_not_root() {
    let agent = temporary("agent-for-all", &std::fs::read(dist("gadget-agent")).unwrap(), 0o755);
    let client = temporary("client-for-all", &std::fs::read(dist("kubectl-gadget")).unwrap(), 0o755);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(client)
        .args(["execsnoop", "--local", "--agent"])
        .arg(agent)
        .output()
        .unwrap();
    check(output, 1, &["needs root", "sudo"], "not root");
}

#[test]
fn a_kernel_without_btf() {
    let command = client_command("kubectl-gadget", &["execsnoop", "--local"]);
    let script =
        format!("mount -t tmpfs none /sys/kernel/btf && exec {} execsnoop --local", command.get_program().display());
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("KUBECTL_GADGET_AGENT", dist("gadget-agent"))
        .output()
        .unwrap();
    check(output, 1, &["no BTF", "CONFIG_DEBUG_INFO_BTF"], "no BTF");
}

fn hello(version: u16) -> Vec<u8> {
    Frame::Hello(Box::new(Hello { version, ..Hello::default() })).encode().unwrap()
}

fn frame(length: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], &[kind], payload].concat()
}

/// Bytes that are no frames, and what is said of them.
fn nonsense() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("oversized", frame(MAX_PAYLOAD as u32 + 1, 4, &[]), "at most 1048576"),
        ("unknown type", frame(0, 77, &[]), "unknown type 77"),
        ("truncated", frame(100, 2, b"{\"streams\":"), "ended within a frame"),
        ("malformed", frame(3, 2, b"abc"), "malformed schema frame"),
        ("version", hello(VERSION + 2), "version 3 of the protocol"),
    ]
}

/// A fake agent: it says these bytes and ends when its input does.
fn fake_agent(name: &str, says: &[u8]) -> String {
    let bytes = temporary(&format!("{name}.bytes"), says, 0o644);
    let script = format!("#!/bin/sh\ncat {}\n", bytes.display());
    temporary(name, script.as_bytes(), 0o755).to_str().unwrap().to_owned()
}

#[test]
fn an_agent_that_talks_nonsense() {
    let mut cases: Vec<_> = nonsense()
        .into_iter()
        .map(|(name, bytes, words)| {
            // All but the greeting itself come after a good one.
            let says = if name == "version" { bytes } else { [hello(VERSION), bytes].concat() };
            (name, says, words)
        })
        .collect();
    cases.push(("no greeting", Frame::Batch(vec![]).encode().unwrap(), "first frame is batch"));
    cases.push(("no trailer", hello(VERSION), "incomplete"));
    for (name, says, words) in cases {
        let agent = fake_agent(&name.replace(' ', "-"), &says);
        fails(&["execsnoop", "--local", "--agent", &agent], 1, &[words]);
    }
}

#[test]
fn an_agent_of_the_next_version_is_understood() {
    let trailer = Frame::Trailer(gadgets::wire::Trailer::default()).encode().unwrap();
    let agent = fake_agent("newer", &[hello(VERSION + 1), trailer].concat());
    let output = client_output(&["execsnoop", "--local", "--agent", &agent]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

fn greeting() -> Vec<u8> {
    let run = RunSpec { gadget: "execsnoop".into(), ..RunSpec::default() };
    Frame::Hello(Box::new(Hello { version: VERSION, run: Some(run), ..Hello::default() })).encode().unwrap()
}

/// The failure with which a session ends.
fn failure_of<R: std::io::Read, W: std::io::Write>(mut session: Session<R, W>) -> gadgets::wire::Failure {
    loop {
        match session.next_frame() {
            Some(Frame::Error(failure)) => return failure,
            Some(_) => {}
            None => panic!("the session ended without saying why"),
        }
    }
}

#[test]
fn a_client_that_talks_nonsense() {
    let _alone = compares_loaded();
    let before = Loaded::now();
    let daemon = Daemon::start("nonsense");
    let idle = Loaded::now();
    for (name, bytes, words) in nonsense() {
        for greeted in [false, true] {
            let says = if greeted { [greeting(), bytes.clone()].concat() } else { bytes.clone() };

            let mut agent = Command::new(dist("gadget-agent"))
                .args(["session", "--local", "--bundles", &bundles()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = agent.stdin.take().unwrap();
            input.write_all(&says).unwrap();
            drop(input);
            let failure = failure_of(Session::new(agent.stdout.take().unwrap(), Vec::new()));
            assert_eq!(failure.kind, FailureKind::Protocol, "{name}");
            assert!(failure.message.contains(words), "{name}: {}", failure.message);
            assert_eq!(agent.wait().unwrap().code(), Some(1));

            let connection = UnixStream::connect(&daemon.socket).unwrap();
            let mut session = Session::new(connection.try_clone().unwrap(), connection.try_clone().unwrap());
            session.send(&says);
            connection.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(failure_of(session).message.contains(words), "{name}, daemon");
        }
    }
    idle.wait_for("after nonsense");
    // It still serves.
    assert_eq!(Client::start(&["execsnoop", "--socket", daemon.socket()]).stop().status.code(), Some(130));
    drop(daemon);
    before.wait_for("with the daemon gone");
}

#[test]
fn a_client_that_asks_for_what_is_not_there() {
    let _loads = tests::loads_programs();
    let daemon = Daemon::start("unknown");
    let ask = |run: RunSpec| {
        let connection = UnixStream::connect(&daemon.socket).unwrap();
        let mut session = Session::new(connection.try_clone().unwrap(), connection);
        let hello = Frame::Hello(Box::new(Hello { version: VERSION, run: Some(run), ..Hello::default() }));
        session.send(&hello.encode().unwrap());
        failure_of(session)
    };
    let failure = ask(RunSpec { gadget: "nosuch".into(), ..RunSpec::default() });
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.message.contains("execsnoop"), "{}", failure.message);
    let parameters = [("colour".to_owned(), "red".to_owned())].into();
    let failure = ask(RunSpec { gadget: "execsnoop".into(), parameters, ..RunSpec::default() });
    assert_eq!(failure.kind, FailureKind::Usage);
    let limits = gadgets::spec::Limits { ring_bytes: Some(70_000) };
    let failure = ask(RunSpec { gadget: "execsnoop".into(), limits, ..RunSpec::default() });
    assert!(failure.message.contains("power of two"), "{}", failure.message);
    let tasks = TaskFilter { pids: Choice::Not((0..2000).collect()), ..TaskFilter::default() };
    let failure = ask(RunSpec { gadget: "execsnoop".into(), tasks, ..RunSpec::default() });
    assert!(failure.message.contains("at most 1024"), "{}", failure.message);
}

#[test]
fn more_than_a_node_grants() {
    let _loads = tests::loads_programs();
    let daemon = Daemon::start("budget");
    let large = ["--socket", daemon.socket(), "--buffer", "256MiB"];
    let first = Client::start(&[&["execsnoop"], &large[..]].concat());
    // What runs already can be shared; another ring of that size is too much.
    let second = Client::start(&[&["execsnoop"], &large[..]].concat());
    let third = [&["execsnoop", "--failed", "--local"], &large[..]].concat();
    fails(&third, 1, &["free of the 352.0 MiB", "needs 272.0 MiB", "a smaller --buffer"]);
    Client::start(&["execsnoop", "--failed", "--socket", daemon.socket()]).stop();
    [first, second].into_iter().for_each(|client| _ = client.stop());
    assert_eq!(client_output(&[&third[..], &["--timeout", "1ms"]].concat()).status.code(), Some(0));
}

#[test]
fn a_second_daemon_on_a_socket() {
    let _loads = tests::loads_programs();
    let daemon = Daemon::start("second");
    let output = Command::new(dist("gadget-agent")).args(["daemon", "--socket", daemon.socket()]).output().unwrap();
    check(output, 1, &["another agent serves"], "second daemon");
    assert!(Path::new(daemon.socket()).exists());

    let file = temporary("precious", b"data", 0o600);
    let output = Command::new(dist("gadget-agent")).args(["daemon", "--socket"]).arg(&file).output().unwrap();
    check(output, 1, &["exists and is no socket"], "a file in the socket's place");
    assert_eq!(std::fs::read(file).unwrap(), b"data");
}
