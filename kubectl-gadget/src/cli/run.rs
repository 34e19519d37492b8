//! Flags of every run of a gadget: of whom it is, where, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueHint};
use gadgets::labels::LabelSelector;
use gadgets::spec::{Host, Limits, RING_BYTES_MAX, RING_BYTES_MIN, RunSpec, Selector};
use gadgets::tasks::{Choice, Comm, MixedTerms, TaskFilter, Term};
use gadgets::workload::Workload;

use super::block_on;
use super::cluster::ClusterArgs;
use super::deploy::temporarily;
use crate::cluster::Cluster;
use crate::exit::{End, Usage};
use crate::output::Output;
use crate::run::connection::Local;
use crate::run::targets::{Wanted, WantedPods};
use crate::run::{self, Place, Run};

#[derive(Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    tasks: TaskArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    deploy: DeployArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    local: LocalArgs,
}

#[derive(Args)]
#[command(next_help_heading = "Whose events")]
pub(super) struct SelectorArgs {
    /// Pods of this workload, as in deploy/web, sts/db, job/import, cronjob/backup or pod/web-0
    #[arg(value_name = "KIND/NAME")]
    workload: Vec<Workload>,
    /// Pods of this namespace, instead of the context's (repeat, or separate by commas)
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    namespace: Vec<String>,
    /// Pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Pods with these labels, as in app=web or 'app in (web,api),tier!=db'
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<LabelSelector>,
    /// The pod of this name (repeat, or separate by commas)
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pod: Vec<String>,
    /// Containers of this name (likewise)
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    container: Vec<String>,
    /// Everything on the nodes, in pods and outside; with =outside, only what is outside of pods and containers
    #[arg(
        long, value_name = "outside", num_args = 0..=1, require_equals = true, default_missing_value = "all",
        hide_possible_values = true,
        conflicts_with_all = ["workload", "namespace", "all_namespaces", "selector", "pod", "container"],
    )]
    host: Option<HostArg>,
    /// Only on the node of this name (likewise); without any of the above, everything on it, in pods and outside; without
    /// a name, on all nodes (with --local: --host)
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 0..=1, default_missing_value = "")]
    node: Vec<String>,
    /// Also pods' sandboxes, and a runtime's own steps on the way into a container
    #[arg(long)]
    machinery: bool,
}

/// The value of `--host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum HostArg {
    #[value(hide = true)]
    All,
    Outside,
}

impl From<HostArg> for Host {
    fn from(arg: HostArg) -> Self {
        match arg {
            HostArg::All => Self::All,
            HostArg::Outside => Self::Outside,
        }
    }
}

#[derive(Args)]
#[command(next_help_heading = "Which of their processes")]
pub(super) struct TaskArgs {
    /// Processes with this id, as the node has it (repeat, or separate by commas); with ! in front, all others
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<Term<u32>>,
    /// Processes of this user, by number (likewise)
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    uid: Vec<Term<u32>>,
    /// Threads of this name, which the kernel cuts to 15 bytes (likewise)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    comm: Vec<Term<Comm>>,
}

#[derive(Args)]
#[command(next_help_heading = "On this host, without a cluster")]
struct LocalArgs {
    /// On this host, without a cluster; there nobody knows labels and owners
    #[arg(long, conflicts_with_all = ["workload", "selector", "node", "all_namespaces"])]
    local: bool,
    /// A cgroup and all below it, by its path as in /proc/PID/cgroup; need not be a container's (repeat for more)
    #[arg(long, value_name = "PATH", requires = "local", conflicts_with = "host", value_hint = ValueHint::DirPath)]
    cgroup: Vec<String>,
    /// The agent to start; else the one beside this program, or in PATH
    #[arg(long, value_name = "FILE", env = "KUBECTL_GADGET_AGENT", value_hint = ValueHint::FilePath)]
    agent: Option<PathBuf>,
    /// Share the agent that serves this socket (gadget-agent daemon), instead of starting one
    #[arg(long, value_name = "PATH", requires = "local")]
    socket: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// End after this time, as in 30s or 5min
    #[arg(long, visible_alias = "duration", value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Size of the ring that events pass through on each node, as in 64KiB; else 4MiB, more on nodes of many processors
    #[arg(long, value_name = "SIZE", value_parser = ring_bytes)]
    buffer: Option<ByteSize>,
    /// Exit with code 3 if any event was lost, or may have been
    #[arg(long)]
    fail_on_loss: bool,
    /// Attach to a hook in this way only, as HOOK=VARIANT (see: kubectl gadget explain)
    #[arg(long, value_name = "HOOK=VARIANT", value_parser = variant)]
    variant: Vec<(String, String)>,
}

#[derive(Args)]
#[command(next_help_heading = "Agents")]
struct DeployArgs {
    /// Deploy the agents for this run, and remove them after it
    #[arg(long, conflicts_with = "local")]
    rm: bool,
    /// The agents' image, with --rm
    #[arg(long, value_name = "REF", requires = "rm")]
    image: Option<String>,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as in 30s or 5min"))?;
    if duration.is_zero() { Err("it must be longer than nothing".into()) } else { Ok(duration) }
}

pub(super) fn ring_bytes(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; write it as in 64KiB or 16MiB"))?;
    // The kernel wants a power of two: the next one gives what was asked for.
    let bytes = size.as_u64().checked_next_power_of_two().unwrap_or(u64::MAX);
    if (u64::from(RING_BYTES_MIN)..=u64::from(RING_BYTES_MAX)).contains(&bytes) {
        return Ok(ByteSize(bytes));
    }
    Err(format!("it must be from {} to {}", ByteSize(RING_BYTES_MIN.into()), ByteSize(RING_BYTES_MAX.into())))
}

fn variant(text: &str) -> Result<(String, String), String> {
    let (hook, variant) = text.split_once('=').ok_or("write it as HOOK=VARIANT")?;
    Ok((hook.to_owned(), variant.to_owned()))
}

impl RunArgs {
    /// Also what belongs to the machinery.
    pub(super) fn include_machinery(&mut self) {
        self.selector.machinery = true;
    }

    /// Does it: what the specification leaves open is of whom, with what limits, and where. The output is made when that is
    /// known; without a cluster it gets none.
    pub(super) fn run(
        self,
        spec: RunSpec,
        output: impl AsyncFnOnce(Option<(&Cluster, &Selector)>) -> anyhow::Result<Output>,
    ) -> anyhow::Result<End> {
        let Self { selector, tasks, limits, deploy, cluster, local } = self;
        let LimitArgs { timeout, buffer, fail_on_loss, variant } = limits;
        let spec = RunSpec {
            tasks: tasks.filter()?,
            variants: variant.into_iter().collect(),
            limits: Limits { ring_bytes: buffer.and_then(|size| u32::try_from(size.as_u64()).ok()) },
            ..spec
        };
        if local.local {
            let spec = RunSpec { selector: Selector { cgroups: local.cgroup, ..selector.selector() }, ..spec };
            let place = Place::Local(Local { agent: local.agent, socket: local.socket });
            return block_on(async {
                run::run(place, Run { spec, timeout, fail_on_loss, output: output(None).await? }).await
            });
        }
        block_on(async {
            let cluster = Cluster::connect(&cluster).await?;
            let (selector, wanted) = selector.in_cluster(&cluster.default_namespace);
            let output = output(Some((&cluster, &selector))).await?;
            let run = Run { spec: RunSpec { selector, ..spec }, timeout, fail_on_loss, output };
            let run = run::run(Place::Cluster(Box::new(cluster.clone()), wanted), run);
            if deploy.rm { temporarily(&cluster, deploy.image, run).await } else { run.await }
        })
    }
}

impl SelectorArgs {
    /// What the flags mean on a host.
    pub(super) fn selector(self) -> Selector {
        Selector {
            namespaces: self.namespace,
            pods: self.pod,
            labels: self.selector.unwrap_or_default(),
            workloads: self.workload,
            containers: self.container,
            host: self.host.map_or(Host::None, Host::from),
            machinery: self.machinery || self.host.is_some(),
            ..Selector::default()
        }
    }

    /// What they mean in a cluster, where a namespace counts if none is given; and which nodes that needs.
    pub(super) fn in_cluster(mut self, default_namespace: &str) -> (Selector, Wanted) {
        let nodes: Vec<String> = self.node.iter().filter(|name| !name.is_empty()).cloned().collect();
        let any_pod = self.workload.is_empty() && self.pod.is_empty() && self.selector.is_none();
        let names_nothing = any_pod && self.namespace.is_empty() && !self.all_namespaces && self.container.is_empty();
        if names_nothing && (self.host.is_some() || !self.node.is_empty()) {
            let host = self.host.unwrap_or(HostArg::All);
            return (Self { host: Some(host), ..self }.selector(), Wanted { nodes, pods: None });
        }
        if self.namespace.is_empty() && !self.all_namespaces {
            self.namespace = vec![default_namespace.to_owned()];
        }
        // All pods of all namespaces: every node has some.
        let everywhere = any_pod && self.all_namespaces;
        let selector = self.selector();
        let pods = WantedPods {
            namespaces: selector.namespaces.clone(),
            names: selector.pods.clone(),
            labels: selector.labels.clone(),
            workloads: selector.workloads.clone(),
        };
        (selector, Wanted { nodes, pods: (!everywhere).then_some(pods) })
    }
}

impl TaskArgs {
    pub(super) fn filter(self) -> Result<TaskFilter, Usage> {
        let mixed = |flag: &'static str| move |error: MixedTerms| Usage(format!("--{flag}: {error}"));
        Ok(TaskFilter {
            pids: Choice::of(self.pid).map_err(mixed("pid"))?,
            uids: Choice::of(self.uid).map_err(mixed("uid"))?,
            comms: Choice::of(self.comm).map_err(mixed("comm"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches as _};

    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("1min 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("5").is_err() && duration("0s").is_err() && duration("soon").is_err());
        assert_eq!(ring_bytes("64KiB"), Ok(ByteSize::kib(64)));
        assert_eq!(ring_bytes("100KiB"), Ok(ByteSize::kib(128)));
        assert!(ring_bytes("1KiB").is_err() && ring_bytes("1GiB").is_err() && ring_bytes("much").is_err());
    }

    fn in_cluster(words: &[&str]) -> (Selector, Wanted) {
        let command = SelectorArgs::augment_args(Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(words).expect("a command line");
        SelectorArgs::from_arg_matches(&matches).expect("arguments").in_cluster("home")
    }

    #[test]
    fn a_namespace_counts_unless_all_or_a_node_are_meant() {
        let (selector, wanted) = in_cluster(&["-l", "app=web"]);
        assert_eq!(selector.namespaces, ["home"]);
        assert_eq!(wanted.pods.expect("pods").labels.to_string(), "app=web");
        let (selector, wanted) = in_cluster(&["-A", "-l", "app=web"]);
        assert!(selector.namespaces.is_empty() && wanted.pods.is_some_and(|pods| pods.namespaces.is_empty()));
        let (selector, wanted) = in_cluster(&["deploy/web", "pod/db-0"]);
        assert_eq!((selector.namespaces.len(), selector.workloads.len()), (1, 2));
        assert_eq!(wanted.pods.expect("pods").workloads, selector.workloads);
        let (selector, wanted) = in_cluster(&["-A"]);
        assert!(wanted.pods.is_none() && selector.host == Host::None);
    }

    #[test]
    fn a_node_alone_means_all_of_it_and_else_narrows() {
        let (selector, wanted) = in_cluster(&["--node"]);
        assert!(selector.host == Host::All && wanted.pods.is_none() && wanted.nodes.is_empty());
        let (selector, wanted) = in_cluster(&["--host=outside", "--node", "a"]);
        assert!(selector.host == Host::Outside && wanted.pods.is_none() && wanted.nodes == ["a"]);
        let (selector, wanted) = in_cluster(&["--node", "a,b"]);
        assert!(selector.host == Host::All && wanted.nodes == ["a", "b"]);
        let (selector, wanted) = in_cluster(&["--node", "a", "-p", "web"]);
        assert!(selector.host == Host::None && wanted.nodes == ["a"] && wanted.pods.is_some());
        let (selector, wanted) = in_cluster(&["--node", "a", "-A"]);
        assert!(selector.host == Host::None && wanted.pods.is_none());
    }
}
