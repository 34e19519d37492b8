//! Policies that allow what was seen, and nothing else; whatever form they are written in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::flow::{Direction, Flow, Labels, Name, Peer, Protocol, Service};
use super::workload::{Workload, Workloads};
use crate::peers::TargetPort;

/// What a workload is to be allowed.
pub(super) struct Demand<'a> {
    pub(super) workload: &'a Workload,
    /// Directions in which it is to be isolated, and the flows that are to get through.
    pub(super) flows: BTreeMap<Direction, BTreeSet<&'a Flow>>,
}

/// A policy for a workload.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) workload: Workload,
    /// What it allows, by the directions in which it isolates.
    pub(super) directions: BTreeMap<Direction, Allowances>,
}

/// Which ports of whom.
pub(super) type Allowances = BTreeMap<Selection, BTreeSet<Port>>;

/// Whom a rule selects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Selection {
    Pods {
        namespace: String,
        labels: Labels,
    },
    Block {
        net: IpNet,
        whose: Whose,
    },
    /// The node of the pod: a NetworkPolicy allows it always.
    OwnNode,
}

/// Who has addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    Node(String),
    Service(Name),
    Pod(Name),
    World,
}

/// A port that is open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) protocol: Protocol,
    pub(super) port: TargetPort,
}

/// How long the prefixes of ipBlocks are at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Widths {
    pub(super) ipv4: Option<u8>,
    pub(super) ipv6: Option<u8>,
}

impl Widths {
    fn is_asked_for(self) -> bool {
        self.ipv4.is_some() || self.ipv6.is_some()
    }

    fn block(self, address: IpAddr) -> IpNet {
        let wanted = if address.is_ipv4() { self.ipv4 } else { self.ipv6 };
        let host = IpNet::from(address);
        wanted.and_then(|length| IpNet::new(address, length).ok()).unwrap_or(host).trunc()
    }
}

/// Makes policies of demands.
pub(super) struct Proposer<'a> {
    pub(super) workloads: &'a Workloads,
    pub(super) widths: Widths,
    /// What a person should know of them.
    pub(super) remarks: BTreeSet<String>,
}

impl Proposer<'_> {
    /// A policy for each demand; names of policies that are there already are not used again.
    pub(super) fn policies(&mut self, demands: &[Demand<'_>], mut taken: BTreeSet<Name>) -> Vec<Policy> {
        let named = |demand: &Demand<'_>| (demand.workload.namespace.clone(), name_of(demand.workload, false));
        let mut namesakes: BTreeMap<(String, String), usize> = BTreeMap::new();
        for demand in demands {
            *namesakes.entry(named(demand)).or_default() += 1;
        }
        let mut policies = Vec::new();
        for demand in demands {
            let mut directions = BTreeMap::new();
            for (direction, flows) in &demand.flows {
                let mut allowances = Allowances::new();
                for flow in flows {
                    let port = Port { protocol: flow.protocol, port: flow.target() };
                    for selection in self.selections(demand.workload, flow) {
                        allowances.entry(selection).or_default().insert(port.clone());
                    }
                }
                if self.widths.is_asked_for() {
                    allowances = aggregated(allowances);
                }
                directions.insert(*direction, allowances);
            }
            let with_kind = namesakes.get(&named(demand)).is_some_and(|count| *count > 1);
            let name = unused_name(demand.workload, with_kind, &mut taken);
            policies.push(Policy { name, workload: demand.workload.clone(), directions });
        }
        policies
    }

    fn selections(&mut self, own: &Workload, flow: &Flow) -> Vec<Selection> {
        let port = format!("{}/{}", flow.protocol.name(), flow.port);
        if flow.port == 0 {
            self.remarks.insert(format!("{own}: {flow}: a policy cannot name port 0"));
            return Vec::new();
        }
        match &flow.peer {
            Peer::OwnNode { .. } => vec![Selection::OwnNode],
            Peer::World(address) => vec![self.block(*address, Whose::World)],
            Peer::Node { name, address } => vec![self.block(*address, Whose::Node(name.clone()))],
            Peer::Pod { pod, address } => match self.workloads.of_pod(pod).filter(|peer| peer.is_selectable()) {
                Some(peer) => vec![pods(&peer.namespace, &peer.labels)],
                None => {
                    self.remarks.insert(format!(
                        "pod/{pod} has no labels that other pods of its workload have, too: its address {address} is \
                         allowed, which it will not keep"
                    ));
                    vec![self.block(*address, Whose::Pod(pod.clone()))]
                }
            },
            Peer::Service(service) if !service.selector.is_empty() => {
                self.remark_on(service, &port, flow.direction);
                vec![pods(&service.namespace, &service.selector)]
            }
            Peer::Service(service) => {
                let whose = Whose::Service(Name { namespace: service.namespace.clone(), name: service.name.clone() });
                if service.endpoints.is_empty() {
                    self.remarks.insert(format!(
                        "nobody knows what is behind {service}: its own address is allowed, with {port}; some network \
                         plugins look at the address behind it instead"
                    ));
                    return vec![self.block(service.address, whose)];
                }
                self.remark_on(service, &port, flow.direction);
                service.endpoints.iter().map(|address| self.block(*address, whose.clone())).collect()
            }
        }
    }

    fn remark_on(&mut self, service: &Service, port: &str, direction: Direction) {
        if service.target.is_none() && direction == Direction::Egress {
            self.remarks.insert(format!(
                "{service} does not say which port is behind {port}: {port} itself is allowed, which may be another"
            ));
        }
        let is_behind = |workload: &&Workload| {
            let is_selected = !service.selector.is_empty() && workload.has(&service.namespace, &service.selector);
            workload.is_host && is_selected
        };
        for host in self.workloads.iter().filter(is_behind) {
            self.remarks.insert(format!(
                "behind {service} is {host}, in the network of its nodes, where no selector finds it: allow the \
                 addresses of the nodes"
            ));
        }
    }

    fn block(&self, address: IpAddr, whose: Whose) -> Selection {
        Selection::Block { net: self.widths.block(address), whose }
    }
}

fn pods(namespace: &str, labels: &Labels) -> Selection {
    Selection::Pods { namespace: namespace.to_owned(), labels: labels.clone() }
}

/// The same addresses in fewer blocks.
fn aggregated(allowances: Allowances) -> Allowances {
    let mut alike: BTreeMap<(Whose, BTreeSet<Port>), Vec<IpNet>> = BTreeMap::new();
    let mut found = Allowances::new();
    for (selection, ports) in allowances {
        match selection {
            Selection::Block { net, whose } => alike.entry((whose, ports)).or_default().push(net),
            other => _ = found.insert(other, ports),
        }
    }
    for ((whose, ports), nets) in alike {
        for net in IpNet::aggregate(&nets) {
            let block = Selection::Block { net, whose: whose.clone() };
            found.entry(block).or_default().extend(ports.iter().cloned());
        }
    }
    found
}

/// What its owner is called, as far as the API server takes it.
fn name_of(workload: &Workload, with_kind: bool) -> String {
    const LONGEST: usize = 200;
    let (kind, name) = workload.kind_and_name();
    let name = if with_kind { format!("{name}-{kind}") } else { name.to_owned() };
    let valid = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(valid).take(LONGEST).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "workload".to_owned() } else { name.to_owned() }
}

fn unused_name(workload: &Workload, with_kind: bool, taken: &mut BTreeSet<Name>) -> String {
    let name = name_of(workload, with_kind);
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let others = std::iter::once(name_of(workload, true)).chain(numbered);
    for name in std::iter::once(name.clone()).chain(others) {
        if taken.insert(Name { namespace: workload.namespace.clone(), name: name.clone() }) {
            return name;
        }
    }
    name
}

/// One rule for all who may use the same ports, so that each stands in one rule, and nobody gets another's ports.
pub(super) fn rules<P: Ord>(
    allowances: impl IntoIterator<Item = (P, BTreeSet<Port>)>,
) -> BTreeMap<BTreeSet<Port>, BTreeSet<P>> {
    let mut by_peer: BTreeMap<P, BTreeSet<Port>> = BTreeMap::new();
    for (peer, ports) in allowances {
        by_peer.entry(peer).or_default().extend(ports);
    }
    let mut rules: BTreeMap<BTreeSet<Port>, BTreeSet<P>> = BTreeMap::new();
    for (peer, ports) in by_peer {
        rules.entry(ports).or_default().insert(peer);
    }
    rules
}
