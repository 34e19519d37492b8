//! The way through kubectl and a real API server.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::Process;
use tests::cluster::{Namespace, deploy, deployment, gadget_command, kubectl};

use super::Limit::AtMost;
use super::{Goal, Row};
use crate::load::MARK;
use crate::stage::Stage;
use crate::table::Table;
use crate::tools::{Place, Running, Tool, said_lost};

/// Starts in a round.
const STARTS: usize = 5;
/// Opens on each of the two nodes.
const OPENS: u64 = 100_000;
/// Pods that always have something to show.
const BUSY: &str = "while true; do /bin/true; usleep 20000; done";

const EXECSNOOP: &str = "kubectl gadget execsnoop";
const EXEC: &str = "kubectl exec POD -- /bin/true";
const OPENSNOOP: &str = "kubectl gadget opensnoop";
const TIME: &str = "first row or end";
const RATE: &str = "events a second";
const CPU: &str = "CPU of the client for 100 k events";
const MEMORY: &str = "peak memory of the client";
const LOST: &str = "told lost";
const MISSING: &str = "neither";

/// Two nodes.
pub(super) static ROW: Row = Row {
    name: "cluster",
    title: "Through the API server",
    about: "A cluster of two nodes, all of it on the same two processors. *execsnoop*: from starting kubectl until the first row \
            is there of pods that execute something all the time; beside it kubectl exec of a program that does nothing. \
            *opensnoop*: a shell in a pod on each node opens files as fast as it can, 100,000 each; the client, kubectl \
            included, prints JSON to a file.",
    measure,
    plot: TIME,
    goals: &[
        Goal::new("at most 300 ms from pressing Enter to the first row", AtMost(300.0), |table| {
            table.median(EXECSNOOP, TIME)
        }),
        Goal::new("no event of two nodes is lost", AtMost(0.0), |table| table.worst(OPENSNOOP, LOST)),
        Goal::everywhere("printed and told lost make generated", AtMost(0.0), |table| table.worst(OPENSNOOP, MISSING)),
    ],
    note: "Two processors carry two shells without a pause, two agents, two kubelets, the API server, etcd, kubectl and the \
           client. Where an agent gets none of them for long enough, its ring of 4 MiB runs full; what it loses is told.",
};

fn measure(stage: &Stage) -> Result<Table> {
    let mut table = Table::new(&[(TIME, "ms"), (RATE, ""), (CPU, "s"), (MEMORY, "MB"), (LOST, ""), (MISSING, "")]);
    deploy(&[]);
    let namespace = Namespace::new("bench");
    let busy = namespace.run(&[deployment("busy", BUSY)]);
    let pod = &busy.first().context("no pod runs")?.name;
    for round in 0..stage.rounds {
        for _ in 0..STARTS {
            table.push(EXECSNOOP, TIME, first_row(&namespace)?.as_secs_f64() * 1e3);
            let began = Instant::now();
            kubectl(&["--namespace", &namespace.name, "exec", pod, "--", "/bin/true"]);
            table.push(EXEC, TIME, began.elapsed().as_secs_f64() * 1e3);
        }
        storm(stage, &namespace, &format!("storm-{round}"), &mut table)?;
    }
    Ok(table)
}

fn first_row(namespace: &Namespace) -> Result<Duration> {
    let mut command = gadget_command(&["execsnoop", "-n", &namespace.name, "-l", "app=busy"]);
    let began = Instant::now();
    let mut process = Process(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    let mut lines = BufReader::new(process.0.stdout.take().context("no output")?).lines();
    // The header is the first line.
    lines.nth(1).context("no row")??;
    Ok(began.elapsed())
}

/// The client, as kubectl's plugin.
struct Client<'a>(&'a Namespace, &'a str);

impl Tool for Client<'_> {
    fn name(&self) -> String {
        OPENSNOOP.into()
    }

    fn command(&self) -> Result<Command> {
        let selector = format!("app={}", self.1);
        Ok(gadget_command(&["opensnoop", "-n", &self.0.name, "-l", &selector, "--failed", "-o", "json"]))
    }

    fn announces(&self) -> Option<&'static str> {
        Some(r#""type":"start""#)
    }

    fn lost(&self, said: &str) -> Result<u64> {
        said_lost(said)
    }
}

fn storm(stage: &Stage, namespace: &Namespace, app: &str, table: &mut Table) -> Result<()> {
    let script = format!(
        "exec 2>/dev/null; until [ -e /tmp/go ]; do sleep 0.1; done; \
         i=0; while [ $i -lt {OPENS} ]; do true </missing/{MARK}; i=$((i+1)); done; sleep infinity"
    );
    let pods: Vec<_> = namespace.run(&[deployment(app, &script)]).into_iter().filter(|pod| pod.app() == app).collect();
    let client = Client(namespace, app);
    let mut running = Running::start(&client, stage, Place::File)?;
    let began = Instant::now();
    for pod in &pods {
        kubectl(&["--namespace", &namespace.name, "exec", &pod.name, "--", "touch", "/tmp/go"]);
    }
    let count = OPENS * pods.len() as u64;
    running.settle_for(count, Duration::from_secs(5))?;
    let seconds = began.elapsed().as_secs_f64();
    let work = running.stop()?;
    table.push(OPENSNOOP, RATE, work.seen as f64 / seconds);
    table.push(OPENSNOOP, CPU, work.cpu.as_secs_f64() / (count as f64 / 1e5));
    table.push(OPENSNOOP, MEMORY, work.peak as f64 / f64::from(1 << 20));
    table.push(OPENSNOOP, LOST, work.lost as f64);
    table.push(OPENSNOOP, MISSING, count as f64 - (work.seen + work.lost) as f64);
    kubectl(&["--namespace", &namespace.name, "delete", "deployment", app, "--wait=false"]);
    Ok(())
}
