//! What opens cost while a tool watches: somebody else, or the one that opens.

use anyhow::Result;

use super::Limit::AtMost;
use super::{Goal, Row};
use crate::load::Load;
use crate::stage::Stage;
use crate::table::Table;
use crate::tools::classic::Kind;
use crate::tools::{Classic, Ours, Place, Running, Tool};

const NOBODY: &str = "nobody watches";
const OURS: &str = "kubectl gadget opensnoop";
const CLASSIC: &str = "classic";

const OPEN: [&str; 3] = ["open+close", "open+close added", "open+close ratio"];
const FAILING: [&str; 3] = ["failing open", "failing open added", "failing open ratio"];
const SYSCALL: [&str; 3] = ["getppid", "getppid added", "getppid ratio"];

/// Somebody else is watched.
pub(super) static UNWATCHED: Row = Row {
    name: "unwatched",
    title: "opensnoop watching another pod",
    about: "One process opens and closes a file, tries to open one that does not exist, and calls getppid(2), while \
            opensnoop watches another cgroup. Beside it a *classic* tool that was written for this comparison: programs \
            at the beginning and the end of the call, the mount namespace as the filter. Times are those that the process \
            itself ran; added and ratio are to the same round without a tool.",
    measure: unwatched,
    plot: OPEN[2],
    goals: &[
        Goal::new("open+close at most 1.20 x of that without a tool", AtMost(1.20), |table| {
            table.median(OURS, OPEN[2])
        }),
        Goal::new("its added cost at most 1/2 of the classic tool's", AtMost(0.5), |table| {
            Some(table.median(OURS, OPEN[1])? / table.median(CLASSIC, OPEN[1])?)
        }),
        Goal::new("another system call at most 1.4 x", AtMost(1.4), |table| table.median(OURS, SYSCALL[2])),
    ],
    note: "",
};

/// The one that opens is watched.
pub(super) static WATCHED: Row = Row {
    name: "watched",
    title: "opensnoop watching this pod",
    about: "The same, while the process that opens is watched and every event is printed to a file (ours as JSON). The \
            classic tool watches the bench's mount namespace, those of others the whole host. A tool that drops events \
            pays less for them: see side by side.",
    measure: watched,
    plot: OPEN[2],
    goals: &[
        Goal::new("open+close at most 1.40 x of that without a tool", AtMost(1.40), |table| {
            table.median(OURS, OPEN[2])
        }),
        Goal::new("its added cost at most 1/4 of that of libbpf-tools 0.26", AtMost(0.25), |table| {
            Some(table.median(OURS, OPEN[1])? / table.median("libbpf-tools 0.26", OPEN[1])?)
        }),
        Goal::new("and below that of bpftrace", AtMost(1.0), |table| {
            Some(table.median(OURS, OPEN[1])? / table.median("bpftrace", OPEN[1])?)
        }),
    ],
    note: "Near 1.40, on either side of it from run to run. By perf, of the time of a traced open: the program itself 6%, the \
           tracepoint's way to it 5%, look-ups 4%, clocks 3%, the ring 2%. Next: the record built in the ring (5.19 has a call for that).",
};

fn unwatched(stage: &Stage) -> Result<Table> {
    // Differences are small, and turns short.
    measure(stage, stage.rounds * 3, &[&Classic::elsewhere(Kind::Opens), &Ours::json("opensnoop", &stage.other)])
}

fn watched(stage: &Stage) -> Result<Table> {
    let (classic, ours) = (Classic::watching(Kind::Opens)?, Ours::json("opensnoop", &stage.watched));
    let mut tools: Vec<&dyn Tool> = vec![&classic, &ours];
    tools.extend(stage.rivals.of_opens());
    measure(stage, stage.rounds, &tools)
}

fn measure(stage: &Stage, rounds: usize, tools: &[&dyn Tool]) -> Result<Table> {
    let columns =
        [OPEN, FAILING, SYSCALL].map(|[absolute, added, ratio]| [(absolute, "ns"), (added, "ns"), (ratio, "")]);
    let mut table = Table::new(columns.as_flattened());
    let loads = [
        (OPEN, Load::opens(&stage.folder, stage.events(200_000))?),
        (FAILING, Load::failing_opens(stage.events(200_000))),
        (SYSCALL, Load::syscalls(stage.events(2_000_000))),
    ];
    for _ in 0..rounds {
        let run = |load: &Load| Ok(load.run(&stage.watched)?.cost());
        let baseline: Vec<f64> = loads.iter().map(|(_, load)| run(load)).collect::<Result<_>>()?;
        loads.iter().zip(&baseline).for_each(|(([column, ..], _), ns)| table.push(NOBODY, column, *ns));
        for tool in tools {
            let mut running = Running::start(*tool, stage, Place::File)?;
            for (([absolute, added, ratio], load), baseline) in loads.iter().zip(&baseline) {
                let ns = run(load)?;
                running.settle(0)?;
                table.push(&tool.name(), absolute, ns);
                table.push(&tool.name(), added, ns - baseline);
                table.push(&tool.name(), ratio, ns / baseline);
            }
            running.stop()?;
        }
    }
    Ok(table)
}
