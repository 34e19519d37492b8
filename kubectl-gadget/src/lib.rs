//! The client: what people type, and what they see.
//!
//! - [`cli`]: one file a command: flags, and what they mean
//! - [`cluster`]: the way to a cluster's API server, and what its errors mean
//! - [`deploy`]: the agents into a cluster, and out of it
//! - [`run`]: one run of a gadget: sessions with agents, one stream out of them
//! - [`status`]: what agents say of themselves
//! - [`doctor`]: what is well and what is not
//! - [`output`]: rows as a table or as JSON
//! - [`advise`]: what follows from all of them; [`peers`]: who is at the other end
//! - [`profile`]: where time goes, and the forms that other programs read
//! - [`exit`]: what went wrong, and the exit code that says so; [`notice`]: what else a person should know

mod advise;
mod cli;
mod cluster;
mod deploy;
mod doctor;
mod exit;
mod notice;
mod output;
mod peers;
mod profile;
mod run;
mod status;

use std::process::ExitCode;

use gadgets::catalogue::Catalogue;

/// Runs the command line with these gadgets.
pub fn main(catalogue: Catalogue) -> ExitCode {
    match cli::run(catalogue) {
        Ok(end) => end.code(),
        Err(error) => {
            notice::notice(&format!("error: {error:#}"));
            exit::code_of(&error)
        }
    }
}
