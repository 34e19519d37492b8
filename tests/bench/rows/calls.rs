//! What the gadgets for single calls cost those who make them: watched, or not.

use anyhow::Result;
use tests::Addresses;

use super::Limit::AtMost;
use super::{Goal, Row};
use crate::load::Load;
use crate::stage::Stage;
use crate::table::Table;
use crate::tools::classic::Kind;
use crate::tools::{Classic, Ours, Place, Running, Tool};

const CALL: &str = "a call";
const ADDED: &str = "added";
const RATIO: &str = "ratio";

const BINDS: [&str; 3] =
    ["socket+bind+close, nobody watches", "bindsnoop watches another pod", "bindsnoop watches this pod"];
const CONNECTS: [&str; 3] =
    ["connect+accept+close, nobody watches", "tcptracer watches another pod", "tcptracer watches this pod"];
const DATAGRAMS: [&str; 3] =
    ["a datagram sent and taken, nobody watches", "flows watches another pod", "flows watches this pod"];
const CHECKS: [&str; 3] =
    ["settimeofday, nobody watches", "capabilities watches another pod", "capabilities watches this pod"];
const CALLS: [&str; 3] = ["getppid, nobody watches", "syscalls watches another pod", "syscalls watches this pod"];
const RECORDED: [&str; 3] = ["getppid, nobody records", "traceloop records another pod", "traceloop records this pod"];
const STACKS: &str = "capabilities --stack watches this pod";
const PERF_BUFFERS: &str = "perf buffers record this pod";

/// The costs of bindsnoop, tcptracer, flows, capabilities, syscalls and traceloop.
pub(super) static ROW: Row = Row {
    name: "calls",
    title: "bindsnoop, tcptracer, flows, capabilities, syscalls and traceloop",
    about: "One process binds sockets of UDP; makes connections to itself and takes and closes them, four rows each; sends datagrams to itself and takes them, all of one flow; makes a system call that checks a capability and does nothing else, and one that does nothing at all. Each without a tool, while the gadget watches \
            another cgroup, and while it watches this process and prints to a file as JSON. Beside traceloop a recorder as they usually are, \
            written for this comparison: where a call begins and where it ends, into perf buffers that are written over, without what arguments point to. Times are those that the process \
            itself ran; added and ratio are to the same round without a tool.",
    measure,
    plot: RATIO,
    goals: &[
        Goal::new("unwatched, a bind at most 1.20 x of that without", AtMost(1.2), |table| {
            table.median(BINDS[1], RATIO)
        }),
        Goal::new("a connection at most 1.20 x", AtMost(1.2), |table| table.median(CONNECTS[1], RATIO)),
        Goal::new("a datagram at most 1.20 x", AtMost(1.2), |table| table.median(DATAGRAMS[1], RATIO)),
        Goal::new("a system call at most 110 ns more beside traceloop", AtMost(110.), |table| {
            table.median(RECORDED[1], ADDED)
        }),
        Goal::new("watched, a bind at most 1.40 x", AtMost(1.4), |table| table.median(BINDS[2], RATIO)),
        Goal::new("a connection at most 1.40 x", AtMost(1.4), |table| table.median(CONNECTS[2], RATIO)),
        Goal::new("a system call at most 250 ns more", AtMost(250.), |table| table.median(RECORDED[2], ADDED)),
        Goal::new("and at most 1/3 of what perf buffers add", AtMost(1. / 3.), |table| {
            Some(table.median(RECORDED[2], ADDED)? / table.median(PERF_BUFFERS, ADDED)?)
        }),
        Goal::new("a datagram at most 1.40 x", AtMost(1.4), |table| table.median(DATAGRAMS[2], RATIO)),
    ],
    note: "The calls that check, and that do nothing, do so little that their ratios say nothing: what is added is the price of \
           a check, and of any system call beside syscalls. A datagram passes two programs, from 6.18 on three: who sends it, who \
           takes it, who frees it. Next: read the socket and the datagram as what they are, without a call for each member. Of what traceloop \
           adds, 86 ns are the tracepoint's own: an empty program costs as much.",
};

fn measure(stage: &Stage) -> Result<Table> {
    let mut table = Table::new(&[(CALL, "ns"), (ADDED, "ns"), (RATIO, "x")]);
    let _addresses = Addresses::add();
    let loads = [
        (Load::binds(stage.events(100_000)), "bindsnoop", BINDS),
        (Load::connects(stage.events(20_000)), "tcptracer", CONNECTS),
        (Load::datagrams(stage.events(200_000)), "flows", DATAGRAMS),
        (Load::checks(stage.events(500_000)), "capabilities", CHECKS),
        (Load::syscalls(stage.events(2_000_000)), "syscalls", CALLS),
        (Load::syscalls(stage.events(2_000_000)), "traceloop", RECORDED),
    ];
    for _ in 0..stage.rounds {
        for (load, gadget, [alone, elsewhere, here]) in &loads {
            let baseline = load.run(&stage.watched)?.cost();
            table.push(alone, CALL, baseline);
            // Little to print in the end: what is measured is how it records.
            let options: &[&str] = if *gadget == "traceloop" { &["--buffer", "1MiB"] } else { &[] };
            let watching = |cgroup| Ours::json(gadget, cgroup).with(options);
            let mut tools: Vec<(&str, Box<dyn Tool>)> =
                vec![(elsewhere, Box::new(watching(&stage.other))), (here, Box::new(watching(&stage.watched)))];
            match *gadget {
                "capabilities" => tools.push((STACKS, Box::new(watching(&stage.watched).with(&["--stack"])))),
                "traceloop" => tools.push((PERF_BUFFERS, Box::new(Classic::watching(Kind::Calls)?))),
                _ => (),
            }
            for (line, tool) in tools {
                let mut running = Running::start(&*tool, stage, Place::File)?;
                let ns = load.run(&stage.watched)?.cost();
                running.settle(0)?;
                running.stop()?;
                table.push(line, CALL, ns);
                table.push(line, ADDED, ns - baseline);
                table.push(line, RATIO, ns / baseline);
            }
        }
    }
    Ok(table)
}
