//! What is lost is counted: printed and lost make generated, exactly.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;

use gadgets::record::records;
use gadgets::spec::{Limits, RunSpec, Selector};
use gadgets::wire::{Frame, Hello, Resume, Stage, VERSION};
use nix::sys::signal::Signal;
use tests::{Client, Daemon, Pod, Session, loads_programs, shared_folder};

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

/// Stops a client while a pod's storm lasts.
fn stop_during_storm(client: &Client, pod: &str) {
    client.process.signal(Signal::SIGSTOP);
    Pod { full_name: format!("storm/{pod}") }.wait("app");
    client.process.signal(Signal::SIGCONT);
}

#[test]
fn what_a_client_does_not_read_waits_in_the_ring() {
    let _loads = loads_programs();
    let name = "stopped-client";
    let seen = storm(name, &["--buffer", "256MiB"], |client| stop_during_storm(client, name));
    assert_eq!((seen.events().len() as u64, seen.lost()), (STORM + 1, 0));
    let name = "stopped-longer";
    let seen = storm(name, &["--buffer", "1MiB"], |client| stop_during_storm(client, name));
    check(&seen, name, "kernel_ring");
}

#[test]
fn a_client_that_does_not_read_beside_one_that_does() {
    /// Attempts at a time: all of them fit into what may wait for a client.
    const PORTION: u64 = 500;
    const PORTIONS: u64 = 12;
    let _loads = loads_programs();
    fs::copy(tests::dist("workload"), shared_folder().join("workload-beside")).unwrap();
    let daemon = Daemon::start("beside");
    let start = || Client::start(&["execsnoop", "-n", "beside", "--socket", daemon.socket(), "--buffer", "64MiB"]);
    let (stopped, mut reading) = (start(), start());
    let pod = Pod::new("beside", "storm");
    stopped.process.signal(Signal::SIGSTOP);
    for portion in 1..=PORTIONS {
        pod.run(&format!("app-{portion}"), &["/tmp/workload-beside", "storm", &PORTION.to_string(), "8000"]);
        let came = Cell::new(reading.seen.len() as u64 - 1);
        assert!(reading.read_until(|line| {
            assert_eq!(line["type"], "event");
            came.set(came.get() + 1);
            came.get() == portion * (PORTION + 1)
        }));
    }
    stopped.process.signal(Signal::SIGCONT);
    let all = PORTIONS * (PORTION + 1);
    for (client, loses) in [(reading, false), (stopped, true)] {
        let seen = client.stop();
        assert_eq!((seen.events().len() as u64 + seen.lost(), seen.lost() > 0), (all, loses), "{}", seen.said);
        assert!(seen.of_type("loss").iter().all(|loss| loss["stage"] == "agent_queue"));
    }
}

#[test]
fn a_map_that_is_full() {
    /// What the map has room for, and connections with two sockets each.
    const ROOM: u64 = 65_536;
    const CONNECTIONS: u64 = 33_500;
    let _loads = loads_programs();
    fs::copy(tests::dist("workload"), shared_folder().join("workload-map")).unwrap();
    let args = ["tcptop", "-p", "map", "--variant", "connections=hash", "--interval", "1h", "--buffer", "64MiB"];
    let client = Client::start(&args);
    let pod = Pod::new("storm", "map");
    pod.run("app", &["/tmp/workload-map", "transfers-at-once", &CONNECTIONS.to_string()]);
    pod.wait("app");
    let seen = client.stop();
    // The hour may end meanwhile.
    let shown: BTreeSet<_> = seen.events().iter().map(|row| format!("{} {}", row["local"], row["peer"])).collect();
    assert_eq!(shown.len() as u64 + seen.lost(), 2 * CONNECTIONS, "{}", seen.said);
    assert!(seen.lost() >= 2 * CONNECTIONS - ROOM);
    for loss in seen.of_type("loss") {
        assert_eq!((&loss["stage"], &loss["pod"]), (&"kernel_map".into(), &"map".into()), "{loss}");
    }
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

#[test]
fn a_noisy_pod_takes_nothing_from_a_quiet_one() {
    const QUIET: usize = 500;
    let _loads = loads_programs();
    let folder = shared_folder();
    fs::copy(tests::dist("workload"), folder.join("workload-fair")).unwrap();
    for go in ["go-noisy", "go-quiet"] {
        let _ = fs::remove_file(folder.join(go));
    }
    let mut client = Client::start(&["opensnoop", "-n", "fair", "--failed", "--buffer", "1MiB"]);
    let start = |name: &str, count: &str| {
        let pod = Pod::new("fair", name);
        let go = format!("/tmp/go-{name}");
        pod.run("app", &["/tmp/workload-fair", "after-one", &go, "failing-opens", count]);
        pod
    };
    let (noisy, quiet) = (start("noisy", "50000"), start("quiet", &QUIET.to_string()));
    client.read_until_seen("a first event of each", |seen| {
        seen.iter().filter(|line| line["type"] == "event").count() == 2
    });
    let frozen = client.freeze_agent();
    for (pod, go) in [(&noisy, "go-noisy"), (&quiet, "go-quiet")] {
        fs::write(folder.join(go), "").unwrap();
        pod.wait("app");
    }
    drop(frozen);
    let seen = client.stop();
    let of_quiet = seen.events().iter().filter(|event| event["pod"] == "quiet").count();
    assert_eq!(of_quiet, QUIET);
    assert_eq!(seen.events().len() as u64 + seen.lost(), 50_000 + QUIET as u64);
    assert!(seen.lost() > 0 && seen.of_type("loss").iter().all(|loss| loss["pod"] == "noisy"));
    // It could still use most of the ring.
    let largest = (1 << 20) / 100;
    assert!(seen.events().len() > largest * 7 / 10, "{}", seen.events().len());
    let [loss] = &seen.summary()["losses"].as_array().unwrap()[..] else { panic!("{}", seen.summary()) };
    assert_eq!((&loss["pod"], &loss["count"]), (&"noisy".into(), &seen.lost().into()));
}

/// What comes of a session until its end, or until there were so many records.
fn listen(session: &mut Session<UnixStream, UnixStream>, enough: u64) -> (Resume, Vec<Stage>) {
    let (mut arrived, mut stages) = (Resume::default(), Vec::new());
    while arrived.records < enough {
        match session.next_frame().expect("a trailer at the end") {
            Frame::Batch(batch) => arrived.records += records(&batch).count() as u64,
            Frame::Loss(loss) => {
                arrived.lost += loss.count;
                stages.push(loss.stage);
            }
            Frame::Trailer(_) => break,
            _ => {}
        }
    }
    (arrived, stages)
}

#[test]
fn what_a_connection_that_broke_off_has_swallowed() {
    let _loads = loads_programs();
    fs::copy(tests::dist("workload"), shared_folder().join("workload-broken")).unwrap();
    let daemon = Daemon::start("broken");
    let connect = |resume: Option<Resume>| {
        let connection = UnixStream::connect(&daemon.socket).unwrap();
        let mut session = Session::new(connection.try_clone().unwrap(), connection);
        let selector = Selector { pods: vec!["broken".into()], ..Selector::default() };
        let limits = Limits { ring_bytes: Some(256 << 20) };
        let run = RunSpec { gadget: "execsnoop".into(), selector, limits, ..RunSpec::default() };
        let hello = Hello { version: VERSION, run: Some(run), resume, ..Hello::default() };
        session.send(&Frame::Hello(Box::new(hello)).encode().unwrap());
        let Some(Frame::Hello(hello)) = session.next_frame() else { panic!("the agent says Hello") };
        (session, hello.session.unwrap())
    };
    let (mut session, id) = connect(None);
    let pod = Pod::new("storm", "broken");
    pod.run("app", &["/tmp/workload-broken", "storm", &STORM.to_string(), "8000"]);
    let (arrived, _) = listen(&mut session, STORM / 10);
    drop(session);
    let (mut session, _) = connect(Some(Resume { session: id, ..arrived }));
    pod.wait("app");
    session.send(&Frame::Stop.encode().unwrap());
    let (rest, stages) = listen(&mut session, u64::MAX);
    assert_eq!(arrived.records + arrived.lost + rest.records + rest.lost, STORM + 1);
    assert!(stages.contains(&Stage::Stream), "{stages:?}");
}
