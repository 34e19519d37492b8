//! The cgroup hierarchy that is followed: where it is mounted, and which part of it is this node's.
//!
//! It is the unified one wherever containers are in it: on hybrid hosts runtimes make their directories there too. On
//! hosts of cgroup v1 alone it is that of a controller in which every container has a directory.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use libbpf_rs::btf::{Btf, types};

use super::path::identify;
use super::selection::is_within;
use crate::error::AgentError;

/// What a node's pods lie below: `kubepods`, `kubepods.slice`, `kubelet-kubepods.slice`.
const KUBEPODS: &str = "kubepods";

/// Controllers of cgroup v1 in whose hierarchies runtimes make a directory for each container, the likeliest first.
const CONTROLLERS: [&str; 5] = ["pids", "memory", "cpu", "devices", "freezer"];

/// How long a runtime takes at most to make a container's directories in all hierarchies (seen: 10 ms).
const MAKING: Duration = Duration::from_millis(100);

/// Where cgroups are found. All paths in it begin with a slash and are those of the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    mount: PathBuf,
    kind: Kind,
    /// What is below belongs to this node, and nothing else does.
    root: String,
    /// Whether all of the kernel's hierarchy is mounted.
    is_whole: bool,
}

/// Which of the kernel's hierarchies it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// That of cgroup v2.
    Unified,
    /// That of a controller of cgroup v1.
    Controller(&'static str),
}

/// How the kernel knows it: the constants of `bpf/include/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelIds {
    hierarchy: u32,
    controller: u32,
}

impl Default for KernelIds {
    /// Of the unified hierarchy: `HIERARCHY_UNIFIED`.
    fn default() -> Self {
        Self { hierarchy: 0, controller: u32::MAX }
    }
}

impl KernelIds {
    /// For every object that includes `filter.h`.
    pub(crate) fn constants(self) -> [(&'static str, u64); 2] {
        [("gadget_hierarchy", self.hierarchy.into()), ("gadget_controller", self.controller.into())]
    }
}

impl Kind {
    /// Its file that only the root of the hierarchy lacks, or only the root has; and whether the root has it.
    fn mark_of_root(self) -> (&'static str, bool) {
        match self {
            Self::Unified => ("cgroup.type", false),
            Self::Controller(_) => ("release_agent", true),
        }
    }

    /// The numbers and the path of a line of /proc/PID/cgroup, if it is of this hierarchy.
    fn parse(self, line: &str) -> Option<(u32, &str)> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_it = match self {
            Self::Unified => controllers.is_empty(),
            Self::Controller(name) => controllers.split(',').any(|controller| controller == name),
        };
        Some((number.parse().ok()?, path)).filter(|_| is_it)
    }

    /// What this process is told of itself: the hierarchy's number, and its path in it.
    fn of_this_process(self) -> Option<(u32, String)> {
        let told = fs::read_to_string("/proc/self/cgroup").ok()?;
        told.lines().find_map(|line| self.parse(line)).map(|(number, path)| (number, path.to_owned()))
    }
}

impl Hierarchy {
    /// The hierarchy of this process. If it runs in a pod, its node is what that pod lies in, since several nodes may
    /// share a kernel; else the node is the host.
    ///
    /// # Errors
    /// If no hierarchy is mounted that tells containers apart.
    pub(crate) fn find() -> Result<Self, AgentError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| AgentError::internal("read /proc/self/mountinfo", error))?;
        let at =
            |(kind, mount): (Kind, PathBuf)| Self { is_whole: is_whole(&mount, kind), mount, kind, root: "/".into() };
        let candidates: Vec<Self> = candidates(&mounts).into_iter().map(at).collect();
        // Others than the runtime mount a hierarchy, too: it is the first that has containers.
        let find = || candidates.iter().find(|candidate| candidate.has_containers());
        let mut chosen = find();
        if chosen.is_some_and(|chosen| chosen.kind != Kind::Unified) {
            // It may be a container in the making: runtimes come to the unified hierarchy last.
            std::thread::sleep(MAKING);
            chosen = find();
        }
        let chosen = chosen.or(candidates.first());
        let all = chosen.cloned().ok_or_else(|| {
            AgentError::Unsupported(
                "no cgroup hierarchy is mounted: neither cgroup2 nor a controller of cgroup v1; mount one, for example: \
                 mount -t cgroup2 none /sys/fs/cgroup"
                    .into(),
            )
        })?;
        // Where only a part is mounted (a node in a container with a cgroup namespace), nobody says where it lies.
        let own = if all.is_whole { all.own_cgroup() } else { None };
        let root = own.map_or_else(|| "/".to_owned(), |path| node_root(&path).to_owned());
        Ok(Self { root, ..all })
    }

    fn has_containers(&self) -> bool {
        self.any(&mut |cgroup| identify(cgroup.path).is_some())
    }

    /// How much memory this process's cgroup may have, in bytes; `None` if it does not say.
    pub(crate) fn own_memory_limit(&self) -> Option<u64> {
        let own = self.own_cgroup()?;
        let file = self.mount.join(own.trim_start_matches('/')).join("memory.max");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// How the kernel knows it.
    ///
    /// # Errors
    /// If it does not say.
    pub(crate) fn kernel_ids(&self) -> Result<KernelIds, AgentError> {
        let Kind::Controller(name) = self.kind else {
            return Ok(KernelIds::default());
        };
        let unknown =
            || AgentError::Unsupported(format!("the kernel does not say which its cgroup controller {name} is"));
        let (hierarchy, _) = self.kind.of_this_process().ok_or_else(unknown)?;
        let btf = Btf::from_vmlinux().map_err(|error| AgentError::internal("read the kernel's BTF", error))?;
        let ids: types::Enum<'_> = btf.type_by_name("cgroup_subsys_id").ok_or_else(unknown)?;
        let wanted = format!("{name}_cgrp_id");
        let id = ids.iter().find(|id| id.name.is_some_and(|name| name == wanted.as_str())).ok_or_else(unknown)?;
        Ok(KernelIds { hierarchy, controller: u32::try_from(id.value).map_err(|_| unknown())? })
    }

    /// Where it is mounted.
    pub(crate) fn mount(&self) -> &Path {
        &self.mount
    }

    /// Which of the kernel's hierarchies it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
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
        self.any(&mut |cgroup| {
            visit(cgroup);
            false
        });
    }

    /// Visits them so until one is what is looked for. Returns whether one is.
    fn any(&self, is_it: &mut impl FnMut(&Found<'_>) -> bool) -> bool {
        let root = self.root.trim_end_matches('/');
        let mut open = vec![(Place::new(self.mount.join(root.trim_start_matches('/'))), root.to_owned(), None)];
        while let Some((place, path, parent)) = open.pop() {
            let directory = &place.directory;
            // Directories come and go while this runs.
            let Ok(metadata) = fs::symlink_metadata(directory) else { continue };
            let id = metadata.ino();
            if is_it(&Found { id, parent, path: if path.is_empty() { "/" } else { &path }, directory }) {
                return true;
            }
            let children = children(directory);
            let here = if children.is_empty() { place } else { place.shortened() };
            for name in children {
                // Whose it is has been said by then.
                let path = if path.len() < LONGEST_PATH { format!("{path}/{name}") } else { path.clone() };
                open.push((here.below(&name), path, Some(id)));
            }
        }
        false
    }

    /// The cgroup of this process. In a cgroup namespace of its own it can only be found by looking.
    fn own_cgroup(&self) -> Option<String> {
        let (_, told) = self.kind.of_this_process()?;
        let mut found = holds_this_process(&self.mount.join(told.trim_start_matches('/'))).then_some(told);
        if found.is_none() {
            self.any(&mut |cgroup| {
                found = holds_this_process(cgroup.directory).then(|| cgroup.path.to_owned());
                found.is_some()
            });
        }
        found
    }
}

/// A name that is too long to have many behind it: the kernel takes 4095 bytes.
const LONG: usize = 3072;
/// Bytes of a path that are remembered; those that the kernel tells are not longer either.
const LONGEST_PATH: usize = 1024;

/// A directory under a name that the kernel takes, however deep it lies.
#[derive(Clone)]
struct Place {
    directory: PathBuf,
    /// What the name begins at, if that is not the root.
    anchor: Option<Rc<File>>,
}

impl Place {
    fn new(directory: PathBuf) -> Self {
        Self { directory, anchor: None }
    }

    fn below(&self, name: &str) -> Self {
        Self { directory: self.directory.join(name), anchor: self.anchor.clone() }
    }

    /// The same under a short name, if its own is a long one.
    fn shortened(self) -> Self {
        if self.directory.as_os_str().len() < LONG {
            return self;
        }
        let Ok(here) = File::open(&self.directory) else { return self };
        Self { directory: format!("/proc/self/fd/{}", here.as_raw_fd()).into(), anchor: Some(Rc::new(here)) }
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

/// Whether the root of the hierarchy is what is mounted here.
fn is_whole(mount: &Path, kind: Kind) -> bool {
    let (mark, is_the_roots) = kind.mark_of_root();
    mount.join("cgroup.procs").exists() && mount.join(mark).exists() == is_the_roots
}

/// The hierarchies that may be followed, and their mount points, of the lines of mountinfo; the likeliest first.
fn candidates(mounts: &str) -> Vec<(Kind, PathBuf)> {
    let all: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
    let of = |kind: Kind| {
        let mut points = all.iter().filter(move |mount| mount.is(kind)).map(|mount| PathBuf::from(mount.point));
        let first = points.next()?;
        let whole = std::iter::once(first.clone()).chain(points).find(|point| is_whole(point, kind));
        Some((kind, whole.unwrap_or(first)))
    };
    std::iter::once(Kind::Unified).chain(CONTROLLERS.map(Kind::Controller)).filter_map(of).collect()
}

/// What a line of mountinfo says.
struct Mount<'a> {
    point: &'a str,
    file_system: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        Some(Self {
            point: mount.split(' ').nth(4)?,
            file_system: system.next()?,
            options: system.nth(1).unwrap_or(""),
        })
    }

    fn is(&self, kind: Kind) -> bool {
        match kind {
            Kind::Unified => self.file_system == "cgroup2",
            Kind::Controller(name) => {
                self.file_system == "cgroup" && self.options.split(',').any(|option| option == name)
            }
        }
    }
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
    fn the_unified_hierarchy_is_followed_where_there_is_one() {
        let line = |point: &str, kind: &str, options: &str| {
            format!("36 25 0:30 / /nowhere/{point} rw,relatime shared:9 - {kind} cgroup rw,{options}\n")
        };
        let v1 = [line("cpu", "cgroup", "cpu,cpuacct"), line("systemd", "cgroup", "xattr,name=systemd")].concat();
        let hybrid = [v1.as_str(), &line("unified", "cgroup2", "nsdelegate")].concat();
        let first = |mounts: &str| candidates(mounts).into_iter().next();
        assert_eq!(first(&hybrid), Some((Kind::Unified, "/nowhere/unified".into())));
        assert_eq!(candidates(&hybrid)[1], (Kind::Controller("cpu"), "/nowhere/cpu".into()));
        assert_eq!(first(&v1), Some((Kind::Controller("cpu"), "/nowhere/cpu".into())));
        let more = [v1.as_str(), &line("pids", "cgroup", "pids")].concat();
        assert_eq!(first(&more), Some((Kind::Controller("pids"), "/nowhere/pids".into())));
        assert_eq!(candidates(&line("systemd", "cgroup", "xattr,name=systemd")), []);
        assert_eq!(candidates("no mount"), []);
    }

    #[test]
    fn a_process_is_told_its_path_in_each_hierarchy() {
        let pids = Kind::Controller("pids");
        assert_eq!(pids.parse("4:pids:/kubepods/x"), Some((4, "/kubepods/x")));
        assert_eq!(Kind::Controller("cpu").parse("3:cpu,cpuacct:/a:b"), Some((3, "/a:b")));
        assert_eq!(Kind::Unified.parse("0::/x"), Some((0, "/x")));
        assert_eq!((pids.parse("0::/x"), Kind::Unified.parse("4:pids:/x")), (None, None));
        assert_eq!(pids.parse("1:name=systemd:/"), None);
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
        let of =
            |root: &str| Hierarchy { mount: mount.clone(), kind: Kind::Unified, root: root.into(), is_whole: true };
        assert_eq!(of("/").resolve("/a/b/"), Some("/a/b".into()));
        assert_eq!(of("/").resolve(&mount.join("a").to_string_lossy()), Some("/a".into()));
        assert_eq!(of("/").resolve("/a/../a"), None);
        assert_eq!(of("/").resolve("/c"), None);
        assert_eq!((of("/a").resolve("/a/b"), of("/a/b").resolve("/a")), (Some("/a/b".into()), None));
        fs::remove_dir_all(&mount).expect("gone");
    }
}
