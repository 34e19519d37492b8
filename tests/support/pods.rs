//! Pods of `tests/support/pods`: real containers, in the containerd that `tests/support/run` starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::scenarios::Containers;

/// Where the containers' /tmp is on the host.
pub fn shared_folder() -> PathBuf {
    let path = PathBuf::from("/run").join(pods_name()).join("rootfs/tmp");
    assert!(path.is_dir(), "no containerd for the tests: run them with make test");
    path
}

fn pods_name() -> String {
    std::env::var("PODS_NAME").unwrap_or_else(|_| "kubectl-gadget-test".into())
}

/// Runs `tests/support/pods`.
pub fn pods(args: &[&str]) -> String {
    pods_with(None, args)
}

/// The same with a setting of its environment.
fn pods_with(setting: Option<(&str, &Path)>, args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/pods");
    let mut command = Command::new(script);
    command.envs(setting);
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "pods {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A pod of this test, removed with it.
pub struct Pod {
    /// NAMESPACE/POD
    pub full_name: String,
}

impl Pod {
    /// Nothing is made before the first container is.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { full_name: format!("{namespace}/{name}") }
    }

    /// Starts a container and returns its cgroup.
    pub fn run(&self, container: &str, command: &[&str]) -> String {
        pods(&[&["run", &self.full_name, container], command].concat())
    }

    /// Starts a container with a root file system of its own.
    pub fn run_from(&self, root: &Path, container: &str, command: &[&str]) {
        pods_with(Some(("PODS_ROOT", root)), &[&["run", &self.full_name, container], command].concat());
    }

    /// Starts a container in the pod's own network, in which there is only loopback.
    pub fn run_alone(&self, container: &str, command: &[&str]) {
        pods_with(Some(("PODS_NETWORK", "own".as_ref())), &[&["run", &self.full_name, container], command].concat());
    }

    /// Runs a container to its end, without a sandbox, and removes it.
    pub fn run_once(&self, container: &str, command: &[&str]) {
        pods(&[&["once", &self.full_name, container], command].concat());
    }

    /// Runs a command in a container.
    pub fn exec(&self, container: &str, command: &[&str]) -> String {
        pods(&[&["exec", &self.full_name, container], command].concat())
    }

    /// Waits until a container has ended.
    pub fn wait(&self, container: &str) {
        pods(&["wait", &self.full_name, container]);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        pods(&["delete", &self.full_name]);
    }
}

/// Where the containers' bundles are.
pub fn bundles() -> String {
    let of_containerd = || format!("/run/{}/state/io.containerd.runtime.v2.task/*", pods_name());
    std::env::var("GADGET_BUNDLES").unwrap_or_else(|_| of_containerd())
}

/// Pods for a scenario. The names are the scenario's, so there is one at a time.
pub struct RealPods {
    pods: BTreeMap<String, Pod>,
    _turn: MutexGuard<'static, ()>,
}

impl RealPods {
    /// Waits until nobody else has any.
    pub fn in_turn() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        Self { pods: BTreeMap::new(), _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    fn pod(&mut self, name: &str) -> &Pod {
        self.pods.entry(name.to_owned()).or_insert_with(|| Pod { full_name: name.to_owned() })
    }
}

impl Containers for RealPods {
    fn start(&mut self, pod: &str, container: &str, command: &[&str]) {
        self.pod(pod).run(container, command);
    }

    fn start_alone(&mut self, pod: &str, container: &str, command: &[&str]) {
        self.pod(pod).run_alone(container, command);
    }

    fn wait(&mut self, pod: &str, container: &str) {
        self.pods[pod].wait(container);
    }

    fn shared_folder(&self) -> PathBuf {
        shared_folder()
    }
}
