//! What the agents find on their nodes.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use gadgets::diagnosis::{Diagnosis, Finding};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;

use super::NodeReport;
use super::cluster::{self, View};
use crate::cluster::Cluster;
use crate::deploy::why_not_ready;
use crate::run::connection;

/// How long an agent may look at its node.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one node answered.
pub(super) struct Answer {
    pub(super) report: NodeReport,
    /// How far the node's clock is ahead of ours, and how far that may be wrong, in ns; `None` if it did not answer.
    pub(super) clock: Option<(i128, i128)>,
}

/// Asks all agents at once, and names the nodes that have none. Sorted by node.
pub(super) async fn ask(cluster: &Cluster, view: &View) -> Vec<Answer> {
    let agents = view.agents.iter().flatten();
    let mut answers = join_all(agents.map(|pod| ask_one(cluster, view, pod))).await;
    let with_agent: BTreeSet<String> = answers.iter().map(|answer| answer.report.node.clone()).collect();
    let all = view.nodes.iter().flatten();
    answers.extend(all.filter(|node| !with_agent.contains(&node.name_any())).map(|node| without_agent(node, view)));
    answers.sort_by(|one, other| one.report.node.cmp(&other.report.node));
    answers
}

async fn ask_one(cluster: &Cluster, view: &View, pod: &Pod) -> Answer {
    let trouble = why_not_ready(pod);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    // One that has no place yet says for which node it is.
    let node = node.or_else(|| trouble.as_ref()?.node.clone()).unwrap_or_default();
    let failed = |why: String| {
        let known = view.nodes.iter().flatten().find(|known| known.name_any() == node);
        let agent = Finding::failed("agent", why, "nothing is seen of this node", "kubectl -n gadget describe pods");
        let findings = known.and_then(cluster::kernel).into_iter().chain([agent]).collect();
        Answer { report: NodeReport { node: node.clone(), findings, variants: Vec::new() }, clock: None }
    };
    if let Some(trouble) = trouble {
        return failed(trouble.why);
    }
    let asking = async {
        let begin = now();
        let connection = connection::start(cluster, &pod.name_any(), "probe").await?;
        anyhow::Ok((begin, connection.document::<Diagnosis>().await?))
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Err(_) => failed(format!("the agent does not answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => failed(format!("{error:#}")),
        Ok(Ok((begin, diagnosis))) => {
            // The clock was read between the two.
            let (begin, end) = (begin + i128::from(diagnosis.took_ns), now());
            let ahead = i128::from(diagnosis.clock.wall_ns) - (begin + end) / 2;
            let doubt = ((end - begin) / 2).max(0);
            Answer { report: NodeReport { node, ..diagnosis.into() }, clock: Some((ahead, doubt)) }
        }
    }
}

fn now() -> i128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

fn without_agent(node: &Node, view: &View) -> Answer {
    let mut findings: Vec<Finding> = cluster::kernel(node).into_iter().collect();
    if view.is_deployed && view.agents.is_some() {
        findings.push(Finding::degraded(
            "agent",
            "there is none on this node",
            "nothing is seen of it",
            "check the node's taints and labels against deploy's --tolerations and --node-selector",
        ));
    }
    Answer { report: NodeReport { node: node.name_any(), findings, variants: Vec::new() }, clock: None }
}
