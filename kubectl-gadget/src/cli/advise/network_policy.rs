//! Flags of `advise network-policy`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueHint};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::advise::network_policy::{self as advice, Form, Namespaces, Options};
use crate::cluster::Cluster;
use crate::exit::Usage;

#[derive(Args)]
#[command(next_help_heading = "What is said")]
pub(super) struct NetworkPolicyArgs {
    /// Manifests, a list of them, or a picture of who talks to whom
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// Of which kind policies are
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    format: Kind,
    /// Propose only what the policies in force leave open, and name those that nothing needed
    #[arg(long)]
    with_existing: bool,
    /// The same with policies in a file, as `kubectl get networkpolicies -A -o yaml` writes them
    #[arg(long, value_name = "FILE", conflicts_with = "with_existing", value_hint = ValueHint::FilePath)]
    existing: Option<PathBuf>,
    /// Instead of new policies: show what those in this file would have blocked (then the exit code is 4)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    check: Option<PathBuf>,
    /// The same with the policies in force
    #[arg(long, conflicts_with = "check")]
    check_existing: bool,
    /// Widen addresses outside of the cluster to prefixes of so many bits, if they are of IPv4
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(0..=32))]
    cidr4: Option<u8>,
    /// The same of IPv6
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(0..=128))]
    cidr6: Option<u8>,
}

/// The value of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Yaml,
    Json,
    Svg,
    Dot,
    Mermaid,
}

/// The value of `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    #[default]
    Kubernetes,
    Cilium,
}

impl NetworkPolicyArgs {
    /// Whether it takes a cluster to know what is meant.
    pub(super) fn needs_cluster(&self) -> bool {
        self.with_existing || self.check_existing
    }

    /// What the flags mean; policies in force are those of these namespaces, or of all.
    pub(super) async fn options(self, place: Option<(&Cluster, &[String])>) -> anyhow::Result<Options> {
        let form = match (self.output, self.format) {
            (Format::Yaml, Kind::Kubernetes) => Form::Kubernetes,
            (Format::Yaml, Kind::Cilium) => Form::Cilium,
            (Format::Json, Kind::Kubernetes) => Form::Json,
            (Format::Json, Kind::Cilium) => {
                return Err(Usage("policies for Cilium are written as YAML only".into()).into());
            }
            (Format::Svg, _) => Form::Svg,
            (Format::Dot, _) => Form::Dot,
            (Format::Mermaid, _) => Form::Mermaid,
        };
        let in_force = match (self.needs_cluster(), place) {
            (true, None) => return Err(Usage("there are no policies in force without a cluster".into()).into()),
            (true, Some((cluster, namespaces))) => Some(advice::in_force(cluster, namespaces).await?),
            (false, _) => None,
        };
        let namespaces = match place {
            Some((cluster, _)) => advice::namespaces(cluster).await,
            None => Namespaces::new(),
        };
        let (check, existing) = if self.check_existing { (in_force, None) } else { (None, in_force) };
        Ok(Options {
            form,
            cidr4: self.cidr4,
            cidr6: self.cidr6,
            existing: existing.or(self.existing.as_deref().map(read).transpose()?),
            check: check.or(self.check.as_deref().map(read).transpose()?),
            namespaces,
        })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<NetworkPolicy>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    advice::read(&text).with_context(|| path.display().to_string())
}
