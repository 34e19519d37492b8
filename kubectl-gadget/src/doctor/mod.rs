//! What is well and what is not, in a cluster and on its nodes.
//!
//! - [`cluster`]: what can be found out without any agent
//! - [`nodes`]: what the agents find on their nodes
//! - [`clocks`]: whether the nodes' clocks agree

mod clocks;
mod cluster;
mod nodes;

use gadgets::diagnosis::{Diagnosis, Finding, VariantStatus, Verdict};
use serde::Serialize;

use crate::cluster::Cluster;
use crate::run::connection::Local;

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Of the cluster; empty for a single host.
    pub(crate) cluster: Vec<Finding>,
    /// Of each node.
    pub(crate) nodes: Vec<NodeReport>,
}

/// What was found on one node.
#[derive(Debug, Default, Serialize)]
pub(crate) struct NodeReport {
    pub(crate) node: String,
    pub(crate) findings: Vec<Finding>,
    pub(crate) variants: Vec<VariantStatus>,
}

impl Report {
    /// How many findings have this verdict.
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        let of_nodes = self.nodes.iter().flat_map(|node| &node.findings);
        self.cluster.iter().chain(of_nodes).filter(|finding| finding.verdict == verdict).count()
    }
}

impl From<Diagnosis> for NodeReport {
    fn from(diagnosis: Diagnosis) -> Self {
        let Diagnosis { node, findings, variants, .. } = diagnosis;
        Self { node, findings, variants }
    }
}

/// Looks at this host.
///
/// # Errors
/// If there is no agent's binary, or it does not answer.
pub(crate) async fn look_at_host(local: &Local) -> anyhow::Result<Report> {
    let diagnosis: Diagnosis = local.start(&["probe".as_ref()])?.document().await?;
    Ok(Report { cluster: Vec::new(), nodes: vec![diagnosis.into()] })
}

/// Looks at a cluster and its nodes. What cannot be found out is a finding, too.
pub(crate) async fn look_at_cluster(cluster: &Cluster) -> Report {
    let (mut findings, view) = cluster::look(cluster).await;
    let mut answers = nodes::ask(cluster, &view).await;
    findings.extend(clocks::compare(&mut answers));
    Report { cluster: findings, nodes: answers.into_iter().map(|answer| answer.report).collect() }
}
