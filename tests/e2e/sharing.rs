//! Sessions share what they can, and leave nothing behind, however they end.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use tests::{
    Client, Daemon, Loaded, Pod, client_output, compares_loaded, dist, loads_programs, shared_folder, wait_for,
};

#[test]
fn two_sessions_share_one_instance() {
    let _alone = compares_loaded();
    let before = Loaded::now();
    let daemon = Daemon::start("shared");
    let idle = Loaded::now();
    let web = Client::start(&["execsnoop", "-p", "web-shared", "--socket", daemon.socket()]);
    let all = Client::start(&["execsnoop", "-n", "sharing", "--socket", daemon.socket()]);
    assert_eq!(Loaded::programs_named("exec_started"), 1);
    let other = Client::start(&["execsnoop", "--failed", "-n", "sharing", "--socket", daemon.socket()]);
    assert_eq!(Loaded::programs_named("exec_started"), 2);

    let (first, second) = (Pod::new("sharing", "web-shared"), Pod::new("sharing", "db-shared"));
    first.run("app", &["/bin/true", "web"]);
    second.run("app", &["/bin/true", "db"]);
    let tokens = |seen: tests::Seen| -> Vec<String> {
        seen.events().iter().map(|event| event["args"][1].as_str().unwrap().to_owned()).collect()
    };
    // One that leaves takes nothing from the other.
    assert_eq!(tokens(web.stop()), ["web"]);
    first.run("again", &["/bin/true", "web-again"]);
    assert_eq!(tokens(all.stop()), ["web", "db", "web-again"]);
    assert_eq!(tokens(other.stop()), [""; 0]);
    idle.wait_for("with the last session gone");
    daemon.process.signal(Signal::SIGTERM);
    before.wait_for("with the daemon ended");
    wait_for("the socket to be removed", || !daemon.socket.exists());
}

#[test]
fn what_is_shown_once_is_shown_to_each_session() {
    let _loads = loads_programs();
    let daemon = Daemon::start("once");
    let start = || Client::start(&["flows", "-n", "once", "--socket", daemon.socket()]);
    let has_one = |seen: &[serde_json::Value]| seen.iter().filter(|line| line["type"] == "event").count() == 1;
    let name = |kind: &str| format!("once-{}.{kind}", std::process::id());
    fs::copy(dist("workload"), shared_folder().join(name("workload"))).unwrap();
    let [workload, go] = ["workload", "go"].map(|kind| format!("/tmp/{}", name(kind)));

    let mut first = start();
    let pod = Pod::new("once", "sender");
    pod.run("app", &[&workload, "after-one", &go, "flow-storm", "2"]);
    first.read_until_seen("the flow", has_one);
    // The same flow goes on.
    let mut second = start();
    fs::write(shared_folder().join(name("go")), "").unwrap();
    second.read_until_seen("the flow", has_one);
    pod.wait("app");
    assert_eq!((first.stop().events().len(), second.stop().events().len()), (1, 1));
}

#[test]
fn nothing_stays_loaded_however_a_local_run_ends() {
    let _alone = compares_loaded();
    let before = Loaded::now();

    let seen = Client::start(&["execsnoop"]).stop();
    assert_eq!(seen.status.code(), Some(130));
    assert_eq!(seen.summary()["complete"], true);
    before.wait_for("after Ctrl-C");

    let client = Client::start(&["execsnoop"]);
    assert_ne!(Loaded::now(), before);
    client.process.signal(Signal::SIGKILL);
    before.wait_for("after SIGKILL of the client");

    let client = Client::start(&["execsnoop"]);
    client.process.signal(Signal::SIGTERM);
    before.wait_for("after SIGTERM of the client");

    let client = Client::start(&["execsnoop"]);
    kill(client.process.children()[0], Signal::SIGKILL).unwrap();
    before.wait_for("after SIGKILL of the agent");

    let output = client_output(&["execsnoop", "--local", "--timeout", "100ms"]);
    assert_eq!(output.status.code(), Some(0));
    before.wait_for("after the timeout");
}

#[test]
fn nothing_stays_loaded_however_a_daemons_session_ends() {
    let _alone = compares_loaded();
    let before = Loaded::now();
    let daemon = Daemon::start("ends");
    let idle = Loaded::now();
    let start = || Client::start(&["execsnoop", "--socket", daemon.socket()]);

    start().process.signal(Signal::SIGKILL);
    idle.wait_for("after SIGKILL of the client");

    let mut client = start();
    kill(client.process.children()[0], Signal::SIGKILL).unwrap();
    idle.wait_for("after SIGKILL of the relay");
    client.read_until(|_| false);
    assert_eq!(client.process.wait().code(), Some(1), "an incomplete stream is a failure");

    // The daemon goes on after each of these.
    assert_eq!(start().stop().status.code(), Some(130));
    idle.wait_for("after Ctrl-C");

    let mut client = start();
    daemon.process.signal(Signal::SIGKILL);
    before.wait_for("after SIGKILL of the daemon");
    client.read_until(|_| false);
    assert_eq!(client.process.wait().code(), Some(1));
    assert_eq!(client.seen.last().unwrap()["complete"], false);
    assert!(client.seen.iter().any(|line| line["type"] == "gap"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let _alone = compares_loaded();
    let before = Loaded::now();
    let mut command = tests::client_command("kubectl-gadget", &["execsnoop", "--local", "--host"]);
    let mut client = tests::Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut output = BufReader::new(client.0.stdout.take().unwrap());
    let mut header = String::new();
    output.read_line(&mut header).unwrap();
    assert!(header.starts_with("NODE"));
    // No event is needed for the client to notice.
    drop(output);
    assert_eq!(client.wait().code(), Some(0));
    let mut said = String::new();
    client.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    before.wait_for("after the reader went away");
}
