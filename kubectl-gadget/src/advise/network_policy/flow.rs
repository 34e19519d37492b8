//! What pods were seen to send and receive, once each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use gadgets::format::escaped;
use serde::Deserialize;

use crate::peers::{self, Identity, TargetPort, Traits};

/// How many different flows of a pod are kept: enough for whom a policy can be written by hand or by a tool, and an end
/// to what a pod that scans addresses can do to the memory of the client.
const MOST: usize = 10_000;

/// Labels, as Kubernetes has them.
pub(super) type Labels = BTreeMap<String, String>;

/// An event of the gadget, as far as it matters here.
#[derive(Deserialize)]
pub(super) struct Event {
    node: Option<String>,
    namespace: Option<String>,
    pod: Option<String>,
    owner: Option<String>,
    #[serde(default)]
    labels: Labels,
    direction: Direction,
    protocol: String,
    local: Endpoint,
    peer: Endpoint,
}

/// Who has an address.
#[derive(Deserialize)]
pub(super) struct Named {
    address: IpAddr,
    #[serde(flatten)]
    identity: Identity,
}

/// One end of a flow.
#[derive(Deserialize)]
struct Endpoint {
    address: IpAddr,
    #[serde(default)]
    port: u16,
    #[serde(flatten)]
    identity: Option<Identity>,
}

/// Who began: the pod (egress) or its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    /// As in `policyTypes`.
    pub(super) const fn policy_type(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }

    /// The same flow, as the peer has it.
    pub(super) const fn reversed(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
}

/// A protocol of which a NetworkPolicy can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(super) const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// As in manifests.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

/// A flow without what differs each time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub(super) direction: Direction,
    pub(super) protocol: Protocol,
    /// Where the one who did not begin listens; of a service its own port.
    pub(super) port: u16,
    pub(super) peer: Peer,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// What is known of the pod stands in the trace.
    Pod {
        pod: Name,
        address: IpAddr,
    },
    Service(Service),
    /// Another node than the pod's, or a pod that shares its network.
    Node {
        name: String,
        address: IpAddr,
    },
    /// The node on which the pod runs.
    OwnNode {
        name: String,
        address: IpAddr,
    },
    World(IpAddr),
}

/// A service, with what is behind the port that was called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) address: IpAddr,
    /// Labels of its pods; none if `endpoints` says what is behind it.
    pub(super) selector: Labels,
    pub(super) endpoints: BTreeSet<IpAddr>,
    /// The port of those behind it, if the service says so, and if it is known who they are.
    pub(super) target: Option<TargetPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What is known of a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Pod {
    pub(super) owner: Option<String>,
    /// Labels that it had whenever it was seen.
    pub(super) labels: Option<Labels>,
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Its own flows were asked for, and not only those of its peers.
    pub(super) is_watched: bool,
    /// It is in the network of its node.
    pub(super) is_host: bool,
    pub(super) flows: BTreeSet<Flow>,
    /// Protocols that it used of which no policy can speak.
    pub(super) odd_protocols: BTreeSet<String>,
    /// How many flows were not kept.
    pub(super) left_out: u64,
}

/// All pods that were seen, and their flows. The order in which they came makes no difference, up to the limit.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    pub(super) pods: BTreeMap<Name, Pod>,
}

impl Trace {
    /// Takes in an event, if it is a pod's.
    pub(super) fn take(&mut self, event: Event) {
        let Event { node, namespace: Some(namespace), pod: Some(name), owner, labels, local, peer, .. } = event else {
            return;
        };
        let own_name = Name { namespace, name };
        let is_host = matches!(local.identity, Some(Identity { peer: peers::Peer::Node { .. }, .. }));
        let traits = local.identity.map(|identity| identity.traits).unwrap_or_default();
        let own = self.pods.entry(own_name).or_default();
        own.is_watched = true;
        own.is_host |= is_host;
        own.learn(owner.or(traits.owner), if labels.is_empty() { traits.labels } else { labels });
        let (local_address, address) = (local.address.to_canonical(), peer.address.to_canonical());
        let is_own = address.is_unspecified() || address == local_address;
        if is_own || address.is_loopback() || local_address.is_loopback() || is_host {
            return;
        }
        // Who is bound to none sends from whichever fits.
        if !local_address.is_unspecified() {
            own.addresses.insert(local_address);
        }
        if own.flows.len() + own.odd_protocols.len() >= MOST {
            own.left_out += 1;
            return;
        }
        let Some(protocol) = Protocol::of(&event.protocol) else {
            own.odd_protocols.insert(event.protocol);
            return;
        };
        let (direction, port) =
            (event.direction, if event.direction == Direction::Egress { peer.port } else { local.port });
        let Some(Identity { peer: who, traits }) = peer.identity else {
            own.flows.insert(Flow { direction, protocol, port, peer: Peer::World(address) });
            return;
        };
        match who {
            peers::Peer::Node { name } => {
                let is_own = node.as_ref() == Some(&name);
                let peer = if is_own { Peer::OwnNode { name, address } } else { Peer::Node { name, address } };
                own.flows.insert(Flow { direction, protocol, port, peer });
            }
            peers::Peer::Svc { namespace, name } => {
                let is_meant =
                    |known: &&peers::ServicePort| known.port == port && Protocol::of(&known.protocol) == Some(protocol);
                let Traits { selector, ports, endpoints, .. } = traits;
                let is_known = direction == Direction::Egress && !(selector.is_empty() && endpoints.is_empty());
                let target = ports.iter().find(is_meant).filter(|_| is_known).map(|known| known.target.clone());
                let endpoints = endpoints.iter().map(IpAddr::to_canonical).collect();
                let service = Service { namespace, name, address, selector, endpoints, target };
                own.flows.insert(Flow { direction, protocol, port, peer: Peer::Service(service) });
            }
            peers::Peer::Pod { namespace, name } => {
                let pod = Name { namespace, name };
                own.flows.insert(Flow { direction, protocol, port, peer: Peer::Pod { pod: pod.clone(), address } });
                let known = self.pods.entry(pod).or_default();
                known.learn(traits.owner, traits.labels);
                known.addresses.insert(address);
            }
        }
    }

    /// Takes in who has an address, of which that was not known when its flows were seen.
    pub(super) fn learn(&mut self, Named { address, identity }: Named) {
        if let peers::Peer::Pod { namespace, name } = identity.peer {
            let pod = self.pods.entry(Name { namespace, name }).or_default();
            pod.learn(identity.traits.owner, identity.traits.labels);
            pod.addresses.insert(address.to_canonical());
        }
    }

    /// The same with names for addresses that turned out to be a pod's. One that was several pods', one after the other,
    /// stays an address.
    pub(super) fn settled(&self) -> Self {
        let mut owners: BTreeMap<IpAddr, Option<&Name>> = BTreeMap::new();
        for (name, pod) in self.pods.iter().filter(|(_, pod)| !pod.is_host) {
            for address in &pod.addresses {
                owners.entry(*address).and_modify(|owner| *owner = None).or_insert(Some(name));
            }
        }
        let named = |flow: &Flow| match &flow.peer {
            Peer::World(address) => match owners.get(address) {
                Some(Some(pod)) => Flow { peer: Peer::Pod { pod: (*pod).clone(), address: *address }, ..flow.clone() },
                _ => flow.clone(),
            },
            _ => flow.clone(),
        };
        let mut settled = self.clone();
        for pod in settled.pods.values_mut() {
            pod.flows = pod.flows.iter().map(named).collect();
        }
        settled
    }

    /// Pods that are watched, and have a network of their own.
    pub(super) fn watched(&self) -> impl Iterator<Item = (&Name, &Pod)> {
        self.pods.iter().filter(|(_, pod)| pod.is_watched && !pod.is_host)
    }
}

impl Pod {
    fn learn(&mut self, owner: Option<String>, labels: Labels) {
        // The first in order, so that it does not matter which came first in time.
        self.owner = [self.owner.take(), owner].into_iter().flatten().min();
        if !labels.is_empty() {
            match &mut self.labels {
                None => self.labels = Some(labels),
                Some(known) => retain_common(known, &labels),
            }
        }
    }
}

/// Leaves what both have.
pub(super) fn retain_common(labels: &mut Labels, others: &Labels) {
    labels.retain(|key, value| others.get(key) == Some(value));
}

impl Flow {
    /// Where it ends: the port of a pod, or of what has the address.
    pub(super) fn target(&self) -> TargetPort {
        match &self.peer {
            Peer::Service(Service { target: Some(target), .. }) => target.clone(),
            _ => TargetPort::Number(self.port),
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.direction == Direction::Egress { "to" } else { "from" };
        write!(f, "{}/{} {way} {}", self.protocol.name().to_lowercase(), self.port, self.peer)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { pod, .. } => write!(f, "pod/{pod}"),
            Self::Service(service) => write!(f, "{service}"),
            Self::Node { name, .. } | Self::OwnNode { name, .. } => write!(f, "node/{}", escaped(name)),
            Self::World(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "svc/{}/{}", escaped(&self.namespace), escaped(&self.name))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", escaped(&self.namespace), escaped(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn event(pod: &str, local: &str, peer: Value) -> Event {
        let local = json!({"address": local, "port": 40000});
        from_value(json!({"node": "a", "namespace": "shop", "pod": pod, "labels": {"app": pod}, "direction": "egress",
            "protocol": "tcp", "local": local, "peer": peer}))
        .expect("an event")
    }

    fn peers(trace: &Trace, pod: &str) -> Vec<String> {
        let name = Name { namespace: "shop".into(), name: pod.into() };
        trace.settled().pods[&name].flows.iter().map(|flow| flow.peer.to_string()).collect()
    }

    #[test]
    fn what_stays_in_a_pod_is_no_flow() {
        let mut trace = Trace::default();
        for (local, peer) in [
            ("10.0.0.1", "10.0.0.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "0.0.0.0"),
            // Not bound to an address.
            ("0.0.0.0", "192.0.2.1"),
            ("::", "::ffff:192.0.2.2"),
        ] {
            trace.take(event("web", local, json!({"address": peer, "port": 53})));
        }
        assert_eq!(peers(&trace, "web"), ["192.0.2.1", "192.0.2.2"]);
        assert!(trace.pods.values().all(|pod| pod.addresses.is_empty()));
    }

    #[test]
    fn addresses_get_the_names_that_were_learned_later() {
        let mut trace = Trace::default();
        let mut calls =
            |pod, local, address: &str| trace.take(event(pod, local, json!({"address": address, "port": 80})));
        // Another pod's own, one that is told later, one that two pods had, and nobody's.
        for address in ["10.0.0.2", "10.0.0.3", "10.0.0.4", "192.0.2.1"] {
            calls("web", "10.0.0.1", address);
        }
        calls("db", "10.0.0.2", "192.0.2.1");
        calls("job-1", "10.0.0.4", "192.0.2.1");
        calls("job-2", "10.0.0.4", "192.0.2.1");
        assert_eq!(peers(&trace, "web").len(), 4);
        let late = json!({"type": "peer", "address": "10.0.0.3", "kind": "pod", "namespace": "shop", "name": "late",
            "labels": {"app": "late"}});
        trace.learn(from_value(late).expect("a peer"));
        assert_eq!(peers(&trace, "web"), ["pod/shop/db", "pod/shop/late", "10.0.0.4", "192.0.2.1"]);
        assert_eq!(peers(&trace, "db"), ["192.0.2.1"]);
    }
}
