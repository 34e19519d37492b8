//! What an agent takes while it waits, and while gadgets run.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use gadgets::spec::RING_BYTES_DEFAULT;
use nix::unistd::Pid;
use tests::{Daemon, Loaded, dist};

use super::Limit::AtMost;
use super::{Goal, Row};
use crate::agent::status;
use crate::load::Load;
use crate::stage::Stage;
use crate::table::Table;
use crate::tools::{Ours, Place, Running};

const MEMORY: &str = "memory";
const ADDED: &str = "added by a gadget";
const THREADS: &str = "threads";
const WAKES: &str = "wake-ups a second";
const FILES: &str = "open files";
const OBJECTS: &str = "BPF objects";

const IDLE: &str = "daemon, idle";
const RUNNING: &str = "two gadgets, after 200 k events";
const ENDED: &str = "all ended";
const WORKED: &str = "after 10 M events and 1,000 containers";
const IMAGE: &str = "image, as a file";

/// How long wake-ups are counted.
const WATCHED_FOR: Duration = Duration::from_secs(10);
/// Bytes in a MB, as sizes of memory are told.
const MB: f64 = (1 << 20) as f64;

/// Memory, threads and wake-ups.
pub(super) static ROW: Row = Row {
    name: "agent",
    title: "The agent itself",
    about: "A daemon with no session; with opensnoop and execsnoop running, their ring used; when they have ended; and after \
            another opensnoop has passed on 10 M events while 1,000 containers came and went, and they are forgotten. Resident memory, threads, open \
            files, programs, maps and links of this kernel, and wake-ups (voluntary context switches of all threads, over \
            10 s). Measured once.",
    measure,
    plot: MEMORY,
    goals: &[
        Goal::new("idle, at most 15 MB resident", AtMost(15.0), |table| table.median(IDLE, MEMORY)),
        Goal::new("a running gadget adds at most 2 x its ring + 2 MB", AtMost(10.0), |table| {
            table.median(RUNNING, ADDED)
        }),
        Goal::new("flat: at most 2 MB more after 10 M events and 1,000 containers", AtMost(2.0), |table| {
            Some(table.median(WORKED, MEMORY)? - table.median(ENDED, MEMORY)?)
        }),
        Goal::everywhere("no open files more", AtMost(0.0), |table| {
            Some(table.median(WORKED, FILES)? - table.median(IDLE, FILES)?)
        }),
        Goal::everywhere("no programs, maps and links more", AtMost(0.0), |table| {
            Some(table.median(WORKED, OBJECTS)? - table.median(IDLE, OBJECTS)?)
        }),
        Goal::new("idle, at most 2 wake-ups a second", AtMost(2.0), |table| table.median(IDLE, WAKES)),
        Goal::new("the image at most 12 MB", AtMost(12.0), |table| table.median(IMAGE, MEMORY)),
    ],
    note: "",
};

fn measure(stage: &Stage) -> Result<Table> {
    let mut table =
        Table::new(&[(MEMORY, "MB"), (ADDED, "MB"), (THREADS, ""), (FILES, ""), (OBJECTS, ""), (WAKES, "")]);
    table.push(IMAGE, MEMORY, fs::metadata(dist("gadget-agent.oci.tar"))?.len() as f64 / MB);
    debug_assert_eq!(RING_BYTES_DEFAULT, 4 << 20, "what the goal says");

    let daemon = Daemon::start("bench");
    let cgroup = stage.tool_cgroup()?;
    cgroup.adopt(daemon.process.pid())?;
    let pid = daemon.process.pid();
    let containers = status(daemon.socket())?.containers;
    let idle = note(&mut table, IDLE, pid, stage.quick)?;
    let loaded = Loaded::now();
    let through = |gadget| Ours::json(gadget, &stage.watched).with(&["--socket", daemon.socket()]);
    let (opens, execs) = (through("opensnoop"), through("execsnoop"));
    let load = Load::failing_opens(stage.events(200_000));
    let mut first = Running::start(&opens, stage, Place::Pipe)?;
    let second = Running::start(&execs, stage, Place::Pipe)?;
    load.run(&stage.watched)?;
    first.settle(load.count)?;
    let running = note(&mut table, RUNNING, pid, stage.quick)?;
    table.push(RUNNING, ADDED, (running - idle) / 2.0);
    first.stop()?;
    second.stop()?;
    loaded.wait_for("with both gadgets ended");
    note(&mut table, ENDED, pid, stage.quick)?;

    let again = Running::start(&opens, stage, Place::Pipe)?;
    let mut much = Load::failing_opens(stage.events(10_000_000)).start(&stage.watched)?;
    std::thread::scope(|scope| {
        let generated = scope.spawn(|| much.run());
        for index in 0..stage.events(1000) {
            let pod = stage.root.child(&format!("pod00000000-0000-4000-8000-{index:012x}"))?;
            drop(pod.child(&format!("{index:064x}"))?);
        }
        generated.join().map_err(|_| anyhow!("the generator failed"))?
    })?;
    again.stop()?;
    loaded.wait_for("with the last gadget ended");
    if !stage.quick {
        tests::wait_for("the containers to be forgotten", || {
            status(daemon.socket()).is_ok_and(|status| status.containers <= containers)
        });
    }
    note(&mut table, WORKED, pid, stage.quick)?;
    Ok(table)
}

/// Notes how the agent is. Returns its memory.
fn note(table: &mut Table, line: &str, pid: Pid, quick: bool) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        value.and_then(|value| value.parse::<f64>().ok()).with_context(|| format!("no {name}"))
    };
    let memory = number("VmRSS:")? * 1024.0 / MB;
    table.push(line, MEMORY, memory);
    table.push(line, THREADS, number("Threads:")?);
    table.push(line, FILES, fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64);
    table.push(line, OBJECTS, Loaded::now().objects.len() as f64);
    let before = switches(pid)?;
    let watched_for = if quick { WATCHED_FOR / 20 } else { WATCHED_FOR };
    std::thread::sleep(watched_for);
    table.push(line, WAKES, switches(pid)?.saturating_sub(before) as f64 / watched_for.as_secs_f64());
    Ok(memory)
}

/// Voluntary context switches of all threads so far.
fn switches(pid: Pid) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += count.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}
