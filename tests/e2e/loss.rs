//! What is lost is counted: printed and lost make generated, exactly.

use std::fs;

use nix::sys::signal::Signal;
use tests::{Client, Pod, loads_programs, shared_folder};

/// The storm's attempts, and the container's own start.
const STORM: u64 = 20_000;

fn storm(name: &str, args: &[&str], while_it_runs: impl FnOnce(&mut Client)) -> tests::Seen {
    let program = format!("workload-{name}");
    fs::copy(tests::dist("workload"), shared_folder().join(&program)).unwrap();
    let mut client = Client::start(&[&["execsnoop", "-p", name], args].concat());
    let pod = Pod::new("storm", name);
    let count = STORM.to_string();
    pod.run("app", &[&format!("/tmp/{program}"), "storm", &count, "8000"]);
    while_it_runs(&mut client);
    pod.wait("app");
    client.stop()
}

/// Losses at this stage must be among those that were told.
fn check(seen: &tests::Seen, name: &str, stage: &str) {
    assert_eq!(seen.events().len() as u64 + seen.lost(), STORM + 1);
    let losses = seen.of_type("loss");
    assert!(losses.iter().any(|loss| loss["stage"] == stage), "the storm was too weak to prove anything: {losses:?}");
    for loss in losses {
        assert_eq!((&loss["namespace"], &loss["pod"]), (&"storm".into(), &name.into()), "{loss}");
    }
    assert_eq!(seen.summary()["lost"], seen.lost());
    assert_eq!(seen.summary()["complete"], true);
}

#[test]
fn a_ring_that_is_too_small() {
    let _loads = loads_programs();
    let seen = storm("small-ring", &["--buffer", "64KiB"], |_| {});
    check(&seen, "small-ring", "kernel_ring");
}

#[test]
fn a_client_that_does_not_read() {
    let _loads = loads_programs();
    let seen = storm("stopped-client", &["--buffer", "256MiB"], |client| {
        client.process.signal(Signal::SIGSTOP);
        Pod { full_name: "storm/stopped-client".into() }.wait("app");
        client.process.signal(Signal::SIGCONT);
    });
    check(&seen, "stopped-client", "agent_queue");
}

#[test]
fn loss_turns_into_the_exit_code_if_wished() {
    let _loads = loads_programs();
    fs::copy(tests::dist("workload"), shared_folder().join("workload-fail")).unwrap();
    let mut client =
        Client::start(&["execsnoop", "-p", "fail", "--buffer", "64KiB", "--fail-on-loss", "--timeout", "5s"]);
    let pod = Pod::new("storm", "fail");
    pod.run("app", &["/tmp/workload-fail", "storm", &STORM.to_string(), "8000"]);
    client.read_until(|_| false);
    assert_eq!(client.process.wait().code(), Some(3));
}
