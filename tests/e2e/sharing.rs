//! Sessions share what they can, and leave nothing behind, however they end.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use tests::{Client, Daemon, Loaded, Pod, client_output, compares_loaded, wait_for};

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
    let client = tests::client_command("kubectl-gadget", &["execsnoop", "--local", "--host"]);
    let line = std::iter::once(client.get_program()).chain(client.get_args());
    let line: Vec<_> = line.map(|word| word.to_string_lossy().into_owned()).collect();
    // `head` ends after the header; the loop makes rows until the client notices.
    let script = format!(
        "({} ; echo $? >&2) | head -1 & while kill -0 $! 2>/dev/null; do /bin/true; done; wait",
        line.join(" ")
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("KUBECTL_GADGET_AGENT", tests::dist("gadget-agent"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("NODE"));
    before.wait_for("after the reader went away");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "0\n");
}
