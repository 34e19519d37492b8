//! Recordings: what agents record for whoever asks, begun by one command and shown by another.

mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueHint};
use gadgets::catalogue::{Gadget, Parameter};
use gadgets::spec::{Limits, Past, RunSpec, Selector};
use gadgets::tasks::{Choice, Term};
use gadgets::wire::{Recorded, Recording, RecordingsRequest, is_recording_id};
use serde_json::json;

use super::cluster::ClusterArgs;
use super::run::{SelectorArgs, TaskArgs, duration, ring_bytes};
use super::{Format, block_on, print};
use crate::cluster::Cluster;
use crate::exit::{End, Usage};
use crate::notice::notice;
use crate::output::columns::Columns;
use crate::output::{self, Output};
use crate::run::connection::Local;
use crate::run::conversation::Request;
use crate::run::targets::Wanted;
use crate::run::{self, Place, Run};
use crate::status::{NodeStatus, ask_all, ask_local};

/// The command that begins one, and takes a gadget's parameters.
pub(super) const START: &str = "start";

// What can be done with recordings of a gadget. As documentation it would be the help of the gadget.
#[derive(Subcommand)]
pub(super) enum RecordingCommand {
    /// Record from now on, also when this command has ended, until it is stopped
    Start(Box<StartArgs>),
    /// Show what is recorded, and how much there is of each container
    List(ListArgs),
    /// Show what a recording has, while it goes on
    Show(ShowArgs),
    /// Write all that a recording has to a file, as JSON
    Dump(DumpArgs),
    /// End a recording, and forget it
    Stop(StopArgs),
}

// What is recorded of them.
#[derive(Args)]
#[command(next_help_heading = "Which of their calls")]
pub(super) struct CallArgs {
    /// System calls of this name (repeat, or separate by commas); with ! in front, all others
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    syscalls: Vec<Term<String>>,
}

impl CallArgs {
    pub(super) fn choice(self) -> Result<Choice<String>, Usage> {
        Choice::of(self.syscalls).map_err(|error| Usage(format!("--syscalls: {error}")))
    }
}

#[derive(Args)]
pub(super) struct StartArgs {
    /// What to call it: small letters, digits and dashes; else it gets a name
    #[arg(long, value_name = "ID", value_parser = id)]
    name: Option<String>,
    /// The memory for it on each node, which its containers share; 64MiB if nothing is said
    #[arg(long, visible_alias = "buffer", value_name = "SIZE", value_parser = ring_bytes)]
    budget: Option<ByteSize>,
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    tasks: TaskArgs,
    #[command(flatten)]
    calls: CallArgs,
    #[command(flatten)]
    agents: AgentsArgs,
    /// A cgroup and all below it, by its path as in /proc/PID/cgroup; need not be a container's (repeat for more)
    #[arg(
        long, value_name = "PATH", requires = "local", conflicts_with = "host", value_hint = ValueHint::DirPath,
        help_heading = "On this host, without a cluster",
    )]
    cgroup: Vec<String>,
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    agents: AgentsArgs,
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// The recording, or a pod that one has: ID, pod/NAME or NAMESPACE/NAME
    #[arg(value_name = "ID|pod/NAME")]
    what: String,
    /// The pod's namespace, instead of the context's
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Containers of this name (repeat, or separate by commas)
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    container: Vec<String>,
    /// Only what is no older, as in 30s or 5min
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only the last so many of each container
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    /// Go on with what is recorded from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// A table, or JSON: one object a line
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: output::Format,
    /// Columns of the table: a list of names; or changes to the usual ones, as in +file,-pcomm
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    columns: Option<String>,
    #[command(flatten)]
    agents: AgentsArgs,
}

#[derive(Args)]
pub(super) struct DumpArgs {
    /// The recording, or a pod that one has
    #[arg(value_name = "ID|pod/NAME")]
    what: String,
    /// The pod's namespace, instead of the context's
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// The file; it must not be there yet
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    #[command(flatten)]
    agents: AgentsArgs,
}

#[derive(Args)]
pub(super) struct StopArgs {
    /// The recording
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    agents: AgentsArgs,
}

// Where recordings are.
#[derive(Args)]
struct AgentsArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    local: LocalArgs,
}

// Those of a host without a cluster.
#[derive(Args)]
#[command(next_help_heading = "On this host, without a cluster")]
struct LocalArgs {
    /// On this host, without a cluster
    #[arg(long, requires = "socket")]
    local: bool,
    /// The agent that serves this socket: start one with gadget-agent daemon --socket PATH
    #[arg(long, value_name = "PATH", requires = "local", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,
    /// The program that speaks with it; else the one beside this program, or in PATH
    #[arg(long, value_name = "FILE", env = "KUBECTL_GADGET_AGENT", value_hint = ValueHint::FilePath)]
    agent: Option<PathBuf>,
}

/// Agents that stay when a command has ended.
enum Agents {
    Local(Local),
    Cluster(Box<Cluster>),
}

impl AgentsArgs {
    async fn connect(self) -> anyhow::Result<Agents> {
        let LocalArgs { local, socket, agent } = self.local;
        if !local {
            return Ok(Agents::Cluster(Box::new(Cluster::connect(&self.cluster).await?)));
        }
        Ok(Agents::Local(Local { agent, socket }))
    }
}

impl Agents {
    /// Asks all of them, or those of these nodes.
    async fn ask(&self, nodes: &[String], request: &RecordingsRequest) -> anyhow::Result<Vec<NodeStatus>> {
        let request = || Request::Recordings(request.clone());
        let answers = match self {
            Self::Local(local) => vec![ask_local(local, request()).await],
            Self::Cluster(cluster) => ask_all(cluster, nodes, request).await?,
        };
        if answers.is_empty() {
            bail!("no agent is there: kubectl gadget deploy");
        }
        Ok(answers)
    }

    /// Where a run finds those of these nodes.
    fn place(self, nodes: Vec<String>) -> Place {
        match self {
            Self::Local(local) => Place::Local(local),
            Self::Cluster(cluster) => Place::Cluster(cluster, Wanted { nodes, pods: None }),
        }
    }

    /// The namespace that counts if none is given.
    fn default_namespace(&self) -> Option<&str> {
        match self {
            Self::Local(_) => None,
            Self::Cluster(cluster) => Some(&cluster.default_namespace),
        }
    }
}

fn id(text: &str) -> Result<String, String> {
    if is_recording_id(text) { Ok(text.to_owned()) } else { Err("1 to 63 small letters, digits and dashes".into()) }
}

/// A name that is short, and hardly taken.
fn new_id() -> String {
    let letters = b"bcdfghjklmnpqrstvwxz";
    let mut number = RandomState::new().hash_one(SystemTime::now());
    let letter = |_| {
        let letter = letters[(number % letters.len() as u64) as usize];
        number /= letters.len() as u64;
        char::from(letter)
    };
    (0..5).map(letter).collect()
}

/// `parameters` are those of a recording that begins.
pub(super) fn run(
    gadget: &'static Gadget,
    command: RecordingCommand,
    parameters: BTreeMap<String, String>,
) -> anyhow::Result<End> {
    block_on(async {
        match command {
            RecordingCommand::Start(args) => args.run(gadget, parameters).await,
            RecordingCommand::List(args) => args.run().await,
            RecordingCommand::Show(args) => args.run(gadget).await,
            RecordingCommand::Dump(args) => args.run(gadget).await,
            RecordingCommand::Stop(args) => args.run().await,
        }
    })
}

impl StartArgs {
    async fn run(self, gadget: &Gadget, parameters: BTreeMap<String, String>) -> anyhow::Result<End> {
        let agents = self.agents.connect().await?;
        let (selector, nodes) = match agents.default_namespace() {
            Some(namespace) => {
                // Pods may come to any node later.
                let (selector, wanted) = self.selector.in_cluster(namespace);
                (selector, wanted.nodes)
            }
            None => {
                let selector = Selector { cgroups: self.cgroup, ..self.selector.selector() };
                if !selector.labels.is_empty() || !selector.workloads.is_empty() {
                    return Err(Usage("without a cluster nobody knows labels and owners".into()).into());
                }
                (selector, Vec::new())
            }
        };
        let run = RunSpec {
            gadget: gadget.name.to_owned(),
            selector,
            tasks: self.tasks.filter()?,
            calls: self.calls.choice()?,
            parameters,
            limits: Limits { ring_bytes: self.budget.and_then(|size| u32::try_from(size.as_u64()).ok()) },
            ..RunSpec::default()
        };
        let id = self.name.unwrap_or_else(new_id);
        let answers = agents.ask(&nodes, &RecordingsRequest::Start { id: id.clone(), run: Box::new(run) }).await?;
        let silent = silent(&answers);
        if silent.len() == answers.len() {
            bail!("nothing is recorded: {}", silent.join("; "));
        }
        print(&id);
        match silent.is_empty() {
            true => Ok(End::Done),
            false => bail!("recording {id} lacks {} of {} nodes: {}", silent.len(), answers.len(), silent.join("; ")),
        }
    }
}

impl ListArgs {
    async fn run(self) -> anyhow::Result<End> {
        let answers = self.agents.connect().await?.ask(&[], &RecordingsRequest::List).await?;
        let end = match self.output {
            Format::Json => {
                let all: Vec<_> =
                    recordings(&answers).map(|(node, one)| json!({"node": node, "recording": one})).collect();
                print(&serde_json::to_string_pretty(&all)?)
            }
            Format::Text => print(&table::of(&answers)),
        };
        all_answered(&answers).map(|()| end)
    }
}

impl ShowArgs {
    async fn run(self, gadget: &'static Gadget) -> anyhow::Result<End> {
        let past = Past {
            id: String::new(),
            since_ms: self.since.map(|since| u32::try_from(since.as_millis()).unwrap_or(u32::MAX)),
            last: self.last,
            follow: self.follow,
        };
        let output = |usual| {
            let columns = match &self.columns {
                Some(list) => super::gadget::choose_columns(gadget, usual, list)?,
                None => usual,
            };
            Ok(Output::new(self.output, gadget.name, columns, None))
        };
        let what = What { name: self.what, namespace: self.namespace, containers: self.container };
        what.show(gadget, self.agents.connect().await?, past, output).await
    }
}

impl DumpArgs {
    async fn run(self, gadget: &'static Gadget) -> anyhow::Result<End> {
        let agents = self.agents.connect().await?;
        let file = File::create_new(&self.output).with_context(|| format!("cannot make {}", self.output.display()))?;
        let output = |columns| {
            let mut output = Output::new(output::Format::Json, gadget.name, columns, None);
            output.write_to(file);
            Ok(output)
        };
        let what = What { name: self.what, namespace: self.namespace, containers: Vec::new() };
        what.show(gadget, agents, Past::default(), output).await
    }
}

impl StopArgs {
    async fn run(self) -> anyhow::Result<End> {
        let agents = self.agents.connect().await?;
        let answers = agents.ask(&[], &RecordingsRequest::List).await?;
        if !recordings(&answers).any(|(_, recording)| recording.id == self.id) {
            return Err(no_recording(&format!("{:?}", self.id), &answers));
        }
        let answers = agents.ask(&[], &RecordingsRequest::Stop { id: self.id }).await?;
        all_answered(&answers).map(|()| End::Done)
    }
}

/// What is to be shown: a recording, or what one has of a pod.
struct What {
    name: String,
    namespace: Option<String>,
    containers: Vec<String>,
}

impl What {
    /// The pod's namespace, if that counts, and its name; `None` if a recording is meant.
    fn pod(&self, default_namespace: Option<&str>) -> Option<(Option<String>, String)> {
        let given = self.namespace.clone().or_else(|| default_namespace.map(str::to_owned));
        match self.name.split_once('/') {
            Some(("pod" | "pods" | "po", pod)) => Some((given, pod.to_owned())),
            Some((namespace, pod)) => Some((Some(namespace.to_owned()), pod.to_owned())),
            None => None,
        }
    }

    /// `output` is made with the columns that there are.
    async fn show(
        self,
        gadget: &Gadget,
        agents: Agents,
        past: Past,
        output: impl FnOnce(Columns) -> anyhow::Result<Output>,
    ) -> anyhow::Result<End> {
        let answers = agents.ask(&[], &RecordingsRequest::List).await?;
        let pod = self.pod(agents.default_namespace());
        let has_pod = |recorded: &Recorded| {
            let (Some((namespace, name)), Some(found)) = (&pod, &recorded.container) else { return false };
            found.pod.as_ref() == Some(name) && (namespace.is_none() || found.namespace == *namespace)
        };
        let is_meant = |recording: &Recording| match &pod {
            None => recording.id == self.name,
            Some(_) => recording.gadget == gadget.name && recording.containers.iter().any(has_pod),
        };
        let mut meant: Vec<(&str, &Recording)> = recordings(&answers).filter(|(_, one)| is_meant(one)).collect();
        meant.sort_by_key(|(_, recording)| std::cmp::Reverse(recording.began_wall_ns));
        let Some((_, newest)) = meant.first() else {
            let what = if pod.is_some() { format!("of {}", self.name) } else { format!("{:?}", self.name) };
            return Err(no_recording(&what, &answers));
        };
        let id = newest.id.clone();
        let is_set = |parameter: &&Parameter| newest.parameters.contains_key(parameter.name);
        let filled = gadget.parameters.iter().filter(is_set).filter_map(|parameter| parameter.column);
        let output = output(Columns::usual(gadget, filled))?;
        if let Some((_, other)) = meant.iter().find(|(_, recording)| recording.id != id) {
            notice(&format!("this is of recording {id}; {} has something of it, too", other.id));
        }
        let nodes =
            meant.iter().filter(|(_, recording)| recording.id == id).map(|(node, _)| (*node).to_owned()).collect();
        for why in silent(&answers) {
            notice(&format!("what may be recorded there is not shown: {why}"));
        }
        let (namespaces, pods) = match pod {
            Some((namespace, pod)) => (namespace.into_iter().collect(), vec![pod]),
            None => (self.namespace.into_iter().collect(), Vec::new()),
        };
        let spec = RunSpec {
            gadget: gadget.name.to_owned(),
            selector: Selector { namespaces, pods, containers: self.containers, ..Selector::default() },
            past: Some(Past { id, ..past }),
            ..RunSpec::default()
        };
        run::run(agents.place(nodes), Run { spec, timeout: None, fail_on_loss: false, output }).await
    }
}

/// All that there are, with the node.
fn recordings(answers: &[NodeStatus]) -> impl Iterator<Item = (&str, &Recording)> {
    let answered = answers.iter().filter_map(|node| Some((node.node.as_str(), node.answer.as_ref().ok()?)));
    answered.flat_map(|(node, answer)| answer.recordings.iter().map(move |recording| (node, recording)))
}

/// Who did not answer, and why.
fn silent(answers: &[NodeStatus]) -> Vec<String> {
    let why = |node: &NodeStatus| {
        let why = node.answer.as_ref().err()?;
        Some(if node.node.is_empty() { why.clone() } else { format!("node {}: {why}", node.node) })
    };
    answers.iter().filter_map(why).collect()
}

fn all_answered(answers: &[NodeStatus]) -> anyhow::Result<()> {
    let silent = silent(answers);
    if silent.is_empty() { Ok(()) } else { bail!("not every agent has answered: {}", silent.join("; ")) }
}

fn no_recording(what: &str, answers: &[NodeStatus]) -> anyhow::Error {
    let mut ids: Vec<&str> = recordings(answers).map(|(_, recording)| recording.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let there = if ids.is_empty() { "there is none".to_owned() } else { format!("there are: {}", ids.join(", ")) };
    let silent = silent(answers).into_iter().map(|why| format!("; {why}")).collect::<String>();
    anyhow::anyhow!(
        "no agent has a recording {what}: it was stopped, or its agents were deployed anew since; {there}{silent}"
    )
}
