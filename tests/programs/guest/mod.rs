//! What runs in a guest of the kernel matrix: its first process, which prepares it, runs the suite, and turns it off.
//!
//! - [`init`]: mounts what a host has, and in the end turns the guest off
//! - [`cgroups`]: mounts cgroups, in one way after the other
//! - [`suite`]: every gadget in every variant, and what came of it
//! - [`pods`]: containers as a runtime makes them, without one
//! - [`confinement`]: an agent with the rights that it has in a cluster, and no others

mod cgroups;
mod confinement;
mod init;
mod pods;
mod suite;

use std::process::ExitCode;

pub(crate) use confinement::confine;

/// `init` if it is the first process; else `suite`, `cell GADGET CHECK OPTION…`, or `contain[-alone] COMMAND…`.
pub(crate) fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::main();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["suite"] => suite::run(),
        ["cell", gadget, check, options @ ..] => suite::run_cell(gadget, check, options),
        ["contain", command @ ..] => pods::contain(command),
        ["contain-alone", command @ ..] => pods::contain_alone(command),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
