//! The unified cgroup hierarchy: where it is mounted, and which part of it is this node's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::selection::is_within;
use crate::error::AgentError;

/// What a node's pods lie below: `kubepods`, `kubepods.slice`, `kubelet-kubepods.slice`.
const KUBEPODS: &str = "kubepods";

/// Where cgroups are found. All paths in it begin with a slash and are those of the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    mount: PathBuf,
    /// What is below belongs to this node, and nothing else does.
    root: String,
    /// Whether all of the kernel's hierarchy is mounted.
    is_whole: bool,
}

impl Hierarchy {
    /// The hierarchy of this process. If it runs in a pod, its node is what that pod lies in, since several nodes may
    /// share a kernel; else the node is the host.
    ///
    /// # Errors
    /// If the unified hierarchy is mounted nowhere.
    pub(crate) fn find() -> Result<Self, AgentError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| AgentError::internal("read /proc/self/mountinfo", error))?;
        let mounts: Vec<PathBuf> = mounts.lines().filter_map(cgroup2_mount).collect();
        let mount = mounts.iter().find(|mount| is_whole(mount)).or(mounts.first()).cloned().ok_or_else(|| {
            AgentError::Unsupported(
                "the unified cgroup hierarchy (cgroup2) is not mounted; mount it, or boot with \
                 systemd.unified_cgroup_hierarchy=1"
                    .into(),
            )
        })?;
        let all = Self { is_whole: is_whole(&mount), mount, root: "/".into() };
        // Where only a part is mounted (a node in a container with a cgroup namespace), nobody says where it lies.
        let own = if all.is_whole { all.own_cgroup() } else { None };
        let root = own.map_or_else(|| "/".to_owned(), |path| node_root(&path).to_owned());
        Ok(Self { root, ..all })
    }

    /// The node's part. `/` is the whole kernel's.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Whether no other node shares this kernel, so that what is outside of containers is this node's too.
    pub(crate) fn is_whole_kernel(&self) -> bool {
        self.is_whole && self.root == "/"
    }

    /// Whether a cgroup is this node's.
    pub(crate) fn contains(&self, path: &str) -> bool {
        is_within(path, &self.root)
    }

    /// The path in the hierarchy of a directory that is named by it, or by its path through the mount point; `None` if
    /// there is no such directory in the node's part.
    pub(crate) fn resolve(&self, path: &str) -> Option<String> {
        let mount = self.mount.to_string_lossy();
        let relative = if is_within(path, &mount) { &path[mount.trim_end_matches('/').len()..] } else { path };
        let relative = relative.trim_matches('/');
        let path = format!("/{relative}");
        let stays_inside = !relative.split('/').any(|part| part == "..");
        (stays_inside && self.contains(&path) && self.mount.join(relative).is_dir()).then_some(path)
    }

    /// Visits the node's cgroups. Each is visited before its children are listed: those that are made after the visit
    /// inherit from it, and those made before are listed.
    pub(crate) fn walk(&self, visit: &mut impl FnMut(&Found<'_>)) {
        let root = self.root.trim_end_matches('/');
        let mut open = vec![(self.mount.join(root.trim_start_matches('/')), root.to_owned(), None)];
        while let Some((directory, path, parent)) = open.pop() {
            // Directories come and go while this runs.
            let Ok(metadata) = fs::symlink_metadata(&directory) else { continue };
            let id = metadata.ino();
            visit(&Found { id, parent, path: if path.is_empty() { "/" } else { &path }, directory: &directory });
            for name in children(&directory) {
                open.push((directory.join(&name), format!("{path}/{name}"), Some(id)));
            }
        }
    }

    /// The cgroup of this process. In a cgroup namespace of its own it can only be found by looking.
    fn own_cgroup(&self) -> Option<String> {
        let told = fs::read_to_string("/proc/self/cgroup").ok()?;
        let told = told.lines().find_map(|line| line.strip_prefix("0::"))?;
        let mut found = holds_this_process(&self.mount.join(told.trim_start_matches('/'))).then(|| told.to_owned());
        if found.is_none() {
            self.walk(&mut |cgroup| {
                if found.is_none() && holds_this_process(cgroup.directory) {
                    found = Some(cgroup.path.to_owned());
                }
            });
        }
        found
    }
}

/// A cgroup that a walk meets.
pub(crate) struct Found<'a> {
    pub(crate) id: u64,
    pub(crate) parent: Option<u64>,
    /// In the hierarchy.
    pub(crate) path: &'a str,
    pub(crate) directory: &'a Path,
}

impl Found<'_> {
    pub(crate) fn has_children(&self) -> bool {
        !children(self.directory).is_empty()
    }
}

fn children(directory: &Path) -> Vec<String> {
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.filter(is_directory).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn holds_this_process(directory: &Path) -> bool {
    let own = std::process::id().to_string();
    fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(|pids| pids.lines().any(|pid| pid == own))
}

/// Only the hierarchy's root has no type.
fn is_whole(mount: &Path) -> bool {
    mount.join("cgroup.procs").exists() && !mount.join("cgroup.type").exists()
}

/// The mount point, if this line of mountinfo is of a cgroup2 file system.
fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let point = mount.split(' ').nth(4)?;
    kind.starts_with("cgroup2 ").then(|| PathBuf::from(point))
}

/// The part of the hierarchy that belongs to the node whose pod has this cgroup: what is above the pods.
fn node_root(path: &str) -> &str {
    let mut end = 0;
    for component in path.split('/') {
        if component.contains(KUBEPODS) {
            let root = path[..end].trim_end_matches('/');
            return if root.is_empty() { "/" } else { root };
        }
        end += component.len() + 1;
    }
    "/"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_cgroup2_are_found() {
        let line = |kind: &str| format!("36 25 0:30 / /sys/fs/cgroup/unified rw,relatime shared:9 - {kind} x rw");
        assert_eq!(cgroup2_mount(&line("cgroup2")), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_mount(&line("cgroup")), None);
        assert_eq!(cgroup2_mount(""), None);
    }

    #[test]
    fn a_node_is_what_its_pods_lie_in() {
        for (path, root) in [
            ("/kubepods/burstable/podX/c", "/"),
            ("/kubepods.slice/kubepods-podX.slice/c", "/"),
            ("/cluster/node-a/kubepods/podX/c", "/cluster/node-a"),
            (
                "/docker/id/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podX.slice/c",
                "/docker/id/kubelet.slice",
            ),
            ("/system.slice/ssh.service", "/"),
            ("/", "/"),
        ] {
            assert_eq!(node_root(path), root, "{path}");
        }
    }

    #[test]
    fn only_directories_of_the_node_are_resolved() {
        let mount = std::env::temp_dir().join(format!("hierarchy-{}", std::process::id()));
        fs::create_dir_all(mount.join("a/b")).expect("a folder");
        let of = |root: &str| Hierarchy { mount: mount.clone(), root: root.into(), is_whole: true };
        assert_eq!(of("/").resolve("/a/b/"), Some("/a/b".into()));
        assert_eq!(of("/").resolve(&mount.join("a").to_string_lossy()), Some("/a".into()));
        assert_eq!(of("/").resolve("/a/../a"), None);
        assert_eq!(of("/").resolve("/c"), None);
        assert_eq!((of("/a").resolve("/a/b"), of("/a/b").resolve("/a")), (Some("/a/b".into()), None));
        fs::remove_dir_all(&mount).expect("gone");
    }
}
