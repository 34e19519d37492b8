//! `version`: which client this is.

use clap::Command;
use gadgets::wire::VERSION;

use super::print;
use crate::exit::End;

pub(super) fn command() -> Command {
    Command::new("version").about("Print the client's version")
}

pub(super) fn run() -> End {
    print(&format!("kubectl-gadget {} (protocol {VERSION})", env!("CARGO_PKG_VERSION")))
}
