//! Snapshots beside what people ask on a node: ps, lsof, and ss in the pod's network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use tests::scenarios::Scenario;
use tests::scenarios::families::Families;
use tests::{Client, Pod, Process, RealPods, endpoint, loads_programs};

use crate::cgroups::Cgroups;

/// Takes a snapshot of each of two pods, and asks another program about the processes in it.
fn beside(gadget: &str, check: impl Fn(&[&Value], &[u64])) {
    let _loads = loads_programs();
    let mut containers = RealPods::in_turn();
    let families = Families::start(&mut containers, 10);
    let number = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    for family in families.iter() {
        let seen = family.take(Scenario::of(gadget), &[]);
        check(&seen.events(), &family.processes().iter().map(number).collect::<Vec<_>>());
    }
    families.end(&mut containers);
}

fn said_by(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn numbers<const N: usize>(event: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| event[name].as_u64().unwrap_or_else(|| panic!("{name}: {event}")))
}

/// Whether what looks at processes alone finds files there: one whose first thread has ended shows none, whatever the others have.
fn has_files(pid: u64) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().next().is_some()
}

#[test]
fn processes_that_ps_sees() {
    beside("snapshot-process", |events, pids| {
        let all = said_by("ps", &["-eo", "pid=,ppid=,uid=,nlwp=,stat=,comm="]);
        let of_ps = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            ([0, 1, 2, 3].map(number), words[4][..1].to_owned(), words[5].to_owned())
        };
        let of_pids = all.lines().map(of_ps).filter(|([pid, ..], ..)| pids.contains(pid));
        let shown = events.iter().map(|event| {
            let state = match event["state"].as_str().unwrap() {
                "sleeping" => "S",
                "stopped" => "T",
                "zombie" => "Z",
                other => other,
            };
            let comm = event["comm"].as_str().unwrap().to_owned();
            (numbers(event, ["pid", "ppid", "uid", "threads"]), state.to_owned(), comm)
        });
        assert_eq!(shown.collect::<BTreeSet<_>>(), of_pids.collect());
        for event in events {
            let [pid, age] = numbers(event, ["pid", "age"]);
            // In whole seconds, and a moment later.
            let of_ps = said_by("ps", &["-o", "etimes=", "-p", &pid.to_string()]).trim().parse::<u64>().unwrap();
            assert!((age / 1_000_000_000..).take(10).any(|seconds| seconds == of_ps), "{of_ps} s: {event}");
        }
    });
}

#[test]
fn files_that_lsof_sees() {
    beside("snapshot-file", |events, pids| {
        // Who has none it takes for a failure.
        let pids = pids.iter().filter(|pid| has_files(**pid)).map(ToString::to_string).collect::<Vec<_>>().join(",");
        // A line for each field, which begins with its letter.
        let said = said_by("lsof", &["-n", "-P", "-w", "-F", "pfin", "-a", "-p", &pids, "-d", "0-1023"]);
        let mut files: BTreeMap<(u64, u64), (u64, String)> = BTreeMap::new();
        let (mut pid, mut fd) = (0, 0);
        for line in said.lines() {
            let (field, value) = line.split_at(1);
            match field {
                "p" => pid = value.parse().unwrap(),
                "f" => fd = value.parse().unwrap(),
                "i" => files.entry((pid, fd)).or_default().0 = value.parse().unwrap(),
                "n" => files.entry((pid, fd)).or_default().1 = value.trim_end_matches(" (deleted)").to_owned(),
                _ => {}
            }
        }
        assert!(files.len() > 100, "{said}");
        let events: Vec<_> = events.iter().filter(|event| event["pid"].as_u64().is_some_and(has_files)).collect();
        assert_eq!(files.len(), events.len());
        for event in events {
            let [pid, fd, inode] = numbers(event, ["pid", "fd", "inode"]);
            let (its_inode, name) = &files[&(pid, fd)];
            // What lies in no directory has no path; it calls that something.
            let is_named = event["path"].as_str().map_or(!name.starts_with('/'), |path| path == name);
            // It says of sockets of IP who they talk to instead.
            assert!(is_named && (inode == *its_inode || event["kind"] == "socket"), "{name}: {event}");
        }
    });
}

/// `127.0.0.1:80`, `[::1]:80`, `*:80`, `[::]:*`.
fn address(text: &str) -> String {
    let (address, port) = text.rsplit_once(':').unwrap();
    // An address of IPv4 as IPv6 has it is shown as the former.
    let address = match address.strip_prefix("[::ffff:").and_then(|rest| rest.strip_suffix(']')) {
        Some(mapped) if mapped.contains('.') => mapped,
        _ if address == "*" => "[::]",
        _ => address,
    };
    format!("{address}:{}", if port == "*" { "0" } else { port })
}

#[test]
fn sockets_that_ss_sees() {
    beside("snapshot-socket", |events, pids| {
        let said = said_by("nsenter", &["-t", &pids[0].to_string(), "-n", "ss", "-tuanpHO"]);
        let mut sockets = Vec::new();
        for line in said.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [protocol, state, recv, send, local, peer] = *words.first_chunk().unwrap();
            let queues = [recv, send].map(|queue| queue.parse::<u64>().unwrap());
            let socket = |holder| (holder, queues, [protocol, state].map(str::to_owned), [local, peer].map(address));
            let Some(users) = words.get(6) else {
                sockets.push(socket(None));
                continue;
            };
            // Each who holds it: users:(("member-0",pid=12,fd=3),…).
            for holder in users.split("(\"").skip(1) {
                let of = |name: &str| {
                    let rest = holder.split_once(name).unwrap().1;
                    rest[..rest.find([',', ')']).unwrap()].parse::<u64>().unwrap()
                };
                sockets.push(socket(Some([of("pid="), of("fd=")])));
            }
        }
        let is_seen = |event: &Value| event["local"].is_object() && event["pid"].as_u64().is_none_or(has_files);
        let shown = events.iter().filter(|event| is_seen(event)).map(|event| {
            let state = match event["state"].as_str().unwrap() {
                "established" => "ESTAB",
                "unconnected" => "UNCONN",
                "fin_wait1" => "FIN-WAIT-1",
                "fin_wait2" => "FIN-WAIT-2",
                other => &other.to_uppercase().replace('_', "-"),
            };
            let protocol = event["protocol"].as_str().unwrap();
            let ends = ["local", "peer"].map(|end| endpoint(&event[end]).to_string());
            let queues = numbers(event, ["recv_queue", "send_queue"]);
            let holder = event["fd"].is_u64().then(|| numbers(event, ["pid", "fd"]));
            (holder, queues, [protocol, state].map(str::to_owned), ends)
        });
        assert!(sockets.len() > 50 && sockets.iter().filter(|(holder, ..)| holder.is_none()).count() > 5, "{said}");
        let mut shown: Vec<_> = shown.collect();
        shown.sort();
        sockets.sort();
        assert_eq!(shown, sockets);
    });
}

/// A container with connections that nobody has, beside another one in one network, and in the host's.
#[test]
fn connections_that_nobody_has_are_a_pods() {
    let _loads = loads_programs();
    let (two, open) = (Pod::new("shop", "two"), Pod::new("shop", "open"));
    let shared = |name: &str| tests::shared_folder().join(name);
    fs::copy(tests::dist("workload"), shared("workload-of-two")).unwrap();
    two.run_alone("first", &["sleep", "1000"]);
    for (pod, is_alone) in [(&two, true), (&open, false)] {
        let [ready, go] = ["two.ready", "two.go"].map(shared);
        [&ready, &go].into_iter().for_each(|file| _ = fs::remove_file(file));
        // Nobody opens its other end.
        mkfifo(&go, Mode::S_IRUSR).unwrap();
        let command = ["/tmp/workload-of-two", "family", "0", "/tmp/two.ready", "/tmp/two.go"];
        if is_alone {
            pod.run_alone("app", &command);
        } else {
            pod.run("app", &command);
        }
        tests::wait_for("its connections", || ready.exists());
    }
    let take = |options: &[&str]| {
        let seen = Client::start(&[&["snapshot", "socket", "-n", "shop"], options].concat()).finish();
        assert_eq!((seen.lost(), seen.gaps().len()), (0, 0), "{}", seen.said);
        let text = |event: &Value, name: &str| event[name].as_str().map(str::to_owned);
        let unheld = seen.events().into_iter().filter(|event| event["pid"].is_null());
        unheld.map(|event| (text(event, "container"), text(event, "state").unwrap())).collect::<BTreeSet<_>>()
    };
    let of_app: BTreeSet<_> =
        ["established", "fin_wait1", "syn_recv"].map(|state| (Some("app".to_owned()), state.to_owned())).into();
    // Of which of the two these were the kernel does not know.
    let of_either = ["fin_wait2", "time_wait"].map(|state| (None, state.to_owned()));
    assert_eq!(take(&["-p", "two"]), of_app.iter().cloned().chain(of_either).collect());
    assert_eq!((take(&["-p", "two", "-c", "app"]), take(&["-c", "first"])), (of_app.clone(), BTreeSet::new()));
    // Those are the host's.
    assert_eq!(take(&["-p", "open"]), of_app);
}

/// Processes, and files that each has open: their rows are more than an agent keeps for a client.
const PROCESSES: usize = 80;
const FILES: usize = 900;

#[test]
fn more_files_than_may_wait_for_a_client() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("files");
    let cgroup = cgroups.make("");
    let script = format!(
        "echo $$ >{}/cgroup.procs; for ((fd = 10; fd < 10 + {FILES}; fd++)); do eval \"exec $fd</dev/null\"; done; exec sleep 1000",
        cgroups.directory("").display()
    );
    let processes: Vec<Process> =
        (0..PROCESSES).map(|_| Process(Command::new("bash").args(["-c", &script]).spawn().unwrap())).collect();
    let comm = |process: &Process| fs::read_to_string(format!("/proc/{}/comm", process.pid())).unwrap();
    tests::wait_for("all files to be open", || processes.iter().all(|process| comm(process) == "sleep\n"));
    let seen = Client::start(&["snapshot", "file", "--cgroup", &cgroup]).finish();
    let opened =
        seen.events().into_iter().filter(|event| (10..10 + FILES as u64).contains(&event["fd"].as_u64().unwrap()));
    assert_eq!((opened.count(), seen.lost(), seen.gaps().len()), (PROCESSES * FILES, 0, 0), "{}", seen.said);
}
