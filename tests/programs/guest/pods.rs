//! Containers as a runtime makes them: a bundle, cgroups in every hierarchy, a process that is moved there and becomes the
//! container's program in a mount namespace of its own. What is fake: there is no runtime and no image.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tests::scenarios::Containers;

use super::{cgroups, init};

/// Those of one check; [`cgroups::clear`] ends them.
pub(super) struct GuestPods {
    /// Whether cgroups are named as systemd has them, or as kubelet does by itself.
    systemd: bool,
    /// Mount points of all hierarchies.
    hierarchies: Vec<PathBuf>,
    running: BTreeMap<(String, String), Child>,
}

impl GuestPods {
    /// Named as systemd does where there is nothing but the unified hierarchy.
    pub(super) fn new() -> Self {
        let mounted = cgroups::mounted();
        let systemd = mounted.iter().all(|(kind, _)| kind == "cgroup2");
        let hierarchies = mounted.into_iter().map(|(_, point)| point).collect();
        Self { systemd, hierarchies, running: BTreeMap::new() }
    }

    fn cgroup(&self, uid: &str, id: &str) -> String {
        if self.systemd {
            let uid = uid.replace('-', "_");
            let pod = format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice");
            format!("{pod}/cri-containerd-{id}.scope")
        } else {
            format!("kubepods/besteffort/pod{uid}/{id}")
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl GuestPods {
    /// Starts a container, by one of the two below.
    fn start_by(&mut self, how: &str, pod: &str, container: &str, command: &[&str]) {
        let (namespace, name) = pod.split_once('/').unwrap();
        let uid = format!("00000000-0000-4000-8000-{:012x}", hash(pod) >> 16);
        let id = format!("{:064x}", hash(&format!("{pod}/{container}/{}", std::process::id())));
        let bundle = PathBuf::from(std::env::var_os("GADGET_BUNDLES").unwrap()).join(&id);
        fs::create_dir_all(&bundle).unwrap();
        let config = json!({"annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-namespace": namespace,
            "io.kubernetes.cri.sandbox-name": name,
            "io.kubernetes.cri.sandbox-uid": uid,
            "io.kubernetes.cri.container-name": container,
        }});
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut process = Command::new("/proc/self/exe");
        process.arg0("guest").arg(how).args(command).stdin(OwnedFd::from(theirs));
        let process = process.spawn().unwrap();
        // As runtimes do: its own exec, which has not quite ended when spawn returns, is not to be the container's.
        ours.read_exact(&mut [0]).unwrap();
        let cgroup = self.cgroup(&uid, &id);
        for hierarchy in &self.hierarchies {
            let directory = hierarchy.join(&cgroup);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cgroup.procs"), process.id().to_string()).unwrap();
        }
        // It goes on when its input ends.
        drop(ours);
        self.running.insert((pod.to_owned(), container.to_owned()), process);
    }
}

impl Containers for GuestPods {
    fn start(&mut self, pod: &str, container: &str, command: &[&str]) {
        self.start_by("contain", pod, container, command);
    }

    fn start_alone(&mut self, pod: &str, container: &str, command: &[&str]) {
        self.start_by("contain-alone", pod, container, command);
    }

    fn wait(&mut self, pod: &str, container: &str) {
        let process = self.running.get_mut(&(pod.to_owned(), container.to_owned())).unwrap();
        let status = process.wait().unwrap();
        assert!(status.success(), "{pod}/{container}: {status}");
    }

    fn shared_folder(&self) -> PathBuf {
        "/tmp".into()
    }
}

/// The same in a network of its own.
pub(super) fn contain_alone(command: &[&str]) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    init::bring_up_loopback();
    contain(command);
}

/// Says that it is there, waits until it was moved, and becomes the container's program.
pub(super) fn contain(command: &[&str]) {
    let mut parent = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    parent.write_all(b"!").unwrap();
    let _ = parent.read_to_end(&mut Vec::new());
    drop(parent);
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let error = Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).exec();
    panic!("cannot execute {}: {error}", command[0]);
}
