//! The agent's binary, with the gadgets of this version.

use std::process::ExitCode;

fn main() -> ExitCode {
    gadget_agent::main(gadgets::catalogue::CATALOGUE)
}
