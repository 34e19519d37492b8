//! What policies would do to the flows that were seen.

use std::collections::{BTreeMap, BTreeSet};

use gadgets::format::escaped;

use super::evaluate::{End, Party, Policies, Subject, Traffic, Verdict};
use super::flow::{Direction, Flow, Labels, Name, Peer, Pod, Service, Trace};
use super::proposal::Demand;
use super::selector::Known;
use super::workload::Workloads;
use crate::peers::TargetPort;

static NO_LABELS: Labels = Labels::new();

/// A flow of a pod, and what becomes of it.
pub(super) struct Outcome<'a> {
    pub(super) name: &'a Name,
    pub(super) pod: &'a Pod,
    pub(super) flow: &'a Flow,
    pub(super) verdict: Verdict,
}

impl Outcome<'_> {
    /// A line for a person, unless it is allowed.
    pub(super) fn complaint(&self) -> Option<String> {
        let owner = self.pod.owner.as_ref().map(|owner| format!(" ({})", escaped(owner))).unwrap_or_default();
        let who = format!("pod/{}{owner} {}", self.name, self.flow);
        match &self.verdict {
            Verdict::Allowed { .. } => None,
            Verdict::Blocked { direction, by } => {
                let by: Vec<String> = by.iter().map(ToString::to_string).collect();
                let direction = direction.policy_type().to_lowercase();
                Some(format!("blocked: {who}: no rule for {direction} in {}", by.join(", ")))
            }
            Verdict::Untold(doubt) => Some(format!("cannot be told: {who}: {doubt}")),
        }
    }
}

/// What becomes of all flows of a trace, on the side of the pods that are watched.
pub(super) fn outcomes<'a>(trace: &'a Trace, policies: &Policies<'_>) -> Vec<Outcome<'a>> {
    outcomes_by(trace, |traffic, _| policies.verdict(traffic))
}

/// The same, also on the side of peers that are not watched themselves: nobody else tells of it.
pub(super) fn outcomes_of_both<'a>(trace: &'a Trace, policies: &Policies<'_>) -> Vec<Outcome<'a>> {
    let is_watched = |pod: &Name| trace.pods.get(pod).is_some_and(|pod| pod.is_watched);
    outcomes_by(trace, |traffic, flow| match &flow.peer {
        Peer::Pod { pod, .. } if !is_watched(pod) => policies.verdict_of_both(traffic),
        _ => policies.verdict(traffic),
    })
}

fn outcomes_by<'a>(trace: &'a Trace, verdict: impl Fn(&Traffic<'a>, &Flow) -> Verdict) -> Vec<Outcome<'a>> {
    let flows = trace.watched().flat_map(|(name, pod)| pod.flows.iter().map(move |flow| (name, pod, flow)));
    flows
        .map(|(name, pod, flow)| Outcome { name, pod, flow, verdict: verdict(&traffic(trace, name, pod, flow), flow) })
        .collect()
}

/// What there is to be allowed: everything, or what policies that are there leave open.
///
/// A direction in which they isolate all pods of a workload needs only the flows that they do not let through.
pub(super) fn demands<'a>(
    trace: &'a Trace,
    workloads: &'a Workloads,
    existing: Option<&Policies<'_>>,
) -> Vec<Demand<'a>> {
    let mut demands = Vec::new();
    for workload in workloads.iter().filter(|workload| workload.is_selectable()) {
        let is_of =
            |(name, _): &(&Name, &Pod)| workloads.of_pod(name).is_some_and(|other| std::ptr::eq(other, workload));
        let pods: Vec<(&Name, &Pod)> = trace.watched().filter(is_of).collect();
        let mut flows: BTreeMap<Direction, BTreeSet<&Flow>> = BTreeMap::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            let isolated = existing
                .filter(|policies| pods.iter().all(|(name, pod)| policies.isolate(&subject(name, pod), direction)));
            let is_needed = |(name, pod, flow): &(&Name, &Pod, &Flow)| {
                let verdict = isolated.map(|policies| policies.verdict(&traffic(trace, name, pod, flow)));
                flow.direction == direction && !matches!(verdict, Some(Verdict::Allowed { .. }))
            };
            let all = pods.iter().flat_map(|(name, pod)| pod.flows.iter().map(move |flow| (*name, *pod, flow)));
            let needed: BTreeSet<&Flow> = all.filter(is_needed).map(|(_, _, flow)| flow).collect();
            if !pods.is_empty() && (isolated.is_none() || !needed.is_empty()) {
                flows.insert(direction, needed);
            }
        }
        if !flows.is_empty() {
            demands.push(Demand { workload, flows });
        }
    }
    demands
}

/// Policies with rules none of which let a flow through.
pub(super) fn unused(policies: &Policies<'_>, outcomes: &[Outcome<'_>]) -> BTreeSet<Name> {
    let mut unused: BTreeSet<Name> = policies.with_rules().cloned().collect();
    for outcome in outcomes {
        if let Verdict::Allowed { by } = &outcome.verdict {
            unused.retain(|name| !by.contains(name));
        }
    }
    unused
}

fn subject<'a>(name: &'a Name, pod: &'a Pod) -> Subject<'a> {
    Subject { namespace: &name.namespace, labels: labels(pod), address: pod.addresses.first().copied() }
}

fn labels(pod: &Pod) -> &Labels {
    pod.labels.as_ref().unwrap_or(&NO_LABELS)
}

/// A flow, as policies look at it.
pub(super) fn traffic<'a>(trace: &'a Trace, name: &'a Name, pod: &'a Pod, flow: &'a Flow) -> Traffic<'a> {
    let at = |party, port| End { party, port };
    let number = TargetPort::Number(flow.port);
    let mut before_translation = None;
    let parties = match &flow.peer {
        Peer::OwnNode { .. } => vec![Party::OwnNode],
        Peer::Node { address, .. } | Peer::World(address) => vec![Party::Address(*address)],
        Peer::Pod { pod, address } => {
            let labels = trace.pods.get(pod).map_or(&NO_LABELS, labels);
            vec![Party::Pod { namespace: &pod.namespace, labels: Known::Exactly(labels), address: Some(*address) }]
        }
        Peer::Service(service) => {
            before_translation = Some(at(Party::Address(service.address), number));
            behind(trace, service)
        }
    };
    Traffic {
        direction: flow.direction,
        protocol: flow.protocol,
        subject: subject(name, pod),
        ends: parties.into_iter().map(|party| at(party, flow.target())).collect(),
        before_translation,
    }
}

/// Who is behind a service, as far as they were seen.
fn behind<'a>(trace: &'a Trace, service: &'a Service) -> Vec<Party<'a>> {
    let namespace = service.namespace.as_str();
    if service.selector.is_empty() {
        let endpoints = service.endpoints.iter().map(|address| Party::Address(*address));
        let itself = service.endpoints.is_empty().then_some(Party::Address(service.address));
        return endpoints.chain(itself).collect();
    }
    let is_behind = |(name, pod): &(&Name, &Pod)| {
        let has = |(key, value): (&String, &String)| labels(pod).get(key) == Some(value);
        name.namespace == namespace && !pod.is_host && service.selector.iter().all(has)
    };
    let seen = trace.pods.iter().filter(is_behind);
    let seen: Vec<Party<'_>> = seen
        .map(|(_, pod)| Party::Pod {
            namespace,
            labels: Known::Exactly(labels(pod)),
            address: pod.addresses.first().copied(),
        })
        .collect();
    if seen.is_empty() {
        return vec![Party::Pod { namespace, labels: Known::AtLeast(&service.selector), address: None }];
    }
    seen
}
