//! A run of a gadget: its flags are those of every gadget, and its own from the catalogue.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches as _, ValueHint};
use gadgets::catalogue::{Gadget, ParameterKind};
use gadgets::labels::LabelSelector;
use gadgets::spec::{Limits, RING_BYTES_MAX, RING_BYTES_MIN, RunSpec, Selector};

use super::cluster::ClusterArgs;
use super::deploy::temporarily;
use super::{block_on, nearest};
use crate::cluster::Cluster;
use crate::exit::{End, Usage};
use crate::output::columns::{self, Columns};
use crate::output::{Format, Output};
use crate::run::connection::Local;
use crate::run::targets::{Wanted, WantedPods};
use crate::run::{self, Place, Run};

const PARAMETERS: &str = "Parameters of this gadget";

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    output: OutputArgs,
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
struct SelectorArgs {
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
    /// Only on the node of this name (likewise); without any of the above, everything on it, in pods and outside; without
    /// a name, on all nodes
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 0..=1, default_missing_value = "")]
    node: Vec<String>,
    /// Also pods' sandboxes, and a runtime's own steps on the way into a container
    #[arg(long)]
    machinery: bool,
}

#[derive(Args)]
#[command(next_help_heading = "On this host, without a cluster")]
struct LocalArgs {
    /// On this host, without a cluster; there nobody knows labels
    #[arg(long, conflicts_with_all = ["selector", "node", "all_namespaces"])]
    local: bool,
    /// Everything on this host, in containers and outside
    #[arg(long, requires = "local", conflicts_with_all = ["namespace", "pod", "container", "cgroup"])]
    host: bool,
    /// A cgroup and all below it, by its path as in /proc/PID/cgroup; need not be a container's (repeat for more)
    #[arg(long, value_name = "PATH", requires = "local", value_hint = ValueHint::DirPath)]
    cgroup: Vec<String>,
    /// The agent to start; else the one beside this program, or in PATH
    #[arg(long, value_name = "FILE", env = "KUBECTL_GADGET_AGENT", value_hint = ValueHint::FilePath)]
    agent: Option<PathBuf>,
    /// Share the agent that serves this socket (gadget-agent daemon), instead of starting one
    #[arg(long, value_name = "PATH", requires = "local")]
    socket: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// A table, or JSON: one object a line
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// Columns of the table: a list of names; or changes to the usual ones, as in +file,-pcomm
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    columns: Option<String>,
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// End after this time, as in 30s or 5min
    #[arg(long, value_name = "DURATION", value_parser = duration)]
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

fn ring_bytes(text: &str) -> Result<ByteSize, String> {
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

/// The sub-command of a gadget.
pub(super) fn command(gadget: &'static Gadget) -> Command {
    let command = RunArgs::augment_args(
        Command::new(gadget.name)
            .visible_aliases(gadget.aliases.iter().copied())
            .about(capitalised(gadget.summary))
            .long_about(format!("{}.\n\n{}", capitalised(gadget.summary), gadget.description)),
    );
    gadget.parameters.iter().fold(command, |command, parameter| {
        let arg = Arg::new(parameter.name).long(parameter.name).help_heading(PARAMETERS);
        command.arg(match parameter.kind {
            ParameterKind::Flag => arg.help(parameter.doc).action(ArgAction::SetTrue),
            ParameterKind::Number { min, max, default } => arg
                .help(format!("{} [{min} to {max}, default {default}]", parameter.doc))
                .value_name("NUMBER")
                .value_parser(move |text: &str| parameter.value(Some(text)).map(|_| text.to_owned())),
        })
    })
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

pub(super) fn run(gadget: &'static Gadget, matches: &ArgMatches) -> anyhow::Result<End> {
    let args = RunArgs::from_arg_matches(matches)?;
    let shown = match &args.output.columns {
        Some(list) => choose_columns(gadget, list)?,
        None => Columns::defaults(gadget),
    };
    let given = gadget.parameters.iter().filter_map(|parameter| {
        let value = match parameter.kind {
            ParameterKind::Flag => matches.get_flag(parameter.name).then(|| "true".to_owned()),
            ParameterKind::Number { .. } => matches.get_one::<String>(parameter.name).cloned(),
        };
        Some((parameter.name.to_owned(), value?))
    });
    let spec = RunSpec {
        gadget: gadget.name.to_owned(),
        parameters: given.collect(),
        variants: args.limits.variant.into_iter().collect(),
        limits: Limits { ring_bytes: args.limits.buffer.and_then(|size| u32::try_from(size.as_u64()).ok()) },
        ..RunSpec::default()
    };
    let mut run = Run {
        spec,
        timeout: args.limits.timeout,
        fail_on_loss: args.limits.fail_on_loss,
        output: Output::new(args.output.output, gadget.name, shown),
    };
    if args.local.local {
        let local = Local { agent: args.local.agent, socket: args.local.socket };
        run.spec.selector = Selector {
            host: args.local.host,
            cgroups: args.local.cgroup,
            machinery: args.selector.machinery || args.local.host,
            ..args.selector.selector()
        };
        return block_on(run::run(Place::Local(local), run));
    }
    let DeployArgs { rm, image } = args.deploy;
    block_on(async {
        let cluster = Cluster::connect(&args.cluster).await?;
        let (selector, wanted) = args.selector.in_cluster(&cluster.default_namespace);
        run.spec.selector = selector;
        let run = run::run(Place::Cluster(Box::new(cluster.clone()), wanted), run);
        if rm { temporarily(&cluster, image, run).await } else { run.await }
    })
}

impl SelectorArgs {
    /// What the flags mean on a host.
    fn selector(self) -> Selector {
        Selector {
            namespaces: self.namespace,
            pods: self.pod,
            labels: self.selector.unwrap_or_default(),
            containers: self.container,
            machinery: self.machinery,
            ..Selector::default()
        }
    }

    /// What they mean in a cluster, where a namespace counts if none is given; and which nodes that needs.
    fn in_cluster(mut self, default_namespace: &str) -> (Selector, Wanted) {
        let nodes: Vec<String> = self.node.iter().filter(|name| !name.is_empty()).cloned().collect();
        let any_pod = self.pod.is_empty() && self.selector.is_none();
        let names_nothing = any_pod && self.namespace.is_empty() && !self.all_namespaces && self.container.is_empty();
        if names_nothing && !self.node.is_empty() {
            return (Selector { host: true, machinery: true, ..Selector::default() }, Wanted { nodes, pods: None });
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
        };
        (selector, Wanted { nodes, pods: (!everywhere).then_some(pods) })
    }
}

fn choose_columns(gadget: &Gadget, list: &str) -> anyhow::Result<Columns> {
    let known = columns::names(gadget)?;
    Columns::parse(gadget, &known, list).map_err(|unknown| {
        let hint = nearest(&unknown, known.iter().map(String::as_str))
            .unwrap_or_else(|| format!("{} has: {}", gadget.name, known.join(", ")));
        Usage(format!("no column {unknown:?}; {hint}")).into()
    })
}

#[cfg(test)]
mod tests {
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
        let (selector, wanted) = in_cluster(&["-A"]);
        assert!(wanted.pods.is_none() && !selector.host);
    }

    #[test]
    fn a_node_alone_means_all_of_it_and_else_narrows() {
        let (selector, wanted) = in_cluster(&["--node"]);
        assert!(selector.host && wanted.pods.is_none() && wanted.nodes.is_empty());
        let (selector, wanted) = in_cluster(&["--node", "a,b"]);
        assert!(selector.host && wanted.nodes == ["a", "b"]);
        let (selector, wanted) = in_cluster(&["--node", "a", "-p", "web"]);
        assert!(!selector.host && wanted.nodes == ["a"] && wanted.pods.is_some());
        let (selector, wanted) = in_cluster(&["--node", "a", "-A"]);
        assert!(!selector.host && wanted.pods.is_none());
    }

    #[test]
    fn the_command_line_is_sound() {
        for gadget in gadgets::catalogue::CATALOGUE.0 {
            command(gadget).debug_assert();
        }
    }
}
