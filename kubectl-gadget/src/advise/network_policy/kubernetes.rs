//! Policies as `networking.k8s.io/v1` has them.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::evaluate::NAMESPACE_NAME;
use super::flow::{Direction, Labels};
use super::manifest;
use super::proposal::{Allowances, Policy, Port, Selection, rules};
use crate::peers::TargetPort;

/// Whom rules can select.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Peer<'a> {
    Pods { namespace: Option<&'a str>, labels: &'a Labels },
    Block(IpNet),
}

/// A policy as an object of the API.
pub(super) fn object(policy: &Policy) -> NetworkPolicy {
    let namespace = &policy.workload.namespace;
    let rules = |direction| policy.directions.get(&direction).map(|allowed| rules_of(namespace, allowed));
    let ingress = rules(Direction::Ingress).unwrap_or_default().into_iter();
    let egress = rules(Direction::Egress).unwrap_or_default().into_iter();
    let ingress: Vec<_> =
        ingress.map(|(from, ports)| NetworkPolicyIngressRule { from: Some(from), ports: Some(ports) }).collect();
    let egress: Vec<_> =
        egress.map(|(to, ports)| NetworkPolicyEgressRule { to: Some(to), ports: Some(ports) }).collect();
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(policy.name.clone()),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(&policy.workload.labels)),
            policy_types: Some(policy.directions.keys().map(|direction| direction.policy_type().to_owned()).collect()),
            ingress: (!ingress.is_empty()).then_some(ingress),
            egress: (!egress.is_empty()).then_some(egress),
        }),
    }
}

/// As manifests, each with a comment above it.
///
/// # Errors
/// None that is known.
pub(super) fn yaml(policies: &[Policy]) -> anyhow::Result<String> {
    manifest::yaml(policies, object)
}

/// As one `NetworkPolicyList`.
///
/// # Errors
/// None that is known.
pub(super) fn json(policies: &[Policy]) -> anyhow::Result<String> {
    let items: Vec<NetworkPolicy> = policies.iter().map(object).collect();
    let list = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList", "items": items});
    Ok(format!("{}\n", serde_json::to_string_pretty(&list)?))
}

/// Reads manifests of NetworkPolicies: documents of YAML or JSON, or lists as `kubectl get` writes them.
///
/// # Errors
/// If it is neither, or something else is among them: it would not be looked at.
pub(crate) fn read(manifests: &str) -> anyhow::Result<Vec<NetworkPolicy>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).context("this is no YAML")?;
    let mut policies = Vec::new();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        match document["items"].as_array() {
            Some(items) => policies.extend(items.iter().map(policy).collect::<anyhow::Result<Vec<_>>>()?),
            None => policies.push(policy(&document)?),
        }
    }
    Ok(policies)
}

fn policy(object: &Value) -> anyhow::Result<NetworkPolicy> {
    let kind = object["kind"].as_str().unwrap_or_default();
    if kind != "NetworkPolicy" {
        bail!("only NetworkPolicies can be checked, and this is of kind {kind:?}");
    }
    // Items of a list need not say what they are.
    serde_json::from_value(object.clone()).context("this is no NetworkPolicy")
}

fn rules_of(home: &str, allowances: &Allowances) -> Vec<(Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)> {
    let allowed = allowances.iter().filter_map(|(selection, ports)| {
        let peer = match selection {
            Selection::Pods { namespace, labels } => {
                Peer::Pods { namespace: (namespace != home).then_some(namespace.as_str()), labels }
            }
            Selection::Block { net, .. } => Peer::Block(*net),
            Selection::OwnNode => return None,
        };
        Some((peer, ports.clone()))
    });
    let rule = |(ports, peers): (BTreeSet<Port>, BTreeSet<Peer<'_>>)| {
        (peers.iter().map(Peer::object).collect(), ports.iter().map(port).collect())
    };
    rules(allowed).into_iter().map(rule).collect()
}

impl Peer<'_> {
    fn object(&self) -> NetworkPolicyPeer {
        match self {
            Self::Pods { namespace, labels } => NetworkPolicyPeer {
                namespace_selector: namespace
                    .map(|name| selector(&[(NAMESPACE_NAME.to_owned(), name.to_owned())].into())),
                pod_selector: Some(selector(labels)),
                ip_block: None,
            },
            Self::Block(net) => NetworkPolicyPeer {
                ip_block: Some(IPBlock { cidr: net.to_string(), except: None }),
                ..NetworkPolicyPeer::default()
            },
        }
    }
}

fn selector(labels: &Labels) -> LabelSelector {
    LabelSelector { match_labels: Some(labels.clone()), match_expressions: None }
}

fn port(port: &Port) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(port.protocol.name().to_owned()),
        port: Some(match &port.port {
            TargetPort::Number(number) => IntOrString::Int((*number).into()),
            TargetPort::Name(name) => IntOrString::String(name.clone()),
        }),
        end_port: None,
    }
}
