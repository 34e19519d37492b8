//! The client's binary, with the gadgets of this version.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_gadget::main(gadgets::catalogue::CATALOGUE)
}
