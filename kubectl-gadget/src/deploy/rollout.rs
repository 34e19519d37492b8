//! Waiting until each node that shall have an agent has one that is ready.

use std::pin::pin;
use std::time::Duration;

use anyhow::bail;
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{NAME, NAMESPACE, Progress, SELECTOR, Trouble, why_not_ready};
use crate::cluster::{Cluster, Kind};

/// How often the pods are looked at. A watch of them would not do: it may lag behind the DaemonSet's.
const LOOK: Duration = Duration::from_millis(500);
/// How long a trouble that waiting does not mend is looked at, so that all nodes that have it are told.
const COLLECT: Duration = Duration::from_secs(2);
/// As many nodes' troubles are told.
const TOLD: usize = 5;

/// On how many nodes there shall be an agent; `None` until each of them has a pod of what was applied last.
fn wanted(set: &DaemonSet) -> Option<usize> {
    let status = set.status.as_ref().filter(|status| status.observed_generation >= set.metadata.generation)?;
    let wanted = status.desired_number_scheduled;
    // Pods of before, with troubles that are being mended, would be counted otherwise.
    (status.updated_number_scheduled.unwrap_or(0) == wanted).then(|| usize::try_from(wanted).unwrap_or(0))
}

/// What the agents' pods say.
struct Agents {
    ready: usize,
    troubles: Vec<Trouble>,
}

impl Agents {
    async fn look(cluster: &Cluster) -> anyhow::Result<Self> {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
        let pods = cluster.ask("list the agents' pods", pods.list(&ListParams::default().labels(SELECTOR))).await?;
        let current: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        let troubles: Vec<_> = current.iter().filter_map(|pod| why_not_ready(pod)).collect();
        Ok(Self { ready: current.len() - troubles.len(), troubles })
    }

    fn lasting(self) -> Vec<Trouble> {
        self.troubles.into_iter().filter(|trouble| trouble.lasting).collect()
    }
}

/// Has agents that wait after a failure start at once: the node would let them wait for up to five minutes, though what
/// was wrong may be mended.
///
/// # Errors
/// If pods cannot be listed or removed.
pub(super) async fn start_afresh(cluster: &Cluster, say: &dyn Fn(Progress)) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    for Trouble { pod, .. } in Agents::look(cluster).await?.lasting() {
        let what = format!("restart pod/{pod}");
        match cluster.ask(&what, pods.delete(&pod, &DeleteParams::default())).await {
            Ok(_) => say(Progress::Done(format!("pod/{pod} restarted"))),
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until all agents are ready.
///
/// # Errors
/// If they are not by then, or if one has a trouble that waiting does not mend; what it is was said before.
pub(super) async fn wait(cluster: &Cluster, end: Instant, say: &dyn Fn(Progress)) -> anyhow::Result<()> {
    if let Ok(result) = timeout_at(end, all_ready(cluster, say)).await {
        return result;
    }
    let troubles = Agents::look(cluster).await?.troubles;
    tell(&troubles, say);
    if troubles.is_empty() {
        let see = format!("see: kubectl -n {NAMESPACE} get pods -o wide");
        say(Progress::Warning(format!("nodes without an agent, or with one of before that is not gone yet; {see}")));
    }
    for name in [NAME].into_iter().chain(troubles.first().map(|trouble| &*trouble.pod)) {
        if let Some(event) = last_warning(cluster, name).await {
            say(Progress::Warning(event));
        }
    }
    bail!("not all agents are ready in time; {STAYS}")
}

async fn all_ready(cluster: &Cluster, say: &dyn Fn(Progress)) -> anyhow::Result<()> {
    let sets: Api<DaemonSet> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let mut sets = pin!(watcher::watch_object(sets, NAME).default_backoff());
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut set_wants = None;
    let mut said = None;
    let mut give_up = None;
    loop {
        tokio::select! {
            set = sets.next() => match set {
                Some(Ok(Some(set))) => set_wants = wanted(&set),
                Some(Ok(None)) => bail!("somebody removed daemonset/{NAME} while we waited for it"),
                Some(Err(error)) => {
                    let error = cluster.explain_watch(&format!("watch daemonset/{NAME}"), &error);
                    // Anything else may pass.
                    if matches!(error.kind, Kind::Forbidden | Kind::Unauthorized) {
                        return Err(error.into());
                    }
                }
                None => bail!("the watch of daemonset/{NAME} ended"),
            },
            _ = look.tick(), if set_wants.is_some() => {}
        }
        let Some(wanted) = set_wants else { continue };
        let agents = Agents::look(cluster).await?;
        if said != Some((agents.ready, wanted)) {
            said = Some((agents.ready, wanted));
            say(Progress::Waiting(format!("{} of {wanted} nodes ready", agents.ready)));
        }
        if agents.ready >= wanted {
            if wanted == 0 {
                say(Progress::Warning("no node matches: there is no agent anywhere".into()));
            }
            return Ok(());
        }
        let lasting = agents.lasting();
        if lasting.is_empty() {
            give_up = None;
        } else if *give_up.get_or_insert(Instant::now() + COLLECT) <= Instant::now() {
            tell(&lasting, say);
            bail!("not all agents can start; {STAYS}");
        }
    }
}

const STAYS: &str = "what was applied stays: deploy again when it is mended, or remove it with kubectl gadget undeploy";

fn tell(troubles: &[Trouble], say: &dyn Fn(Progress)) {
    for trouble in troubles.iter().take(TOLD) {
        say(Progress::Warning(trouble.to_string()));
    }
    if let more @ 1.. = troubles.len().saturating_sub(TOLD) {
        say(Progress::Warning(format!("and {more} more nodes like these")));
    }
}

/// What Kubernetes last complained about for an object of ours, if anything; this only helps to explain.
async fn last_warning(cluster: &Cluster, name: &str) -> Option<String> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let which = ListParams::default().fields(&format!("involvedObject.name={name},type=Warning"));
    let events = cluster.ask("list events", events.list(&which)).await.ok()?;
    let last = events.items.into_iter().max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))?;
    Some(format!("{name}: {}: {}", last.reason?, last.message?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use serde_json::json;

    fn wanted_of(generation: i64, updated: i32, wanted: i32) -> Option<usize> {
        let set = json!({
            "metadata": {"generation": 2},
            "status": {
                "observedGeneration": generation, "desiredNumberScheduled": wanted, "numberReady": 0,
                "updatedNumberScheduled": updated, "currentNumberScheduled": wanted, "numberMisscheduled": 0,
            },
        });
        super::wanted(&serde_json::from_value(set).unwrap())
    }

    #[test]
    fn pods_count_when_they_are_all_of_what_was_applied_last() {
        assert_eq!(wanted_of(2, 3, 3), Some(3));
        assert_eq!(wanted_of(2, 1, 3), None, "two are of what was applied before");
        assert_eq!(wanted_of(1, 3, 3), None, "nobody has looked at what was applied last");
        assert_eq!(wanted_of(2, 0, 0), Some(0));
        assert_eq!(wanted(&DaemonSet::default()), None);
    }

    #[test]
    fn many_troubles_are_not_all_told() {
        let said = std::cell::RefCell::new(Vec::new());
        let trouble = Trouble { node: None, why: "broken".into(), pod: "x".into(), lasting: true };
        tell(&vec![trouble; TOLD + 2], &|progress| said.borrow_mut().push(progress));
        let said = said.into_inner();
        assert_eq!(said.len(), TOLD + 1);
        assert_eq!(said.last(), Some(&Progress::Warning("and 2 more nodes like these".into())));
    }
}
