//! How fast what the kernel has gathered is read, handed on and printed.

use std::time::Instant;

use anyhow::{Context as _, Result};
use gadgets::spec::RING_BYTES_MAX;
use nix::unistd::Pid;
use tests::Frozen;

use super::Limit::{AtLeast, AtMost};
use super::{Goal, Row};
use crate::agent::{Own, run_of};
use crate::load::{Generator, Load};
use crate::stage::Stage;
use crate::table::Table;
use crate::tools::{Ours, Place, Running};

const COUNTED: &str = "agent, counted";
const JSON_FILE: &str = "JSON to a file";

const RATE: &str = "events a second";
const CPU: &str = "CPU for 100 k events";
const LOST: &str = "told lost";
const MISSING: &str = "missing";

/// A full ring.
pub(super) static ROW: Row = Row {
    name: "drain",
    title: "Draining a full ring",
    about: "The agent is stopped (SIGSTOP) while a million failing opens fill its ring of 256 MiB; then it goes on, is asked \
            to end, and the time until everything has come is taken. *Counted*: the bench takes the agent's frames and \
            counts their records. Otherwise the client prints. Rate and CPU are for events that came out at the end; CPU \
            is that of agent and client together.",
    measure,
    plot: RATE,
    goals: &[
        Goal::new("at least 2 M records/s counted", AtLeast(2e6), |table| table.median(COUNTED, RATE)),
        Goal::new("at least 1 M/s as JSON to a file", AtLeast(1e6), |table| table.median(JSON_FILE, RATE)),
        Goal::new("at most 0.10 CPU s for 100 k events as JSON to a file", AtMost(0.10), |table| {
            table.median(JSON_FILE, CPU)
        }),
        Goal::everywhere("printed and told lost make generated", AtMost(0.0), |table| table.worst("", MISSING)),
    ],
    note: "",
};

fn measure(stage: &Stage) -> Result<Table> {
    let mut table = Table::new(&[(RATE, ""), (CPU, "s"), (LOST, ""), (MISSING, "")]);
    let load = Load::failing_opens(stage.events(1_000_000));
    for _ in 0..stage.rounds {
        counted(stage, &load, &mut table)?;
        let ring = &["--buffer", "256MiB"];
        for (place, name) in [(Place::File, JSON_FILE), (Place::Pipe, "JSON to a pipe")] {
            printed(stage, &load, &Ours::json("opensnoop", &stage.watched).with(ring), place, name, &mut table)?;
        }
        let tool = Ours::table("opensnoop", &stage.watched).with(ring);
        printed(stage, &load, &tool, Place::Terminal, "table to a terminal", &mut table)?;
    }
    Ok(table)
}

fn push(table: &mut Table, line: &str, load: &Load, seconds: f64, cpu: f64, [seen, lost]: [u64; 2]) {
    table.push(line, RATE, seen as f64 / seconds);
    table.push(line, CPU, cpu / (seen as f64 / 100_000.0));
    table.push(line, LOST, lost as f64);
    table.push(line, MISSING, (load.count as f64 - (seen + lost) as f64).abs());
}

/// The client prints.
fn printed(stage: &Stage, load: &Load, tool: &Ours, place: Place, name: &str, table: &mut Table) -> Result<()> {
    // Started before, so that its own start is none of the events.
    let generator = load.start(&stage.watched)?;
    let running = Running::start(tool, stage, place)?;
    let agent = *running.children().first().context("the client has no agent")?;
    let frozen = fill(generator, agent)?;
    let began = Instant::now();
    drop(frozen);
    let work = running.stop()?;
    let seconds = began.elapsed().as_secs_f64();
    push(table, name, load, seconds, work.cpu.as_secs_f64(), [work.seen, work.lost]);
    Ok(())
}

/// Fills the ring of an agent, which stands until the result is dropped.
pub(super) fn fill(mut generator: Generator, agent: Pid) -> Result<Frozen> {
    let frozen = Frozen::new(agent);
    generator.run()?;
    Ok(frozen)
}

/// The bench is the client, and only counts.
fn counted(stage: &Stage, load: &Load, table: &mut Table) -> Result<()> {
    let generator = load.start(&stage.watched)?;
    let cgroup = stage.tool_cgroup()?;
    let mut agent = Own::start(Some(&cgroup), run_of("opensnoop", &stage.watched, Some(RING_BYTES_MAX)))?;
    let frozen = fill(generator, agent.process.pid())?;
    let (before, began) = (cgroup.cpu()?, Instant::now());
    drop(frozen);
    let (seen, trailer) = agent.watch.stop()?;
    let seconds = began.elapsed().as_secs_f64();
    // Nobody listens any more: the agent ends.
    drop(agent.watch);
    agent.process.wait();
    push(table, COUNTED, load, seconds, (cgroup.cpu()? - before).as_secs_f64(), [seen, trailer.lost]);
    Ok(())
}
