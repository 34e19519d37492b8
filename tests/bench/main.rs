//! `make bench`: measures what docs/performance.md promises, beside tools of others.
//!
//! - `rows/`: what is measured, and the goals
//! - `tools/`: who watches
//! - [`load`], `generator.rs`: what makes the events
//! - [`stage`], [`cgroup`]: where all of it runs
//! - [`table`], [`machine`], `report/`: the numbers, where they are from, and how people get them
//!
//! Failures are errors, never panics: what was started ends, and what was made goes, when values are dropped.

mod accounts;
mod agent;
mod cgroup;
mod load;
mod machine;
mod report;
mod rows;
mod stage;
mod table;
mod tools;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

use machine::Machine;
use report::Measured;
use rows::{ROWS, Row};
use stage::Stage;
use tools::classic;

/// Measures the gadgets.
#[derive(Parser)]
struct Args {
    /// The rows to measure; all that need no cluster if none is named
    rows: Vec<String>,
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only see that it works: small, once, without the tools of others; and fail if counts are wrong
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Be the tool that ours is compared with
    #[command(hide = true)]
    Classic {
        /// What it watches
        kind: classic::Kind,
        /// The mount namespace to watch
        mntns: u32,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::Classic { kind, mntns }) = args.command {
        return classic::run(kind, mntns);
    }
    let known: Vec<&str> = rows::all().map(|row| row.name).collect();
    let unknown = args.rows.iter().find(|name| !known.contains(&name.as_str()));
    ensure!(unknown.is_none(), "no row is called {unknown:?}; there are: {}", known.join(", "));
    let rounds = if args.quick { 1 } else { args.rounds };
    let stage = Stage::set(rounds, args.quick)?;
    let chosen: Vec<&Row> = if args.rows.is_empty() {
        ROWS.to_vec()
    } else {
        rows::all().filter(|row| args.rows.iter().any(|name| name == row.name)).collect()
    };
    let mut wrong = Vec::new();
    for row in chosen {
        eprintln!("measuring: {}", row.name);
        let table = (row.measure)(&stage).with_context(|| row.name)?;
        let measured = Measured::new(row, Machine::this(rounds)?, table);
        measured.print(row);
        wrong.extend(measured.wrong(row));
        if !args.quick {
            report::write(measured)?;
        }
    }
    ensure!(wrong.is_empty(), "counts are wrong:\n{}", wrong.join("\n"));
    Ok(())
}
