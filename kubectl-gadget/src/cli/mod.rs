//! The command line: one sub-command for each gadget of the catalogue, and those about gadgets.

mod advise;
pub(crate) mod cluster;
mod deploy;
mod doctor;
mod explain;
mod gadget;
mod list;
mod profile;
mod recording;
mod run;
mod sample;
mod snapshot;
mod status;
mod undeploy;
mod version;

use anyhow::Context as _;
use clap::Command;
use comfy_table::{Table, presets};
use gadgets::catalogue::{Catalogue, Gadget};

use crate::exit::{End, Usage};

/// Least likeness of a word to one that is suggested in its place (Jaro-Winkler; 1 is equality).
const LIKENESS: f64 = 0.7;

pub(crate) fn run(catalogue: Catalogue) -> anyhow::Result<End> {
    let mut command = Command::new("kubectl-gadget")
        .bin_name("kubectl gadget")
        .version(env!("CARGO_PKG_VERSION"))
        .about("See what pods do, as the kernel sees it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(catalogue.0.iter().map(|gadget| gadget::command(gadget).hide(snapshot::of(gadget).is_some())))
        .subcommand(snapshot::command(catalogue))
        .subcommand(advise::command(catalogue))
        .subcommand(deploy::command())
        .subcommand(undeploy::command())
        .subcommand(status::command())
        .subcommand(doctor::command())
        .subcommand(list::command())
        .subcommand(explain::command())
        .subcommand(version::command());
    command.build();
    let matches = command.get_matches();
    match matches.subcommand() {
        Some((snapshot::NAME, matches)) => snapshot::run(catalogue, matches),
        Some(("advise", matches)) => advise::run(catalogue, matches),
        Some(("list", matches)) => list::run(catalogue, matches),
        Some(("explain", matches)) => explain::run(catalogue, matches),
        Some(("version", matches)) => version::run(matches),
        Some(("deploy", matches)) => deploy::run(matches),
        Some(("undeploy", matches)) => undeploy::run(matches),
        Some(("status", matches)) => status::run(matches),
        Some(("doctor", matches)) => doctor::run(matches),
        Some((name, matches)) => gadget::run(find(catalogue, name)?, matches),
        None => Err(Usage("no command".into()).into()),
    }
}

/// The gadget of this name.
fn find(catalogue: Catalogue, name: &str) -> Result<&'static Gadget, Usage> {
    catalogue.get(name).ok_or_else(|| {
        let names =
            catalogue.0.iter().flat_map(|gadget| [gadget.name].into_iter().chain(gadget.aliases.iter().copied()));
        let hint = nearest(name, names).unwrap_or_else(|| "see: kubectl gadget list".into());
        Usage(format!("no gadget {name:?}; {hint}"))
    })
}

/// A question that suggests the known word that is most like a wrong one, if any is.
fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let likeness = |word: &'a str| (strsim::jaro_winkler(wrong, word), word);
    let (likeness, word) = known.map(likeness).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= LIKENESS).then(|| format!("did you mean {word:?}?"))
}

/// That a gadget has no such column, and what it has.
fn no_column(gadget: &Gadget, wrong: &str, known: &[String]) -> anyhow::Error {
    let hint = nearest(wrong, known.iter().map(String::as_str))
        .unwrap_or_else(|| format!("{} has: {}", gadget.name, known.join(", ")));
    Usage(format!("no column {wrong:?}; {hint}")).into()
}

/// The value of `-o` for commands whose result is finished at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// Prints what a command has to say; a reader that is gone is no error.
fn print(text: &str) -> End {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
    End::Done
}

/// Does work that waits for others, on this thread.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?.block_on(work)
}

/// A table that is printed at once.
fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}
