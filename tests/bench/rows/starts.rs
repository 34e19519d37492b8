//! How long a container takes to start and end, with somebody looking and without.

use std::time::Instant;

use anyhow::Result;
use tests::{Client, Pod};

use super::Limit::AtMost;
use super::{Goal, Row};
use crate::stage::Stage;
use crate::table::Table;

const TIME: &str = "a container";
const SEEN: &str = "first programs seen";

const NOBODY: &str = "nobody looks";
const BESIDE: &str = "execsnoop watches another pod";
const WATCHED: &str = "execsnoop watches its pod";

/// Nothing waits for the tool.
pub(super) static ROW: Row = Row {
    name: "starts",
    title: "Starting a container",
    about: "containerd runs a container of `true` to its end and removes it, ctr included, 20 times in each round: with no \
            gadget, with execsnoop watching another pod, and with execsnoop watching this one.",
    measure,
    plot: TIME,
    goals: &[
        Goal::new("beside a watched pod at most 1.05 x", AtMost(1.05), |table| {
            Some(table.median(BESIDE, TIME)? / table.median(NOBODY, TIME)?)
        }),
        Goal::new("watched at most 1.05 x", AtMost(1.05), |table| {
            Some(table.median(WATCHED, TIME)? / table.median(NOBODY, TIME)?)
        }),
        Goal::everywhere("every first program is seen", AtMost(0.0), |table| {
            Some((1.0 - table.median(WATCHED, SEEN)?).abs())
        }),
    ],
    note: "",
};

fn measure(stage: &Stage) -> Result<Table> {
    let mut table = Table::new(&[(TIME, "ms"), (SEEN, "")]);
    let pod = Pod::new("bench", "starts");
    let count = stage.events(20).max(2);
    for round in 0..stage.rounds {
        for (name, watched) in [(NOBODY, None), (BESIDE, Some("another")), (WATCHED, Some("starts"))] {
            let client = watched.map(|watched| Client::start(&["execsnoop", "-n", "bench", "-p", watched]));
            for number in 0..count {
                let began = Instant::now();
                pod.run_once(&format!("app-{round}-{number}"), &["/bin/true"]);
                table.push(name, TIME, began.elapsed().as_secs_f64() * 1e3);
            }
            if let Some(seen) = client.map(Client::stop) {
                table.push(name, SEEN, seen.events().len() as f64 / count as f64);
            }
        }
    }
    Ok(table)
}
