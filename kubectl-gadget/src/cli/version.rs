//! `version`: which client this is, and which agents the cluster has.

use clap::{ArgMatches, Args, Command, FromArgMatches as _};
use gadgets::wire::VERSION;
use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Value, json};

use super::cluster::ClusterArgs;
use super::{Format, block_on, print};
use crate::cluster::Cluster;
use crate::deploy;
use crate::exit::End;

#[derive(Args)]
struct VersionArgs {
    /// The client's version alone: no cluster is asked
    #[arg(long)]
    client: bool,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn command() -> Command {
    VersionArgs::augment_args(Command::new("version").about("Print the versions of the client and of the agents"))
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<End> {
    let args = VersionArgs::from_arg_matches(matches)?;
    let agent = if args.client { Ok(None) } else { block_on(agent(&args.cluster)).map(Some) };
    // The client's version is known, whatever the cluster says.
    print(&match args.output {
        Format::Text => text(agent.as_ref().ok().and_then(Option::as_ref)),
        Format::Json => serde_json::to_string_pretty(&json(agent.as_ref().ok().and_then(Option::as_ref)))?,
    });
    agent.map(|_| End::Done)
}

/// What is deployed.
#[derive(Debug, PartialEq, Eq)]
enum Deployed {
    Nothing,
    Agent { version: String, image: String },
}

async fn agent(args: &ClusterArgs) -> anyhow::Result<Deployed> {
    let cluster = Cluster::connect(args).await?;
    Ok(deploy::daemon_set(&cluster).await?.map_or(Deployed::Nothing, deployed))
}

fn deployed(set: DaemonSet) -> Deployed {
    let version = set.metadata.labels.unwrap_or_default().remove(deploy::VERSION_LABEL);
    let pod = set.spec.and_then(|spec| spec.template.spec);
    let mut containers = pod.map(|pod| pod.containers).unwrap_or_default().into_iter();
    let image = containers.find(|container| container.name == deploy::CONTAINER).and_then(|container| container.image);
    Deployed::Agent { version: version.unwrap_or_else(|| "unknown".into()), image: image.unwrap_or_default() }
}

fn text(agent: Option<&Deployed>) -> String {
    let client = format!("kubectl-gadget {} (protocol {VERSION})", env!("CARGO_PKG_VERSION"));
    match agent {
        None => client,
        Some(Deployed::Nothing) => format!("{client}\ngadget-agent: not deployed"),
        Some(Deployed::Agent { version, image }) => format!("{client}\ngadget-agent {version} (image {image})"),
    }
}

fn json(agent: Option<&Deployed>) -> Value {
    let mut all = json!({"client": {"version": env!("CARGO_PKG_VERSION"), "protocol": VERSION}});
    match agent {
        None => {}
        Some(Deployed::Nothing) => all["agents"] = Value::Null,
        Some(Deployed::Agent { version, image }) => all["agents"] = json!({"version": version, "image": image}),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_version_is_the_daemon_sets() {
        let set = json!({
            "metadata": {"labels": {deploy::VERSION_LABEL: "0.2.0"}},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": deploy::CONTAINER, "image": "some:1"}]}}},
        });
        let set = serde_json::from_value(set).unwrap_or_default();
        let agent = Deployed::Agent { version: "0.2.0".into(), image: "some:1".into() };
        assert_eq!(deployed(set), agent);
        assert!(text(Some(&agent)).ends_with("\ngadget-agent 0.2.0 (image some:1)"));
        assert_eq!(json(Some(&agent))["agents"]["image"], "some:1");
        assert_eq!(json(Some(&Deployed::Nothing))["agents"], Value::Null);
        assert_eq!(json(None).get("agents"), None);
        assert!(text(Some(&Deployed::Nothing)).ends_with("not deployed"));
    }
}
