//! `snapshot`: what there is now. Each gadget that is called `snapshot-SOMETHING` is a command of it.

use clap::{ArgMatches, Command};
use gadgets::catalogue::{Catalogue, Gadget};

use super::{find, gadget};
use crate::exit::{End, Usage};

pub(super) const NAME: &str = "snapshot";

/// What a gadget takes a snapshot of, if it does.
pub(super) fn of(gadget: &Gadget) -> Option<&'static str> {
    gadget.name.strip_prefix(NAME)?.strip_prefix('-')
}

pub(super) fn command(catalogue: Catalogue) -> Command {
    let of_gadget = |gadget: &&'static Gadget| Some(gadget::command(gadget).name(of(gadget)?));
    Command::new(NAME)
        .about("Show what there is now")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(catalogue.0.iter().filter_map(of_gadget))
}

pub(super) fn run(catalogue: Catalogue, matches: &ArgMatches) -> anyhow::Result<End> {
    let (what, matches) = matches.subcommand().ok_or_else(|| Usage("of what?".into()))?;
    gadget::run(find(catalogue, &format!("{NAME}-{what}"))?, matches)
}
