//! The sums of a run, and how they are said at its end.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use gadgets::wire::{Loss, Stage};

/// Kinds of loss that are told apart in the end, about.
const MAX_LOSSES: usize = 1000;

/// Where events were lost, and whose they were, in the order of their way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LostFrom {
    pub(super) stage: Stage,
    pub(super) node: String,
    pub(super) namespace: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) reason: String,
}

/// The sums of a run.
#[derive(Default)]
pub(crate) struct Totals {
    /// Events printed.
    pub(crate) events: u64,
    /// Events lost.
    pub(crate) lost: u64,
    /// The same by where and whose.
    pub(super) losses: BTreeMap<LostFrom, u64>,
    pub(crate) gaps: u64,
    /// Names of nodes whose streams began.
    pub(super) nodes: Vec<String>,
    /// Which stream broke off and did not come back, and why.
    pub(crate) broken: Option<String>,
    /// Why something is missing that was not told as lost.
    pub(crate) incomplete: Option<String>,
    /// A check found something that would not be let through.
    pub(crate) is_refused: bool,
}

impl Totals {
    /// Whether all has come that was sent, but for what was told as lost.
    pub(super) fn complete(&self) -> bool {
        self.broken.is_none() && self.incomplete.is_none()
    }

    pub(super) fn count(&mut self, node: &str, loss: &Loss) {
        let Loss { stage, reason, namespace, pod, count, .. } = loss.clone();
        let mut from = LostFrom { stage, node: node.to_owned(), namespace, pod, reason };
        if self.losses.len() >= MAX_LOSSES && !self.losses.contains_key(&from) {
            from = LostFrom { namespace: None, pod: None, reason: "further reasons and pods".into(), ..from };
        }
        // An agent may say any number.
        self.lost = self.lost.saturating_add(count);
        let sum = self.losses.entry(from).or_default();
        *sum = sum.saturating_add(count);
    }
}

/// Lines of a summary that say where events were lost.
const LOSSES: usize = 10;

/// The sums, in words: a line, and one for each place where events were lost.
pub(super) fn summary(totals: &Totals) -> Vec<String> {
    let mut at: BTreeMap<Stage, u64> = BTreeMap::new();
    for (from, count) in &totals.losses {
        let sum = at.entry(from.stage).or_default();
        *sum = sum.saturating_add(*count);
    }
    let lost: Vec<String> = at.iter().map(|(stage, count)| format!("{count} in the {stage}")).collect();
    let lost =
        if lost.is_empty() { "none lost".to_owned() } else { format!("{} lost: {}", totals.lost, lost.join(", ")) };
    let gaps = match totals.gaps {
        0 => String::new(),
        1 => ", 1 gap".to_owned(),
        gaps => format!(", {gaps} gaps"),
    };
    let nodes = match totals.nodes.len() {
        0 | 1 => String::new(),
        nodes => format!(" of {nodes} nodes"),
    };
    let mut lines = vec![format!("{} events{nodes}, {lost}{gaps}", totals.events)];
    let mut losses: Vec<_> = totals.losses.iter().collect();
    losses.sort_by_key(|(_, count)| Reverse(**count));
    for (from, count) in losses.iter().take(LOSSES) {
        let LostFrom { stage, node, reason, .. } = from;
        let whose = whose(&from.namespace, &from.pod);
        lines.push(format!("  {count}{whose} on {node}, in the {stage}: {reason}"));
    }
    if losses.len() > LOSSES {
        lines.push(format!("  and from {} more: see -o json", losses.len() - LOSSES));
    }
    lines
}

/// A pod, in words behind a number.
pub(super) fn whose(namespace: &Option<String>, pod: &Option<String>) -> String {
    match (namespace, pod) {
        (Some(namespace), Some(pod)) => format!(" of {namespace}/{pod}"),
        (None, Some(pod)) => format!(" of {pod}"),
        _ => String::new(),
    }
}
