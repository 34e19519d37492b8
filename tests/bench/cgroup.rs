//! Cgroups of the bench's own, in the unified hierarchy: for what is watched, for what is not, and for each tool, whose
//! whole tree of processes is counted and ended with it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;

/// What their names begin with.
const PREFIX: &str = "gadget-bench-";
/// How long ended processes may need to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cgroup, which goes with everything in it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: PathBuf,
    /// As the kernel calls it.
    path: String,
}

impl Cgroup {
    /// The one in which all others are. What an earlier bench left behind is removed.
    pub(crate) fn root() -> Result<Self> {
        let mount = mount()?;
        for entry in fs::read_dir(&mount)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(PREFIX).map(|pid| Path::new("/proc").join(pid));
            if owner.is_some_and(|owner| !owner.exists()) {
                remove(&entry.path());
            }
        }
        Self::make(&mount, "", &format!("{PREFIX}{}", std::process::id()))
    }

    /// A new one in this one.
    pub(crate) fn child(&self, name: &str) -> Result<Self> {
        Self::make(&self.directory, &self.path, name)
    }

    fn make(parent: &Path, path: &str, name: &str) -> Result<Self> {
        let directory = parent.join(name);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make cgroup {}", directory.display()))?;
        Ok(Self { directory, path: format!("{path}/{name}") })
    }

    /// As in /proc/PID/cgroup.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Has a command run in it.
    pub(crate) fn confine(&self, command: &mut Command) -> Result<()> {
        let file = self.directory.join("cgroup.procs");
        let procs = File::options().write(true).open(&file).with_context(|| file.display().to_string())?;
        // SAFETY: between fork and exec it makes one system call.
        unsafe { command.pre_exec(move || (&procs).write_all(b"0")) };
        Ok(())
    }

    /// Takes in a process that was started elsewhere.
    pub(crate) fn adopt(&self, pid: Pid) -> Result<()> {
        Ok(fs::write(self.directory.join("cgroup.procs"), pid.to_string())?)
    }

    /// Has it go even if the bench panics, when values are not dropped.
    pub(crate) fn remove_on_panic(&self) {
        let (directory, usual) = (self.directory.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            usual(panic);
            remove(&directory);
        }));
    }

    /// Its processes.
    fn pids(&self) -> Result<Vec<u32>> {
        let procs = fs::read_to_string(self.directory.join("cgroup.procs"))?;
        procs.lines().map(|pid| Ok(pid.parse()?)).collect()
    }

    /// Time that all processes which are or were in it have run, in user space and in the kernel.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(self.directory.join("cpu.stat"))?;
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(Duration::from_micros(usage.context("cpu.stat has no usage_usec")?.parse()?))
    }

    /// The sum of the largest resident sizes that its processes have had, in bytes.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        Ok(self.pids()?.iter().filter_map(|pid| tests::memory(pid, "VmHWM")).sum())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// Ends all processes in it and below, and removes it.
fn remove(directory: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while directory.exists() && Instant::now() < deadline {
        let _ = fs::write(directory.join("cgroup.kill"), "1");
        let inside = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        inside.filter(|path| path.is_dir()).for_each(|path| remove(&path));
        if fs::remove_dir(directory).is_err() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Where all of the unified hierarchy is mounted: beside others, or alone.
fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let of_cgroup2 = mounts.lines().filter_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        system.starts_with("cgroup2 ").then(|| PathBuf::from(mount.split(' ').nth(4).unwrap_or_default()))
    });
    let is_whole = |point: &PathBuf| point.join("cgroup.procs").exists() && !point.join("cgroup.type").exists();
    match of_cgroup2.into_iter().find(is_whole) {
        Some(point) => Ok(point),
        None => bail!("no cgroup2 is mounted; mount one, for example: mount -t cgroup2 none /sys/fs/cgroup/unified"),
    }
}
