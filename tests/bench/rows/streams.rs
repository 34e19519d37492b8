//! The streams of many nodes in one client.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use futures::future::join_all;
use tests::client_command;
use tests::fake::{FakeAgent, FakeCluster, now};
use tokio::runtime;
use tokio::sync::oneshot;

use super::Limit::{AtLeast, AtMost};
use super::{Goal, Row};
use crate::load::MARK;
use crate::stage::Stage;
use crate::table::Table;
use crate::tools::{Place, Running, Tool, said_lost};

const NODES: u64 = 100;
/// Records of a batch, and ns between two of a node.
const RECORDS: u64 = 250;
const STEP: u64 = 100_000;

const FILE: &str = "JSON to a file";
const RATE: &str = "events a second";
const CPU: &str = "CPU for 100 k events";
const MEMORY: &str = "peak memory";
const LOST: &str = "lost";
const DISORDER: &str = "out of order";

/// A hundred streams.
pub(super) static ROW: Row = Row {
    name: "streams",
    title: "The streams of a hundred nodes",
    about: "A fake API server (in the bench, on the same two processors) has 100 nodes, whose agents send batches of execs as \
            fast as the client takes them; the times of all nodes interleave. The client merges and prints 2 M events as \
            JSON. Out of order is what is older than the line before it.",
    measure,
    plot: RATE,
    goals: &[
        Goal::new("at least 400 k events/s", AtLeast(4e5), |table| table.median(FILE, RATE)),
        Goal::new("at most 64 MB resident", AtMost(64.0), |table| table.median(FILE, MEMORY)),
        Goal::everywhere("none lost", AtMost(0.0), |table| table.worst(FILE, LOST)),
        Goal::everywhere("all in order", AtMost(0.0), |table| table.worst(FILE, DISORDER)),
    ],
    note: "",
};

/// The client, with a server of its own.
struct Client(SocketAddr);

impl Tool for Client {
    fn name(&self) -> String {
        "kubectl gadget execsnoop".into()
    }

    fn command(&self) -> Result<Command> {
        let server = format!("http://{}", self.0);
        let mut command = client_command("kubectl-gadget", &["execsnoop", "-A", "-o", "json", "--token", "x"]);
        command.args(["--server", &server]).env_remove("KUBECONFIG");
        Ok(command)
    }

    fn announces(&self) -> Option<&'static str> {
        Some(r#""type":"start""#)
    }

    fn lost(&self, said: &str) -> Result<u64> {
        said_lost(said)
    }
}

fn measure(stage: &Stage) -> Result<Table> {
    let mut table = Table::new(&[(RATE, ""), (CPU, "s"), (MEMORY, "MB"), (LOST, ""), (DISORDER, "")]);
    let batches = stage.events(2_000_000) / (NODES * RECORDS);
    for _ in 0..stage.rounds {
        measure_once(stage, batches, &mut table)?;
    }
    Ok(table)
}

fn measure_once(stage: &Stage, batches: u64, table: &mut Table) -> Result<()> {
    let (tell_address, address) = mpsc::channel();
    let (tell_greeted, greeted) = mpsc::channel();
    let (tell_sent, sent) = mpsc::channel();
    let (go, start) = oneshot::channel();
    let server = std::thread::spawn(move || -> Result<()> {
        let serve = async {
            let names: Vec<String> = (0..NODES).map(|node| format!("node-{node}")).collect();
            let fake = FakeCluster::of(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
            tell_address.send(fake.address)?;
            let greet = async |name: &String| {
                let mut agent = fake.agent(name).await;
                agent.greet().await;
                agent
            };
            let mut agents = join_all(names.iter().map(greet)).await;
            tell_greeted.send(())?;
            start.await?;
            let began = now();
            join_all((0..).zip(&mut agents).map(|(node, agent)| stream(agent, began + node, batches))).await;
            tell_sent.send(())?;
            join_all(agents.into_iter().map(FakeAgent::finish)).await;
            Ok(())
        };
        runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve)
    });
    let client = Client(address.recv().context("the fake API server does not start")?);
    let mut running = Running::start(&client, stage, Place::File)?;
    greeted.recv().context("the client has not reached all nodes")?;
    let events = batches * NODES * RECORDS;
    let began = Instant::now();
    go.send(()).map_err(|()| anyhow!("the fake API server is gone"))?;
    sent.recv().context("the client does not take everything")?;
    running.settle(events)?;
    let seconds = began.elapsed().as_secs_f64();
    let work = running.stop()?;
    server.join().map_err(|_| anyhow!("the fake API server failed"))??;
    table.push(FILE, RATE, work.seen as f64 / seconds);
    table.push(FILE, CPU, work.cpu.as_secs_f64() / (events as f64 / 1e5));
    table.push(FILE, MEMORY, work.peak as f64 / f64::from(1 << 20));
    table.push(FILE, LOST, (events - work.seen) as f64);
    table.push(FILE, DISORDER, disorder(&fs::read_to_string(Place::File.path(&stage.folder))?) as f64);
    Ok(())
}

/// Sends a node's batches. The times of its records go on evenly, beside those of all others.
async fn stream(agent: &mut FakeAgent, began: u64, batches: u64) {
    let record = agent.record(began, MARK, &[]);
    for batch in 0..batches {
        let mut bytes = record.repeat(RECORDS as usize);
        for (index, record) in (batch * RECORDS..).zip(bytes.chunks_exact_mut(record.len())) {
            // Where a record has its time: `struct gadget_header`.
            record[8..16].copy_from_slice(&agent.boot_ns(began + index * STEP).to_le_bytes());
        }
        agent.batch_when_allowed(RECORDS, bytes).await;
    }
    agent.is_complete_to(u64::MAX / 2).await;
}

/// How many events are older than the one before.
fn disorder(lines: &str) -> usize {
    let time = |line: &'_ str| Some(line.split_once(r#""time":""#)?.1.split_once('"')?.0.to_owned());
    let times: Vec<String> = lines.lines().filter(|line| line.contains(r#""type":"event""#)).filter_map(time).collect();
    times.windows(2).filter(|pair| pair[1] < pair[0]).count()
}
