//! What is known of whoever has an address, as it stands in JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Peer {
    Pod { namespace: String, name: String },
    Svc { namespace: String, name: String },
    Node { name: String },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "pod/{namespace}/{name}"),
            Self::Svc { namespace, name } => write!(f, "svc/{namespace}/{name}"),
            Self::Node { name } => write!(f, "node/{name}"),
        }
    }
}

/// By what a NetworkPolicy can select it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Traits {
    /// What a pod belongs to, `kind/name`, as far as the pod itself tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// Labels of a pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    /// Labels of the pods behind a service; none if somebody else says what is behind it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) selector: BTreeMap<String, String>,
    /// Ports of a service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<ServicePort>,
    /// Addresses behind a service without a selector.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) endpoints: Vec<IpAddr>,
}

/// A port of a service, and the port behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServicePort {
    /// As in `TCP`.
    pub(crate) protocol: String,
    pub(crate) port: u16,
    pub(crate) target: TargetPort,
}

/// A port of a pod, by number or by its name in the pod's manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum TargetPort {
    Number(u16),
    Name(String),
}

/// Somebody, and their traits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    #[serde(flatten)]
    pub(crate) peer: Peer,
    #[serde(flatten)]
    pub(crate) traits: Traits,
}

impl From<Peer> for Identity {
    fn from(peer: Peer) -> Self {
        Self { peer, traits: Traits::default() }
    }
}
