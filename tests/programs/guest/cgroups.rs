//! Mounts cgroups, in one way after the other.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::kernels::Mode;
use tests::wait_for;

const ROOT: &str = "/sys/fs/cgroup";
/// Controllers of cgroup v1 that are mounted, those that the kernel has.
const CONTROLLERS: [&str; 6] = ["cpu", "devices", "freezer", "memory", "perf_event", "pids"];

/// Mounts them so. To be called in the order of [`Mode::ALL`].
pub(super) fn mount_as(mode: Mode) {
    match mode {
        Mode::V1 => {
            mount_one("tmpfs", Path::new(ROOT), None);
            for controller in CONTROLLERS {
                let point = Path::new(ROOT).join(controller);
                fs::create_dir(&point).unwrap();
                let none: Option<&str> = None;
                if mount(none, &point, Some("cgroup"), MsFlags::empty(), Some(controller)).is_err() {
                    fs::remove_dir(&point).unwrap();
                }
            }
        }
        Mode::Hybrid => {
            let point = Path::new(ROOT).join("unified");
            fs::create_dir(&point).unwrap();
            mount_one("cgroup2", &point, None);
        }
        Mode::V2 => {
            clear();
            for (_, point) in mounted() {
                wait_for("cgroups to be unmounted", || umount(&point).is_ok());
            }
            umount(ROOT).unwrap();
            mount_one("cgroup2", Path::new(ROOT), None);
        }
    }
}

/// Has a group of net_cls mark packets: from then on, up to 5.14, no new socket has a cgroup. Returns whether this kernel
/// can; there is no way back.
pub(super) fn use_net_cls() -> bool {
    let (point, none) = (Path::new("/run/net_cls"), None::<&str>);
    fs::create_dir_all(point).unwrap();
    let is_there = mount(none, point, Some("cgroup"), MsFlags::empty(), Some("net_cls")).is_ok();
    if is_there {
        let group = point.join("marked");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("net_cls.classid"), "1").unwrap();
    }
    is_there
}

fn mount_one(kind: &str, point: &Path, options: Option<&str>) {
    mount(Some(kind), point, Some(kind), MsFlags::empty(), options).unwrap();
}

/// File system and mount point of every hierarchy that is mounted.
pub(super) fn mounted() -> Vec<(String, PathBuf)> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let of_cgroups = mounts.filter(|words| matches!(words[2], "cgroup" | "cgroup2"));
    of_cgroups.map(|words| (words[2].to_owned(), PathBuf::from(words[1]))).collect()
}

/// Ends every container, and removes its cgroups: whoever made them may have failed.
pub(super) fn clear() {
    mounted().iter().for_each(|(_, point)| remove_children(point));
}

fn remove_children(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            remove_children(&entry.path());
            wait_for("a container to end", || {
                let pids = fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
                let pids = pids.lines().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
                pids.for_each(|pid| _ = kill(pid, Signal::SIGKILL));
                fs::remove_dir(entry.path()).is_ok()
            });
        }
    }
}
