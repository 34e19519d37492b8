//! The cluster of two nodes that `tests/support/cluster/run` starts, through its own kubectl.
//!
//! Agents are deployed by the first test that needs them, and stay for the others.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::{Client, dist, wait_for};

/// Its nodes.
pub const NODES: [&str; 2] = ["node-a", "node-b"];

/// Where a shell finds kubectl with its plugin, and kubectl the cluster.
fn environment() -> &'static [(&'static str, String); 2] {
    static ENVIRONMENT: OnceLock<[(&str, String); 2]> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        dist("kubectl-gadget");
        let print = r#"eval "$("$0" env)" && printf '%s\n%s' "$KUBECONFIG" "$PATH""#;
        let output = Command::new("bash").args(["-c", print]).arg(script_file()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let found = text.split_once('\n').filter(|(kubeconfig, _)| Path::new(kubeconfig).is_file());
        let (kubeconfig, path) = found.expect("no cluster for the tests: run them with make test-cluster");
        [("KUBECONFIG", kubeconfig.to_owned()), ("PATH", path.to_owned())]
    })
}

fn script_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("support/cluster/cluster")
}

/// A command of a user of the cluster.
pub fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).envs(environment().iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    command
}

/// A command of `kubectl gadget`.
pub fn gadget_command(args: &[&str]) -> Command {
    command("kubectl", &[&["gadget"], args].concat())
}

/// Runs `kubectl gadget` to its end.
pub fn gadget(args: &[&str]) -> Output {
    gadget_command(args).output().unwrap()
}

/// Starts a gadget and waits until it watches so many nodes.
pub fn start(args: &[&str], nodes: usize) -> Client {
    let mut client = Client::spawn(gadget_command(&[args, &["-o", "json"]].concat()));
    client.wait_for_nodes(nodes);
    client
}

/// Runs kubectl, which must succeed, and returns what it prints.
pub fn kubectl(args: &[&str]) -> String {
    must_succeed(command("kubectl", args), args, "")
}

/// Runs `tests/support/cluster/cluster`, which must succeed.
pub fn script(args: &[&str]) -> String {
    must_succeed(command(script_file().to_str().unwrap(), args), args, "")
}

fn must_succeed(mut command: Command, args: &[&str], input: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What kubectl gets, as JSON.
pub fn get(args: &[&str]) -> Value {
    serde_json::from_str(&kubectl(&[&["get", "-o", "json"], args].concat())).unwrap()
}

/// Whether there is such an object.
pub fn exists(args: &[&str]) -> bool {
    command("kubectl", &[&["get"], args].concat()).output().unwrap().status.success()
}

/// A namespace of this test, removed with it.
pub struct Namespace {
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Makes one in which pods can be made.
    pub fn new(purpose: &str) -> Self {
        let namespace = Self { name: format!("{purpose}-{}", std::process::id()) };
        kubectl(&["create", "namespace", &namespace.name]);
        wait_for("the service account", || exists(&["serviceaccount", "default", "-n", &namespace.name]));
        namespace
    }

    /// Makes objects.
    pub fn create(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let args = ["create", "--validate=false", "-n", &self.name, "-f", "-"];
        must_succeed(command("kubectl", &args), &args, &list.to_string());
    }

    /// Adds an ephemeral container to a pod, as `kubectl debug` does: in the form that Kubernetes 1.20 takes.
    pub fn debug(&self, pod: &str, name: &str, command: &[&str]) {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/ephemeralcontainers", self.name);
        let container = json!({
            "name": name, "image": "busybox:1", "imagePullPolicy": "Never", "command": command,
            "terminationMessagePolicy": "File",
        });
        let object = json!({
            "apiVersion": "v1", "kind": "EphemeralContainers", "metadata": {"name": pod},
            "ephemeralContainers": [container],
        });
        let args = ["replace", "--raw", &path, "-f", "-"];
        must_succeed(self::command("kubectl", &args), &args, &object.to_string());
    }

    /// Makes objects whose pods run on, waits until they do, and returns all pods.
    pub fn run(&self, objects: &[Value]) -> Vec<Pod> {
        self.create(objects);
        for (kind, condition) in [("deployment", "Available"), ("pod", "Ready")] {
            if objects.iter().any(|object| object["kind"].as_str().unwrap().eq_ignore_ascii_case(kind)) {
                let condition = format!("--for=condition={condition}");
                kubectl(&["wait", kind, "--all", "-n", &self.name, &condition, "--timeout=60s"]);
            }
        }
        self.pods()
    }

    /// The pods that there are.
    pub fn pods(&self) -> Vec<Pod> {
        let list = get(&["pods", "-n", &self.name]);
        list["items"].as_array().unwrap().iter().map(Pod::read).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // While a test fails, too: this must not panic.
        let _ = command("kubectl", &["delete", "namespace", &self.name, "--wait=false"]).output();
    }
}

/// A pod, as kubectl shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The namespace's name.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node's name.
    pub node: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Names of its containers.
    pub containers: Vec<String>,
}

impl Pod {
    fn read(object: &Value) -> Self {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            node: text(&spec["nodeName"]),
            labels: serde_json::from_value(metadata["labels"].clone()).unwrap_or_default(),
            containers: spec["containers"].as_array().unwrap().iter().map(|one| text(&one["name"])).collect(),
        }
    }

    /// Its label `app`.
    pub fn app(&self) -> &str {
        &self.labels["app"]
    }

    /// Runs `true TOKEN` in one of its containers: an exec that can be told from all others.
    pub fn exec(&self, container: &str, token: &str) {
        kubectl(&["exec", &self.name, "-n", &self.namespace, "-c", container, "--", "/bin/true", token]);
    }
}

/// What containers of tests do that shall do nothing.
pub const SLEEP: &str = "exec sleep infinity";
/// What containers of tests do that shall do something all the time: numbered execs.
pub const TICK: &str = "i=0; while sleep 0.2; do /bin/true $i; i=$((i + 1)); done";

/// The specification of a pod with these containers, which run a script.
fn pod_spec(containers: &[&str], script: &str) -> Value {
    let containers: Vec<Value> = containers
        .iter()
        .map(|name| json!({"name": name, "image": "busybox:1", "command": ["sh", "-c", script]}))
        .collect();
    // The first process of a container does not hear of SIGTERM.
    json!({"containers": containers, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false})
}

/// A Deployment of a pod for each node, which run a script in a container `main`.
pub fn deployment(app: &str, script: &str) -> Value {
    let labels = json!({"app": app});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app},
        "spec": {
            "replicas": NODES.len(), "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(&["main"], script)},
        },
    })
}

/// A pod, labelled `app=NAME`, with these containers, which run a script.
pub fn pod(name: &str, node: &str, containers: &[&str], script: &str) -> Value {
    let mut spec = pod_spec(containers, script);
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

/// Whether the agents are known to be deployed and ready.
static AGENTS: RwLock<bool> = RwLock::new(false);

/// For tests that use the agents.
pub fn agents() -> RwLockReadGuard<'static, bool> {
    loop {
        let deployed = AGENTS.read().unwrap_or_else(PoisonError::into_inner);
        if *deployed {
            return deployed;
        }
        drop(deployed);
        let mut deployed = AGENTS.write().unwrap_or_else(PoisonError::into_inner);
        if !*deployed {
            deploy(&[]);
            *deployed = true;
        }
    }
}

/// For tests that deploy, remove or disturb the agents, or compare what is loaded: nobody else uses them meanwhile. What
/// they leave behind, the next test mends.
pub fn agents_alone() -> RwLockWriteGuard<'static, bool> {
    let mut deployed = AGENTS.write().unwrap_or_else(PoisonError::into_inner);
    *deployed = false;
    deployed
}

/// Deploys the agents, and returns what it says.
pub fn deploy(args: &[&str]) -> String {
    kubectl(&[&["gadget", "deploy"], args].concat())
}

/// Removes them, and returns what it says.
pub fn undeploy() -> String {
    kubectl(&["gadget", "undeploy"])
}

/// The cgroup that a node's pods lie in.
pub fn cgroup(node: &str) -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let unified = mounts.find(|words| words[2] == "cgroup2").expect("a unified hierarchy")[1].to_owned();
    Path::new(&unified).join(name()).join(node)
}

/// Where the host has a node's folders: `lib` is its /var/lib.
pub fn node_folder(node: &str) -> PathBuf {
    Path::new("/run").join(name()).join(node)
}

fn name() -> String {
    std::env::var("CLUSTER_NAME").unwrap_or_else(|_| "kubectl-gadget-cluster".into())
}

/// The process of a node's agent.
pub fn agent_process(node: &str) -> Pid {
    let field = format!("spec.nodeName={node}");
    let pods = get(&["pods", "-n", "gadget", "--field-selector", &field]);
    let running = pods["items"].as_array().unwrap().iter().find_map(|pod| {
        pod["status"]["containerStatuses"][0]["containerID"]
            .as_str()
            .map(|id| id.rsplit('/').next().unwrap().to_owned())
    });
    let container = running.expect("an agent");
    let processes = processes_below(&cgroup(node), &container);
    let is_daemon = |pid: &&i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"/gadget-agent\0daemon"))
    };
    Pid::from_raw(*processes.iter().find(is_daemon).expect("the agent's process"))
}

/// The processes of a container, whose cgroup is called by its id.
fn processes_below(folder: &Path, container: &str) -> Vec<i32> {
    if folder.to_string_lossy().contains(container) {
        let processes = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap();
        return processes.lines().map(|pid| pid.parse().unwrap()).collect();
    }
    let folders = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let folders = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.flat_map(|entry| processes_below(&entry.path(), container)).collect()
}

/// A node that nobody can reach, and that can reach nobody, until this is dropped.
pub struct CutOff(&'static str);

impl CutOff {
    /// Cuts it off.
    pub fn new(node: &'static str) -> Self {
        script(&["enter", node, "ip", "rule", "add", "blackhole", "pref", "1"]);
        Self(node)
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        let args = ["enter", self.0, "ip", "rule", "delete", "blackhole", "pref", "1"];
        let _ = command(script_file().to_str().unwrap(), &args).output();
    }
}
