//! Two pods of processes that wait while snapshots are taken of them.

use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{Containers, Scenario, provide_workload};
use crate::{Seen, wait_for};

/// Both, each in a network of its own, which are to be [ended](Families::end).
pub struct Families([Family; 2]);

/// The processes of a pod's container.
pub struct Family {
    pod: &'static str,
    /// What says that all of them wait, and that they may end.
    ready: PathBuf,
    go: PathBuf,
}

impl Families {
    /// Starts them, each with so many children, and waits until all of these wait.
    pub fn start(containers: &mut dyn Containers, members: usize) -> Self {
        let workload = provide_workload(containers);
        let families = ["web", "db"].map(|pod| {
            let [ready, go] = ["ready", "go"].map(|what| format!("family-{pod}.{what}"));
            let shared = |name: &str| containers.shared_folder().join(name);
            let family = Family { pod, ready: shared(&ready), go: shared(&go) };
            [&family.ready, &family.go].into_iter().for_each(|file| _ = fs::remove_file(file));
            mkfifo(&family.go, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
            let [ready, go] = [ready, go].map(|name| format!("/tmp/{name}"));
            let command = [&workload, "family", &members.to_string(), &ready, &go];
            containers.start_alone(&format!("shop/{pod}"), "app", &command);
            family
        });
        wait_for("both families", || families.iter().all(|family| family.ready.exists()));
        let is_busy = |family: &Family| family.processes().iter().any(|process| is_running(process));
        wait_for("both to rest", || !families.iter().any(is_busy));
        Self(families)
    }

    /// One of them, which has another beside it.
    pub fn first(&self) -> &Family {
        &self.0[0]
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &Family> {
        self.0.iter()
    }

    /// Has them end.
    pub fn end(self, containers: &mut dyn Containers) {
        // If nobody waits there it fails, instead of waiting for somebody.
        let open = |go: &PathBuf| OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(go);
        self.iter().for_each(|family| wait_for("who waits", || open(&family.go).is_ok()));
        self.iter().for_each(|family| containers.wait(&format!("shop/{}", family.pod), "app"));
    }
}

impl Family {
    /// The processes, as folders of /proc.
    pub fn processes(&self) -> Vec<PathBuf> {
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let all: Vec<_> = all.filter(|path| path.join("task").exists()).collect();
        // What the command line of each has that has not ended.
        let mark = Path::new("/tmp").join(self.ready.file_name().unwrap());
        let is_marked = |path: &&PathBuf| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|arg| arg == mark.as_os_str().as_bytes())
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

    /// A snapshot of it.
    pub fn take(&self, scenario: &Scenario, options: &[&str]) -> Seen {
        let seen = scenario.client(&[&["-n", "shop", "-p", self.pod, "-c", "app"], options].concat()).finish();
        assert_eq!((seen.status.code(), seen.lost(), seen.gaps().len()), (Some(0), 0, 0), "{}", seen.said);
        for event in seen.events() {
            assert_eq!([&event["namespace"], &event["pod"], &event["container"]], ["shop", self.pod, "app"], "{event}");
        }
        seen
    }
}

/// The descriptors of a process, as files of a folder of /proc: those of another thread, if the first has ended. Who has ended has none.
pub fn descriptors(process: &Path) -> Vec<PathBuf> {
    let inside = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of_thread = |thread: PathBuf| -> Vec<_> { inside(thread.join("fd")).collect() };
    inside(process.join("task")).map(of_thread).find(|open| !open.is_empty()).unwrap_or_default()
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
