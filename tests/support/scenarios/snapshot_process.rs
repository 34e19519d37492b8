//! snapshot-process shows every process of a container, as /proc has it, and nobody else's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::families::Families;
use super::{Containers, Scenario};
use crate::Seen;

/// All of it.
pub(super) static SNAPSHOT_PROCESS: Scenario = Scenario {
    gadget: "snapshot-process",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    // There are no events.
    storm: None,
};

/// A process or thread.
#[derive(Debug, PartialEq, Eq)]
struct Task {
    pid: u64,
    ppid: u64,
    own_pid: u64,
    uid: u64,
    threads: u64,
    state: String,
    comm: String,
}

fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The members of a line of /proc/PID/status.
fn status_of(task: &Path) -> Option<BTreeMap<String, Vec<String>>> {
    let text = fs::read_to_string(task.join("status")).ok()?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Some(lines.map(|(name, rest)| (name.to_owned(), rest.split_whitespace().map(str::to_owned).collect())).collect())
}

fn task_of_proc(task: &Path) -> Option<Task> {
    let status = status_of(task)?;
    let number = |name: &str, at: usize| status[name][at].parse::<u64>().unwrap();
    let process = status_of(Path::new(&format!("/proc/{}", number("Tgid", 0))))?;
    let state = match status["State"][0].as_str() {
        "R" => "running",
        "S" => "sleeping",
        "T" => "stopped",
        "Z" => "zombie",
        other => other,
    };
    Some(Task {
        pid: number("Tgid", 0),
        ppid: number("PPid", 0),
        own_pid: process["NSpid"].last()?.parse().unwrap(),
        uid: number("Uid", 1),
        // The thread that has ended with the process is none of those that there are.
        threads: number("Threads", 0),
        state: state.to_owned(),
        comm: status["Name"].join(" "),
    })
}

/// The tasks of these processes, by their ids: of each process the first, or all.
fn tasks_of_proc(processes: &[PathBuf], all: bool) -> BTreeMap<u64, Task> {
    let mut found = BTreeMap::new();
    for process in processes {
        for task in fs::read_dir(process.join("task")).unwrap() {
            let path = task.unwrap().path();
            let id: u64 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let is_first = process.file_name() == path.file_name();
            found.extend(task_of_proc(&path).filter(|_| all || is_first).map(|task| (id, task)));
        }
    }
    found
}

fn task_of(event: &Value) -> Task {
    let number = |name: &str| event[name].as_u64().unwrap();
    let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{name}: {event}")).to_owned();
    Task {
        pid: number("pid"),
        ppid: number("ppid"),
        own_pid: number("own_pid"),
        uid: number("uid"),
        threads: number("threads"),
        state: text("state"),
        comm: text("comm"),
    }
}

/// Nanoseconds since boot at which a process was started, by /proc: in hundredths of a second.
fn started(pid: u64) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    ticks * 10_000_000
}

fn exact(containers: &mut dyn Containers, options: &[&str], members: usize) -> Seen {
    let members = members.min(50);
    let families = Families::start(containers, members);
    let take = |more: &[&str]| families.first().take(&SNAPSHOT_PROCESS, &[options, more].concat());
    let shown = |seen: &Seen, id: &str| -> BTreeMap<u64, Task> {
        let events = seen.events();
        let tasks: BTreeMap<_, _> = events.iter().map(|event| (event[id].as_u64().unwrap(), task_of(event))).collect();
        assert_eq!(tasks.len(), events.len(), "some are shown twice");
        tasks
    };
    let threads = take(&["--threads"]);
    assert_eq!(shown(&threads, "tid"), tasks_of_proc(&families.first().processes(), true));
    let before = boot_ns();
    let seen = take(&[]);
    let after = boot_ns();
    let expected = tasks_of_proc(&families.first().processes(), false);
    // The parent, and who has ended.
    assert_eq!((shown(&seen, "pid"), expected.len()), (expected, members + 2));
    for state in ["sleeping", "stopped", "zombie"] {
        assert!(seen.events().iter().any(|event| event["state"] == state), "none is {state}");
    }
    for event in seen.events() {
        let (age, started) = (event["age"].as_u64().unwrap(), started(event["pid"].as_u64().unwrap()));
        assert!(age <= after - started && age + 10_000_000 >= before - started, "{event}");
    }
    families.end(containers);
    seen
}
