//! What is lost when much happens, and whether it is told.

use anyhow::{Context as _, Result};
use std::time::Instant;

use super::Limit::{AtLeast, AtMost};
use super::drain::fill;
use super::{Goal, Row};
use crate::load::Load;
use crate::stage::Stage;
use crate::table::Table;
use crate::tools::{Ours, Place, Running};

const RATE: &str = "events a second";
const PRINTED: &str = "printed";
const LOST: &str = "told lost";
const MISSING: &str = "neither";
const TOLD: &str = "told after";

/// Programs a second, and for how many seconds.
const EXECS: (u64, u64) = (8192, 20);
/// Rounds of those: they take long.
const ROUNDS_OF_EXECS: usize = 2;
const STARTED: &str = "execsnoop, programs that start";
const FAILING: &str = "execsnoop, programs that do not exist";

/// As fast as can be.
pub(super) static LOSS: Row = Row {
    name: "loss",
    title: "Loss under load",
    about: "400,000 opens as fast as one process can; and for 20 s 8,192 execs a second: of a program that ends at once, or as \
            many of these as one process can start here, and of one that does not exist. The ring has its usual size; \
            execsnoop prints JSON to a file.",
    measure: loss,
    plot: LOST,
    goals: &[
        Goal::new("no open is lost", AtMost(0.0), |table| table.worst("opensnoop", LOST)),
        Goal::new("no exec is lost", AtMost(0.0), |table| table.worst("execsnoop", LOST)),
        Goal::new("at 8,192 of them a second", AtLeast(8192.0 * 0.99), |table| table.median(FAILING, RATE)),
        Goal::everywhere("printed and told lost make generated", AtMost(0.0), |table| table.worst("", MISSING)),
    ],
    note: "",
};

/// More than can be.
pub(super) static ACCOUNTING: Row = Row {
    name: "accounting",
    title: "Accounting under forced overload",
    about: "200,000 failing opens with a ring of 64 KiB: with the agent stopped (SIGSTOP) meanwhile, and running. Told is the \
            time from when the agent goes on, or the last event, to the first word of the loss.",
    measure: accounting,
    plot: LOST,
    goals: &[
        Goal::everywhere("printed and told lost make generated", AtMost(0.0), |table| table.worst("", MISSING)),
        Goal::everywhere("something was lost", AtLeast(1.0), |table| table.median("agent stopped", LOST)),
        Goal::new("told within 1 s", AtMost(1000.0), |table| table.worst("agent stopped", TOLD)),
    ],
    note: "",
};

fn push(table: &mut Table, line: &str, generated: u64, [seen, lost]: [u64; 2]) {
    table.push(line, PRINTED, seen as f64);
    table.push(line, LOST, lost as f64);
    table.push(line, MISSING, (generated as f64 - (seen + lost) as f64).abs());
}

fn loss(stage: &Stage) -> Result<Table> {
    let mut table = Table::new(&[(RATE, ""), (PRINTED, ""), (LOST, ""), (MISSING, "")]);
    let opens = Load::opens(&stage.folder, stage.events(400_000))?;
    let (rate, seconds) = EXECS;
    let seconds = if stage.quick { 1 } else { seconds };
    let (starting, failing) = (Load::execs(rate, seconds), Load::failing_execs(rate, seconds));
    let (at_terminal, json) = (Ours::table("opensnoop", &stage.watched), Ours::json("opensnoop", &stage.watched));
    let programs = Ours::json("execsnoop", &stage.watched);
    for round in 0..stage.rounds {
        for (name, load, tool, place) in [
            ("opensnoop, table to a terminal", &opens, &at_terminal, Place::Terminal),
            ("opensnoop, JSON to a file", &opens, &json, Place::File),
            (STARTED, &starting, &programs, Place::File),
            (FAILING, &failing, &programs, Place::File),
        ] {
            if name.starts_with("execsnoop") && round >= ROUNDS_OF_EXECS {
                continue;
            }
            // Started before, so that its own exec is none of the events.
            let mut generator = load.start(&stage.watched)?;
            let running = Running::start(tool, stage, place)?;
            let done = generator.run()?;
            let work = running.stop()?;
            table.push(name, RATE, done.rate());
            push(&mut table, name, done.count, [work.seen, work.lost]);
        }
    }
    Ok(table)
}

fn accounting(stage: &Stage) -> Result<Table> {
    let mut table = Table::new(&[(PRINTED, ""), (LOST, ""), (MISSING, ""), (TOLD, "ms")]);
    let load = Load::failing_opens(stage.events(200_000));
    let tool = Ours::json("opensnoop", &stage.watched).with(&["--buffer", "64KiB"]);
    for _ in 0..stage.rounds {
        let generator = load.start(&stage.watched)?;
        let mut running = Running::start(&tool, stage, Place::File)?;
        let agent = *running.children().first().context("the client has no agent")?;
        let frozen = fill(generator, agent)?;
        let began = Instant::now();
        drop(frozen);
        running.wait_for_told_loss()?;
        table.push("agent stopped", TOLD, began.elapsed().as_secs_f64() * 1e3);
        let work = running.stop()?;
        push(&mut table, "agent stopped", load.count, [work.seen, work.lost]);

        let running = Running::start(&tool, stage, Place::File)?;
        let done = load.run(&stage.watched)?;
        let work = running.stop()?;
        push(&mut table, "agent running", done.count, [work.seen, work.lost]);
    }
    Ok(table)
}
