//! `list`: which gadgets there are.

use clap::{ArgMatches, Args, Command, FromArgMatches as _};
use gadgets::catalogue::Catalogue;
use serde_json::json;

use super::{Format, print, table};
use crate::exit::End;

#[derive(Args)]
struct ListArgs {
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub(super) fn command() -> Command {
    ListArgs::augment_args(Command::new("list").about("List the gadgets"))
}

pub(super) fn run(catalogue: Catalogue, matches: &ArgMatches) -> anyhow::Result<End> {
    let args = ListArgs::from_arg_matches(matches)?;
    if args.output == Format::Json {
        let gadgets: Vec<_> = catalogue
            .0
            .iter()
            .map(|gadget| json!({"name": gadget.name, "aliases": gadget.aliases, "summary": gadget.summary}))
            .collect();
        return Ok(print(&serde_json::to_string_pretty(&gadgets)?));
    }
    let mut table = table(["NAME", "ALIASES", "SHOWS"]);
    for gadget in catalogue.0 {
        table.add_row([gadget.name, &gadget.aliases.join(", "), gadget.summary]);
    }
    Ok(print(&table.trim_fmt()))
}
