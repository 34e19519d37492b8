//! How long it takes until every event is seen.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::{Daemon, Process, Session, client_command};

use super::Limit::AtMost;
use super::{Goal, Row};
use crate::agent::{Own, Watch, run_of};
use crate::cgroup::Cgroup;
use crate::stage::Stage;
use crate::table::Table;

const TIME: &str = "until all is seen";
const CONTAINERS: usize = 100;
const NONE: [&str; 3] = ["daemon, no containers", "agent, no containers", "client, no containers"];
const MANY: [&str; 3] = ["daemon, 100 containers", "agent, 100 containers", "client, 100 containers"];
/// Starts in a round: one is short.
const STARTS: usize = 3;

/// From start to attached.
pub(super) static ROW: Row = Row {
    name: "first-event",
    title: "Time to the first event",
    about: "From the start of opensnoop until every event is seen: in a session of a daemon that runs, as in a cluster, up to \
            its schema; of an agent of its own, up to the same; and of the client, which starts an agent, up to its first line. \
            With and without a hundred idle containers' cgroups.",
    measure,
    plot: TIME,
    goals: &[
        Goal::new("at most 25 ms in an agent that runs", AtMost(25.0), |table| table.median(NONE[0], TIME)),
        Goal::new("and in one that has to start", AtMost(25.0), |table| table.median(NONE[1], TIME)),
        Goal::new("with 100 containers not 5 ms more", AtMost(5.0), |table| {
            Some(table.median(MANY[0], TIME)? - table.median(NONE[0], TIME)?)
        }),
        Goal::new("at most 300 ms from pressing Enter, on this host", AtMost(300.0), |table| {
            table.median(MANY[2], TIME)
        }),
    ],
    note: "Most of it is libbpf, which reads the kernel's types (5.5 MB) anew for each object and searches them by name, one after \
           the other, on a machine whose traps are dear; 10 ms are the verifier's, for the tracker. Both were much longer: what \
           the kernel was built without is not tried any more, and the scan of names is verified once. Next: search the kernel's \
           types once for all objects, and load a gadget while the hierarchy is walked.",
};

fn measure(stage: &Stage) -> Result<Table> {
    let mut table = Table::new(&[(TIME, "ms")]);
    for _ in 0..stage.rounds {
        starts(stage, NONE, &mut table)?;
        let containers = containers(stage)?;
        starts(stage, MANY, &mut table)?;
        drop(containers);
    }
    Ok(table)
}

fn starts(stage: &Stage, [daemon, agent, client]: [&str; 3], table: &mut Table) -> Result<()> {
    let running = Daemon::start("bench-first");
    for _ in 0..STARTS {
        let connection = UnixStream::connect(&running.socket)?;
        let session = Session::new(connection.try_clone()?, connection);
        let began = Instant::now();
        let mut watch = Watch::begin(session, run_of("opensnoop", &stage.watched, None))?;
        table.push(daemon, TIME, began.elapsed().as_secs_f64() * 1e3);
        watch.stop()?;
        let mut own = Own::start(None, run_of("opensnoop", &stage.watched, None))?;
        table.push(agent, TIME, own.first.as_secs_f64() * 1e3);
        own.watch.stop()?;
        let mut command = client_command("kubectl-gadget", &["opensnoop", "--local", "-o", "json"]);
        command.args(["--cgroup", stage.watched.path()]).stdout(Stdio::piped()).stderr(Stdio::null());
        let began = Instant::now();
        let mut process = Process(command.spawn()?);
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().context("no output")?).read_line(&mut line)?;
        table.push(client, TIME, began.elapsed().as_secs_f64() * 1e3);
        ensure!(line.contains(r#""type":"start""#), "the client's first line is {line:?}");
    }
    Ok(())
}

/// The cgroups of a hundred containers, as the kubelet and a runtime would make them.
fn containers(stage: &Stage) -> Result<Vec<Cgroup>> {
    let pods = stage.root.child("kubepods")?;
    let mut all = Vec::new();
    for index in 0..CONTAINERS {
        let pod = pods.child(&format!("pod00000000-0000-4000-8000-{index:012x}"))?;
        all.push(pod.child(&format!("{index:064x}"))?);
        all.push(pod);
    }
    all.push(pods);
    Ok(all)
}
