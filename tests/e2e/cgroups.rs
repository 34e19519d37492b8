//! Cgroups made by hand, without a runtime. They are a fake of what one makes, where a step must be held up.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::Process;

/// One of a test's own, and what is made below. Removed with it.
pub(crate) struct Cgroups {
    root: PathBuf,
    name: String,
}

impl Cgroups {
    pub(crate) fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let point = words.nth(1)?;
            (words.next()? == "cgroup2").then(|| PathBuf::from(point))
        });
        let name = format!("gadget-test-{}-{name}", std::process::id());
        Self { root: root.unwrap(), name }
    }

    /// A file of the same name, where files can be.
    pub(crate) fn file(&self) -> PathBuf {
        std::env::temp_dir().join(&self.name)
    }

    /// The path of one below, in the hierarchy.
    pub(crate) fn path(&self, below: &str) -> String {
        format!("/{}{below}", self.name)
    }

    /// Makes one, and returns its path.
    pub(crate) fn make(&self, below: &str) -> String {
        fs::create_dir_all(self.directory(below)).unwrap();
        self.path(below)
    }

    /// Where one is mounted.
    pub(crate) fn directory(&self, below: &str) -> PathBuf {
        self.root.join(&self.name).join(below.trim_start_matches('/'))
    }

    /// Runs a shell script in a cgroup.
    pub(crate) fn run(&self, below: &str, script: &str) {
        assert!(self.shell(below, script).status().unwrap().success());
    }

    /// Starts a program in a cgroup, by a command of the shell.
    pub(crate) fn start(&self, below: &str, command: &str) -> Process {
        Process(self.shell(below, &format!("exec {command}")).spawn().unwrap())
    }

    fn shell(&self, below: &str, script: &str) -> Command {
        let enter = format!("echo $$ > {}/cgroup.procs; {script}", self.directory(below).display());
        let mut command = Command::new("sh");
        command.args(["-c", &enter]);
        command
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // Whoever is still there would keep it.
        let _ = fs::write(self.directory("").join("cgroup.kill"), "1");
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.directory("").exists() && Instant::now() < deadline {
            // Its files go by themselves; some are too deep for a path.
            let mut find = Command::new("find");
            let _ =
                find.arg(self.directory("")).args(["-depth", "-type", "d", "-delete"]).stderr(Stdio::null()).status();
        }
    }
}
