//! What tcptop costs: those who send, and the agent.

use std::time::Duration;

use anyhow::Result;
use tests::Daemon;

use super::Limit::AtMost;
use super::{Goal, Row};
use crate::load::Load;
use crate::stage::Stage;
use crate::table::Table;
use crate::tools::{Ours, Place, Running};

const PING: &str = "a ping";
const RATIO: &str = "ratio";
const AGENT: &str = "agent's CPU";
const CLIENT: &str = "client's CPU";

const NOBODY: &str = "nobody watches";
const WATCHED: &str = "one connection";
const IDLE: &str = "10,000 sockets, idle";
const BUSY: &str = "10,000 sockets, each used once a second";

/// Connections of a process with itself: two sockets each.
const CONNECTIONS: u32 = 5000;
/// How long the agent's time is counted.
const SECONDS: u64 = 10;

/// The costs of tcptop.
pub(super) static ROW: Row = Row {
    name: "connections",
    title: "tcptop",
    about: "One process sends a byte over a connection to itself and takes it, as often as it can, without tcptop and while it \
            watches this process, every second. Then 5,000 such connections, idle and each used once a second, for 10 s: how \
            much of one processor the agent takes, and the client, which prints rows as JSON to a file.",
    measure,
    plot: AGENT,
    goals: &[
        Goal::new("nothing for each packet: a ping at most 1.03 x of that without", AtMost(1.03), |table| {
            table.median(WATCHED, RATIO)
        }),
        Goal::new("at 10,000 sockets at most 1% of a processor", AtMost(1.0), |table| table.median(IDLE, AGENT)),
        Goal::new("and the same where all of them are used", AtMost(1.0), |table| table.median(BUSY, AGENT)),
    ],
    note: "By the kernel's own account a run of the program takes 0.4 us over an idle connection and 1.0 us over one that was used, most \
           of it memory that no cache holds; the rest is the kernel's iterator, which looks for its place again after each 32 KiB. \
           Next: rows without what the client knows from the last one.",
};

fn measure(stage: &Stage) -> Result<Table> {
    let mut table = Table::new(&[(PING, "ns"), (RATIO, "x"), (AGENT, "%"), (CLIENT, "%")]);
    let daemon = Daemon::start("bench-connections");
    let cgroup = stage.tool_cgroup()?;
    cgroup.adopt(daemon.process.pid())?;
    let tcptop = Ours::json("tcptop", &stage.watched).with(&["--socket", daemon.socket()]);
    let (connections, seconds) = if stage.quick { (CONNECTIONS / 20, 1) } else { (CONNECTIONS, SECONDS) };
    for _ in 0..stage.rounds {
        let pings = Load::pings(1, stage.events(300_000));
        let alone = pings.run(&stage.watched)?.cost();
        let running = Running::start(&tcptop, stage, Place::File)?;
        let watched = pings.run(&stage.watched)?.cost();
        running.stop()?;
        table.push(NOBODY, PING, alone);
        table.push(WATCHED, PING, watched);
        table.push(WATCHED, RATIO, watched / alone);
        for line in [IDLE, BUSY] {
            let mut pings = Load::pings(connections, 0).paced(connections.into(), seconds).start(&stage.watched)?;
            let running = Running::start(&tcptop, stage, Place::File)?;
            let before = cgroup.cpu()?;
            if line == BUSY {
                pings.run()?;
            } else {
                std::thread::sleep(Duration::from_secs(seconds));
            }
            let percent = |cpu: Duration| cpu.as_secs_f64() / seconds as f64 * 100.0;
            table.push(line, AGENT, percent(cgroup.cpu()?.saturating_sub(before)));
            table.push(line, CLIENT, percent(running.stop()?.cpu));
        }
    }
    Ok(table)
}
