//! All tools side by side, as fast as one process can open files.

use anyhow::Result;

use super::Limit::{AtLeast, AtMost};
use super::{Goal, Row};
use crate::load::Load;
use crate::stage::Stage;
use crate::table::Table;
use crate::tools::classic::Kind;
use crate::tools::{Classic, Ours, Place, Running, Tool};

const OURS: &str = "kubectl gadget opensnoop";

const SLOWDOWN: &str = "slowdown";
const MISSING: &str = "missing";
const LOST: &str = "told lost";
const UNTOLD: &str = "not told";
const CPU: &str = "CPU for 100 k events";
const MEMORY: &str = "peak memory";
const FIRST: &str = "attached after";

/// Every tool in the same place.
pub(super) static ROW: Row = Row {
    name: "side-by-side",
    title: "Side by side",
    about: "One process opens and closes a file 200,000 times, or 400,000 times, as fast as it can, while the tool prints \
            to a terminal or to a file. Slowdown is by the clock, to the same round without a tool; missing are events \
            that were not printed, told lost those that the tool says to have lost; CPU and memory are those of all its \
            processes; attached is when it shows a first event or says that it sees all.",
    measure,
    plot: MISSING,
    goals: &[
        Goal::new("slowdown at a terminal less than that of libbpf-tools 0.26", AtLeast(1.0), |table| {
            let rival = table.median("libbpf-tools 0.26: 200 k, terminal", SLOWDOWN)?;
            Some(rival / table.median(&format!("{OURS}: 200 k, terminal"), SLOWDOWN)?)
        }),
        Goal::new("nothing missing", AtMost(0.0), |table| table.worst(OURS, MISSING)),
        Goal::everywhere("what is missing is told", AtMost(0.0), |table| table.worst(OURS, UNTOLD)),
        Goal::everywhere("and by the classic tool, too: the bench counts right", AtMost(0.0), |table| {
            table.worst("classic", UNTOLD)
        }),
    ],
    note: "",
};

fn measure(stage: &Stage) -> Result<Table> {
    let columns = [(SLOWDOWN, "x"), (MISSING, ""), (LOST, ""), (UNTOLD, ""), (CPU, "s"), (MEMORY, "MB"), (FIRST, "ms")];
    let mut table = Table::new(&columns);
    let (classic, table_of_ours) = (Classic::watching(Kind::Opens)?, Ours::table("opensnoop", &stage.watched));
    let json = Ours::json("opensnoop", &stage.watched);
    for _ in 0..stage.rounds {
        for (thousands, place) in [(200, Place::Terminal), (200, Place::File), (400, Place::Terminal)] {
            let load = Load::opens(&stage.folder, stage.events(thousands * 1000))?;
            let baseline = load.run(&stage.watched)?.each();
            // As people have them: a table at a terminal, lines of JSON in a file.
            let ours = if place == Place::File { &json } else { &table_of_ours };
            let tools = [ours as &dyn Tool, &classic].into_iter().chain(stage.rivals.of_opens());
            for tool in tools {
                let line = format!("{}: {thousands} k, {}", tool.name(), place.name());
                let mut running = Running::start(tool, stage, place)?;
                let done = load.run(&stage.watched)?;
                running.settle(load.count)?;
                let work = running.stop()?;
                let missing = load.count as f64 - work.seen as f64;
                table.push(&line, SLOWDOWN, done.each() / baseline);
                table.push(&line, MISSING, missing);
                table.push(&line, LOST, work.lost as f64);
                table.push(&line, UNTOLD, (missing - work.lost as f64).max(0.0));
                table.push(&line, CPU, work.cpu.as_secs_f64() / (load.count as f64 / 100_000.0));
                table.push(&line, MEMORY, work.peak as f64 / 1e6);
                table.push(&line, FIRST, work.first.as_secs_f64() * 1e3);
            }
        }
    }
    // By tool, not by turn.
    table.lines.sort_by_key(|line| line.name.split(':').next().map(str::to_owned));
    Ok(table)
}
