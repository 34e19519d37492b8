//! Label selectors of API objects, and ipBlocks, where not everything is known of what they may select.

use std::net::IpAddr;
use std::str::FromStr as _;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::IPBlock;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use thiserror::Error;

use super::flow::Labels;

/// Whether something is so, or why it cannot be told.
pub(super) type Truth = Result<bool, Doubt>;

/// Why it cannot be told.
#[derive(Clone, Debug, Error, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    #[error("the number of port {0:?} is not known")]
    NamedPort(String),
    #[error("it depends on label {0:?}, which is not known")]
    Label(String),
    #[error("the addresses behind the service are not known")]
    Address,
    #[error("it is allowed to some of those behind the service only")]
    Backends,
    #[error("only the service's own address is allowed, which not every network plugin looks at")]
    Translation,
}

/// True if one is: the others do not matter then.
pub(super) fn any(truths: impl IntoIterator<Item = Truth>) -> Truth {
    settle(truths, true)
}

/// False if one is.
pub(super) fn all(truths: impl IntoIterator<Item = Truth>) -> Truth {
    settle(truths, false)
}

fn settle(truths: impl IntoIterator<Item = Truth>, decisive: bool) -> Truth {
    let mut outcome = Ok(!decisive);
    for truth in truths {
        if truth == Ok(decisive) {
            return truth;
        }
        if outcome.is_ok() && truth.is_err() {
            outcome = truth;
        }
    }
    outcome
}

/// What is known of labels.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<'a> {
    /// There are no others.
    Exactly(&'a Labels),
    /// There may be others.
    AtLeast(&'a Labels),
}

impl<'a> Known<'a> {
    /// The value of a label, if it is there.
    fn value(self, key: &str) -> Result<Option<&'a String>, Doubt> {
        match self {
            Self::Exactly(labels) => Ok(labels.get(key)),
            Self::AtLeast(labels) => labels.get(key).map(Some).ok_or_else(|| Doubt::Label(key.to_owned())),
        }
    }
}

/// Whether a selector selects what has these labels; an empty one selects all.
pub(super) fn selects(selector: &LabelSelector, known: Known<'_>) -> Truth {
    let equal = selector.match_labels.iter().flatten().map(|(key, wanted)| Ok(known.value(key)? == Some(wanted)));
    all(equal.chain(selector.match_expressions.iter().flatten().map(|requirement| meets(requirement, known))))
}

fn meets(requirement: &LabelSelectorRequirement, known: Known<'_>) -> Truth {
    let value = known.value(&requirement.key)?;
    let is_listed = value.is_some_and(|value| requirement.values.iter().flatten().any(|listed| listed == value));
    match requirement.operator.as_str() {
        "In" => Ok(is_listed),
        "NotIn" => Ok(!is_listed),
        "Exists" => Ok(value.is_some()),
        "DoesNotExist" => Ok(value.is_none()),
        // The API server refuses it.
        _ => Ok(false),
    }
}

/// Addresses of an ipBlock.
#[derive(Debug)]
pub(super) struct Block {
    net: IpNet,
    except: Vec<IpNet>,
}

impl Block {
    /// `None` if the API server would refuse it.
    pub(super) fn of(block: &IPBlock) -> Option<Self> {
        let except = block.except.iter().flatten().map(|net| IpNet::from_str(net));
        Some(Self { net: block.cidr.parse().ok()?, except: except.collect::<Result<_, _>>().ok()? })
    }

    /// Whether it has an address, or somebody whose address is not known.
    pub(super) fn has(&self, address: Option<IpAddr>) -> Truth {
        match address {
            Some(address) => Ok(self.net.contains(&address) && !self.except.iter().any(|net| net.contains(&address))),
            None if self.net.prefix_len() == 0 && self.except.is_empty() => Ok(true),
            None => Err(Doubt::Address),
        }
    }
}
