//! Policies as files for `kubectl apply`, whatever objects they become.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use gadgets::format::escaped;
use ipnet::IpNet;
use serde::Serialize;

use super::proposal::{Policy, Selection, Whose};

/// How many names or addresses a comment lists.
const LISTED: usize = 8;

/// A document for each policy, with a comment above it.
///
/// # Errors
/// None that is known.
pub(super) fn yaml<T: Serialize>(policies: &[Policy], object: impl Fn(&Policy) -> T) -> anyhow::Result<String> {
    let mut documents = Vec::new();
    for policy in policies {
        // The serializer's block scalars lose line breaks, which only hostile names have.
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let document = serde_saphyr::to_string_with_options(&object(policy), options)?;
        documents.push(format!("{}{document}", comment(policy)));
    }
    Ok(documents.join("---\n"))
}

/// Lines above it: whose it is, and who has the addresses that are in it.
fn comment(policy: &Policy) -> String {
    let mut comment =
        format!("# {}; seen: {}\n", policy.workload, listed(policy.workload.pods.iter().map(|pod| escaped(pod))));
    let mut nets: BTreeMap<&Whose, BTreeSet<IpNet>> = BTreeMap::new();
    for selection in policy.directions.values().flat_map(BTreeMap::keys) {
        if let Selection::Block { net, whose } = selection {
            nets.entry(whose).or_default().insert(*net);
        }
    }
    for (whose, nets) in nets {
        // Writing to a String cannot fail.
        let _ = writeln!(comment, "# {}: {}", whose.in_words(), listed(nets.iter().map(ToString::to_string)));
    }
    comment
}

impl Whose {
    fn in_words(&self) -> String {
        match self {
            Self::Node(name) => format!("node {}", escaped(name)),
            Self::Service(name) => format!("svc {name}"),
            Self::Pod(name) => format!("pod {name}"),
            Self::World => "world".to_owned(),
        }
    }
}

fn listed(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    let rest = all.len().saturating_sub(LISTED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", all.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", "))
}
