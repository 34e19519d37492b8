//! The client: what people type, and what they see.
//!
//! - [`cli`]: one file a command: flags, and what they mean
//! - [`cluster`]: the way to a cluster's API server, and what its errors mean
//! - [`deploy`]: the agents into a cluster, and out of it
//! - [`run`]: one run of a gadget: sessions with agents, one stream out of them
//! - [`status`]: what agents say of themselves
//! - [`output`]: rows as a table or as JSON
//! - [`exit`]: what went wrong, and the exit code that says so

mod cli;
mod cluster;
mod deploy;
mod exit;
mod output;
mod run;
mod status;

use std::process::ExitCode;

use gadgets::catalogue::Catalogue;

/// Runs the command line with these gadgets.
pub fn main(catalogue: Catalogue) -> ExitCode {
    match cli::run(catalogue) {
        Ok(end) => end.code(),
        Err(error) => {
            // It may quote an agent, or what was typed.
            let mut line = String::new();
            gadgets::format::escape(format!("error: {error:#}").as_bytes(), &mut line);
            eprintln!("{line}");
            exit::code_of(&error)
        }
    }
}
