//! An agent that knows the tiny gadget.

mod catalogue;

use std::process::ExitCode;

fn main() -> ExitCode {
    gadget_agent::main(catalogue::CATALOGUE)
}
