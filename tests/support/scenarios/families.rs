//! Two containers of processes that wait while a snapshot is taken of one of them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{Containers, Scenario, provide_workload};
use crate::{Seen, wait_for};

/// The one that is looked at, and another beside it.
const PODS: [&str; 2] = ["web", "db"];

/// Both, which are to be [ended](Families::end).
pub struct Families {
    /// What says that they may end.
    go: Vec<PathBuf>,
    /// What the command line of each process of the first has that has not ended.
    mark: String,
}

impl Families {
    /// Starts them, each with so many children, and waits until all of these wait.
    pub fn start(containers: &mut dyn Containers, members: usize) -> Self {
        let workload = provide_workload(containers);
        let files = PODS.map(|pod| ["ready", "go"].map(|what| format!("family-{pod}.{what}")));
        let theirs = |name: &String| containers.shared_folder().join(name);
        let shared = files.each_ref().map(|names| names.each_ref().map(theirs));
        shared.as_flattened().iter().for_each(|file| _ = fs::remove_file(file));
        shared.iter().for_each(|[_, go]| mkfifo(go, Mode::S_IRUSR | Mode::S_IWUSR).unwrap());
        for (pod, names) in PODS.iter().zip(&files) {
            let [ready, go] = names.each_ref().map(|name| format!("/tmp/{name}"));
            containers.start_alone(
                &format!("shop/{pod}"),
                "app",
                &[&workload, "family", &members.to_string(), &ready, &go],
            );
        }
        wait_for("both families", || shared.iter().all(|[ready, _]| ready.exists()));
        let families = Self { go: shared.map(|[_, go]| go).into(), mark: format!("/tmp/{}", files[0][0]) };
        wait_for("the first to rest", || !families.processes().iter().any(|process| is_running(process)));
        families
    }

    /// The processes of the first, as folders of /proc.
    pub fn processes(&self) -> Vec<PathBuf> {
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let all: Vec<_> = all.filter(|path| path.join("task").exists()).collect();
        let is_marked = |path: &&PathBuf| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|arg| arg == self.mark.as_bytes())
        };
        // Of who has ended it says nothing with cgroups of version 1.
        let cgroup = |path: &Path| fs::read_to_string(path.join("cgroup")).ok();
        let root = all.iter().find(is_marked).unwrap();
        let (theirs, number) = (cgroup(root), root.file_name().unwrap().to_str().unwrap());
        let is_child = |path: &Path| {
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() == number))
        };
        all.iter().filter(|path| cgroup(path) == theirs || is_child(path)).cloned().collect()
    }

    /// Has them end.
    pub fn end(self, containers: &mut dyn Containers) {
        // If nobody waits there it fails, instead of waiting for somebody.
        let open = |go: &PathBuf| OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(go);
        self.go.iter().for_each(|go| wait_for("who waits", || open(go).is_ok()));
        PODS.iter().for_each(|pod| containers.wait(&format!("shop/{pod}"), "app"));
    }
}

/// Whether a thread of a process does something.
fn is_running(process: &Path) -> bool {
    let state = |task: &Path| {
        let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    let tasks = fs::read_dir(process.join("task")).unwrap();
    tasks.filter_map(Result::ok).any(|task| state(&task.path()) == Some('R'))
}

/// A snapshot of the first.
pub fn take(scenario: &Scenario, options: &[&str]) -> Seen {
    let seen = scenario.client(&[&["-n", "shop", "-p", PODS[0], "-c", "app"], options].concat()).finish();
    assert_eq!((seen.status.code(), seen.lost(), seen.gaps().len()), (Some(0), 0, 0), "{}", seen.said);
    for event in seen.events() {
        assert_eq!([&event["namespace"], &event["pod"], &event["container"]], ["shop", PODS[0], "app"], "{event}");
    }
    seen
}
