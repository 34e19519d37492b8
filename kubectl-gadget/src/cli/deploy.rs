//! `deploy`: the agents onto the nodes of a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches as _, ValueEnum};
use gadgets::format::escaped;
use k8s_openapi::api::core::v1::Toleration;
use tokio::signal::unix::{SignalKind, signal};

use super::cluster::ClusterArgs;
use super::run::duration;
use super::{block_on, print};
use crate::cluster::Cluster;
use crate::deploy::{self, Options, Progress};
use crate::exit::End;
use crate::notice::notice;

/// How long agents may take to come, and to go, where the user does not say (`--timeout` of `deploy`: 2m).
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Args)]
struct DeployArgs {
    /// The agent's image
    #[arg(long, value_name = "REF", default_value_t = deploy::default_image())]
    image: String,
    /// When nodes pull the image
    #[arg(long, value_name = "POLICY", value_enum, ignore_case = true, default_value_t)]
    image_pull_policy: PullPolicy,
    /// Only on nodes with these labels, as in pool=debug,zone=a
    #[arg(long, value_name = "LABELS", value_parser = node_selector)]
    node_selector: Option<Labels>,
    /// Taints of nodes that get an agent all the same, as in dedicated=db:NoSchedule,gpu (or "" for none) [default: all]
    #[arg(long, value_name = "TAINTS", value_parser = tolerations)]
    tolerations: Option<Tolerations>,
    /// Let the agents lock memory (CAP_SYS_RESOURCE), as kernels before 5.11 need; by itself, if a node has one
    #[arg(long)]
    lock_memory: bool,
    /// Print what would be applied, for kubectl apply -f -, and do nothing
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

// Whether to wait for the end of what was begun.
#[derive(Args)]
pub(super) struct WaitArgs {
    /// Wait for the end; --wait=false does not
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    #[arg(default_value_t = true, default_missing_value = "true")]
    wait: bool,
    /// How long to wait, as in 30s or 5min
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m")]
    timeout: Duration,
}

impl WaitArgs {
    pub(super) fn time(&self) -> Option<Duration> {
        self.wait.then_some(self.timeout)
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Labels(BTreeMap<String, String>);

#[derive(Clone, Debug, PartialEq)]
struct Tolerations(Vec<Toleration>);

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn node_selector(text: &str) -> Result<Labels, String> {
    let label = |word: &str| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{word:?} is no label: write it as KEY=VALUE")),
    };
    words(text).map(label).collect::<Result<_, _>>().map(Labels)
}

fn tolerations(text: &str) -> Result<Tolerations, String> {
    words(text).map(toleration).collect::<Result<_, _>>().map(Tolerations)
}

/// A taint, as kubectl writes them: `KEY[=VALUE][:EFFECT]`. Without a value, whatever it is.
fn toleration(word: &str) -> Result<Toleration, String> {
    let (taint, effect) = match word.rsplit_once(':') {
        Some((taint, effect)) => (taint, Some(effect)),
        None => (word, None),
    };
    if effect.is_some_and(|effect| !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)) {
        return Err(format!("{word:?}: the effect must be NoSchedule, PreferNoSchedule or NoExecute"));
    }
    let (key, operator, value) = match taint.split_once('=') {
        Some((key, value)) => (key, "Equal", Some(value)),
        None => (taint, "Exists", None),
    };
    if key.is_empty() {
        return Err(format!("{word:?} is no taint: write it as KEY, KEY=VALUE, or either with :EFFECT"));
    }
    Ok(Toleration {
        key: Some(key.to_owned()),
        operator: Some(operator.to_owned()),
        value: value.map(str::to_owned),
        effect: effect.map(str::to_owned),
        ..Toleration::default()
    })
}

pub(super) fn command() -> Command {
    DeployArgs::augment_args(Command::new("deploy").about("Put the agents onto the nodes of a cluster"))
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<End> {
    let args = DeployArgs::from_arg_matches(matches)?;
    let options = Options {
        image: Some(args.image),
        image_pull_policy: args.image_pull_policy.to_possible_value().map(|policy| policy.get_name().to_owned()),
        node_selector: args.node_selector.map(|labels| labels.0).unwrap_or_default(),
        tolerations: args.tolerations.map(|tolerations| tolerations.0),
        lock_memory: args.lock_memory,
    };
    if args.print {
        return Ok(print(deploy::yaml(&options)?.trim_end()));
    }
    let wait = args.wait.time();
    block_on(async {
        let cluster = Cluster::connect(&args.cluster).await?;
        until_signalled(deploy::deploy(&cluster, &options, wait, &say), "what was applied stays").await
    })
}

/// Deploys, does something, and undeploys, whatever comes of it. Agents that are there already are used, and stay.
pub(super) async fn temporarily(
    cluster: &Cluster,
    image: Option<String>,
    work: impl Future<Output = anyhow::Result<End>>,
) -> anyhow::Result<End> {
    if deploy::daemon_set(cluster).await?.is_some() {
        notice("kubectl gadget is deployed already: --rm uses it, and leaves it");
        return work.await;
    }
    // Standard output is the gadget's.
    let say = |progress: Progress| notice(&progress.to_string());
    let options = Options { image, ..Options::default() };
    let deployed = deploy::deploy(cluster, &options, Some(PATIENCE), &say);
    let ended = match until_signalled(deployed, "removing what was applied").await {
        Ok(End::Done) => work.await,
        other => other,
    };
    let removed = async { deploy::undeploy(cluster, Some(PATIENCE), &say).await.map(drop) };
    let removed = until_signalled(removed, "what is left is removed by: kubectl gadget undeploy").await;
    match (ended, removed) {
        (Ok(End::Done), removed) => removed,
        (ended, Ok(_)) => ended,
        (ended, Err(error)) => {
            notice(&format!("warning: not everything was removed: {error:#}"));
            ended
        }
    }
}

/// Does something that the user may break off; then says what that means.
pub(super) async fn until_signalled(
    work: impl Future<Output = anyhow::Result<()>>,
    meaning: &str,
) -> anyhow::Result<End> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let kind = tokio::select! {
        done = work => return done.map(|()| End::Done),
        _ = interrupted.recv() => SignalKind::interrupt(),
        _ = terminated.recv() => SignalKind::terminate(),
    };
    notice(&format!("interrupted: {meaning}"));
    Ok(End::Signal(u8::try_from(kind.as_raw_value())?))
}

/// What was done is the command's result; all else is for whoever waits. Parts are from the cluster.
pub(super) fn say(progress: Progress) {
    match &progress {
        Progress::Done(text) => _ = print(&escaped(text)),
        Progress::Waiting(_) | Progress::Warning(_) => notice(&progress.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<DeployArgs, clap::Error> {
        DeployArgs::from_arg_matches(&command().no_binary_name(true).try_get_matches_from(words)?)
    }

    #[test]
    fn waiting_is_the_default() {
        let time = |words: &[&str]| parse(words).ok().map(|args| args.wait.time());
        assert_eq!(time(&[]), Some(Some(Duration::from_secs(120))));
        assert_eq!(time(&["--wait", "--timeout", "5s"]), Some(Some(Duration::from_secs(5))));
        assert_eq!(time(&["--wait=false"]), Some(None));
        assert_eq!(time(&["--timeout", "5"]), None);
    }

    #[test]
    fn labels_and_taints_are_written_as_kubectl_has_them() {
        let labels = node_selector("pool=debug, zone=").map(|labels| labels.0);
        assert_eq!(labels, Ok([("pool".into(), "debug".into()), ("zone".into(), String::new())].into()));
        assert!(node_selector("pool").is_err() && node_selector("=x").is_err());
        let taints =
            tolerations("dedicated=db:NoSchedule,gpu,old:NoExecute").map(|taints| taints.0).unwrap_or_default();
        let short = |taint: &Toleration| {
            [&taint.key, &taint.operator, &taint.value, &taint.effect]
                .map(|part| part.clone().unwrap_or_default())
                .join(" ")
        };
        let taints: Vec<_> = taints.iter().map(short).collect();
        assert_eq!(taints, ["dedicated Equal db NoSchedule", "gpu Exists  ", "old Exists  NoExecute"]);
        assert_eq!(tolerations(""), Ok(Tolerations(vec![])));
        assert!(tolerations("a:Never").is_err() && tolerations("=b").is_err());
        assert!(parse(&["--image-pull-policy", "never"]).is_ok() && parse(&["--image-pull-policy", "maybe"]).is_err());
    }
}
