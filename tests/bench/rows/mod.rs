//! What is measured, each row a file: how, and which goals it is held to.
//!
//! A gadget that comes later brings its row: a file here, and an entry in [`ROWS`]. The measurement takes a tool after the
//! other in each round, so that a busy machine is fair to all.

mod agent;
mod beside;
mod calls;
mod cluster;
mod connections;
mod drain;
mod first_event;
mod loss;
mod opens;
mod profiles;
mod starts;
mod streams;

use anyhow::Result;

use crate::stage::Stage;
use crate::table::Table;

/// Those that need no more than this host, in the order of the page.
pub(crate) static ROWS: [&Row; 13] = [
    &opens::UNWATCHED,
    &opens::WATCHED,
    &beside::ROW,
    &loss::LOSS,
    &loss::ACCOUNTING,
    &drain::ROW,
    &first_event::ROW,
    &agent::ROW,
    &starts::ROW,
    &streams::ROW,
    &calls::ROW,
    &connections::ROW,
    &profiles::ROW,
    // To come: dns.
];

/// Those that need the cluster of the tests, and are measured if they are named.
static IN_CLUSTER: [&Row; 1] = [&cluster::ROW];

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(&IN_CLUSTER).copied()
}

/// One.
pub(crate) struct Row {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// What it is called on the page.
    pub(crate) title: &'static str,
    /// How it is measured.
    pub(crate) about: &'static str,
    /// Measures it.
    pub(crate) measure: fn(&Stage) -> Result<Table>,
    /// The column that the plot shows.
    pub(crate) plot: &'static str,
    /// What it is held to.
    pub(crate) goals: &'static [Goal],
    /// Of a goal that is missed, why and what comes next; written by people.
    pub(crate) note: &'static str,
}

impl Row {
    /// How to measure it again.
    pub(crate) fn command(&self) -> String {
        match IN_CLUSTER.iter().any(|row| row.name == self.name) {
            true => "make bench-cluster".into(),
            false => format!("make bench ROWS={}", self.name),
        }
    }
}

/// What a number of a row should be.
pub(crate) struct Goal {
    /// In words.
    pub(crate) text: &'static str,
    /// The number, if it was measured.
    pub(crate) value: fn(&Table) -> Option<f64>,
    /// Its limit.
    pub(crate) limit: Limit,
    /// Whether it is one of counts, which no machine is too slow for.
    pub(crate) holds_everywhere: bool,
}

/// The side of it that is good.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
}

impl Goal {
    /// One of time or size.
    pub(crate) const fn new(text: &'static str, limit: Limit, value: fn(&Table) -> Option<f64>) -> Self {
        Self { text, value, limit, holds_everywhere: false }
    }

    /// One of counts.
    pub(crate) const fn everywhere(text: &'static str, limit: Limit, value: fn(&Table) -> Option<f64>) -> Self {
        Self { text, value, limit, holds_everywhere: true }
    }

    /// Whether a number reaches it.
    pub(crate) fn is_reached(&self, value: f64) -> bool {
        match self.limit {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        }
    }
}
