//! A client that knows the tiny gadget.

mod catalogue;

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_gadget::main(catalogue::CATALOGUE)
}
