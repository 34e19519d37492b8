//! Policies as `cilium.io/v2` has them.
//!
//! They differ in more than spelling: addresses of nodes and of the API server count as entities, whatever block they
//! are in, and what a pod sends to its own node has to be allowed.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::flow::{Direction, Labels, Name};
use super::manifest;
use super::proposal::{Allowances, Policy, Port, Selection, Whose, rules};
use crate::peers::TargetPort;

/// The label by which a selector leaves its own namespace.
const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";
/// How many ports a list of ports may have.
const PORTS: usize = 40;

/// Whom rules can select. A rule has only one kind of them.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Peer<'a> {
    Endpoints { namespace: Option<&'a str>, labels: &'a Labels },
    Entity(&'static str),
    Cidr(IpNet),
}

/// As manifests, each with a comment above it.
///
/// # Errors
/// None that is known.
pub(super) fn yaml(policies: &[Policy]) -> anyhow::Result<String> {
    manifest::yaml(policies, object)
}

/// What a person should know of this form.
pub(super) fn remarks(policies: &[Policy]) -> BTreeSet<String> {
    let selections = policies.iter().flat_map(|policy| policy.directions.values().flat_map(BTreeMap::keys));
    let unreachable = selections.filter_map(|selection| match selection {
        Selection::Block { whose: Whose::Pod(pod), .. } => {
            Some(format!("Cilium does not find pods by their addresses: no rule that it would follow allows pod/{pod}"))
        }
        _ => None,
    });
    unreachable.collect()
}

fn object(policy: &Policy) -> Value {
    let mut spec = Map::new();
    spec.insert("endpointSelector".to_owned(), json!({"matchLabels": policy.workload.labels}));
    for (direction, allowances) in &policy.directions {
        let mut rules = rules_of(*direction, &policy.workload.namespace, allowances);
        if rules.is_empty() {
            // Without any rule the direction would not be isolated. This one allows nobody.
            rules.push(json!({}));
        }
        spec.insert(direction.policy_type().to_lowercase(), Value::Array(rules));
    }
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": policy.name, "namespace": policy.workload.namespace},
        "spec": spec,
    })
}

fn rules_of(direction: Direction, home: &str, allowances: &Allowances) -> Vec<Value> {
    let allowed = allowances.iter().map(|(selection, ports)| {
        let peer = match selection {
            Selection::Pods { namespace, labels } => {
                Peer::Endpoints { namespace: (namespace != home).then_some(namespace.as_str()), labels }
            }
            Selection::OwnNode => Peer::Entity("host"),
            Selection::Block { whose: Whose::Node(_), .. } => Peer::Entity("remote-node"),
            Selection::Block { whose: Whose::Service(name), .. } if is_api_server(name) => {
                Peer::Entity("kube-apiserver")
            }
            Selection::Block { net, .. } => Peer::Cidr(*net),
        };
        (peer, ports.clone())
    });
    let mut found = Vec::new();
    for (ports, peers) in rules(allowed) {
        let mut by_kind: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for peer in peers {
            let (kind, value) = peer.value();
            by_kind.entry(kind).or_default().push(value);
        }
        let way = if direction == Direction::Egress { "to" } else { "from" };
        for (kind, values) in by_kind {
            found.push(json!({format!("{way}{kind}"): values, "toPorts": to_ports(&ports)}));
        }
    }
    found
}

fn is_api_server(service: &Name) -> bool {
    service.namespace == "default" && service.name == "kubernetes"
}

fn to_ports(ports: &BTreeSet<Port>) -> Vec<Value> {
    let ports: Vec<Value> = ports
        .iter()
        .map(|Port { protocol, port }| {
            let port = match port {
                TargetPort::Number(number) => number.to_string(),
                TargetPort::Name(name) => name.clone(),
            };
            json!({"port": port, "protocol": protocol.name()})
        })
        .collect();
    ports.chunks(PORTS).map(|ports| json!({"ports": ports})).collect()
}

impl Peer<'_> {
    fn value(self) -> (&'static str, Value) {
        match self {
            Self::Endpoints { namespace, labels } => {
                let mut labels = labels.clone();
                labels.extend(namespace.map(|name| (NAMESPACE.to_owned(), name.to_owned())));
                ("Endpoints", json!({"matchLabels": labels}))
            }
            Self::Entity(name) => ("Entities", json!(name)),
            Self::Cidr(net) => ("CIDR", json!(net.to_string())),
        }
    }
}
