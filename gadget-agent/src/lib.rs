//! The agent: the privileged side of kubectl gadget.
//!
//! - [`agent`]: what all sessions share; [`server`] and [`session`]: who talks to it, and one conversation
//! - [`instance`]: gadgets that run, each loaded once and shared by the sessions that asked for the same; [`worker`] is
//!   the thread that reads one, [`member`] a session's share of it, [`outbox`] what waits to be written to the client
//! - [`request`]: what a client asks to run; [`recordings`]: what is recorded for whoever asks, [`recording`] what a worker does with one
//! - [`runtime`]: BPF objects: loading, attaching, reading their rings
//! - [`pods`]: which cgroup is whose, and which are wanted
//! - [`symbols`]: names for the stacks of programs
//! - [`loss`]: what was dropped, and for whom
//! - [`status`]: what the agent says of itself; [`programs`]: what is loaded into the kernel, and by whom
//! - [`probe`]: what a host can do; [`sizes`]: what grows with it
//!
//! It knows no gadget by name: what there is comes with the catalogue.

mod agent;
mod calls;
mod cli;
mod clock;
mod error;
mod held;
mod host;
mod instance;
mod listing;
mod loss;
mod member;
mod outbox;
mod pods;
mod probe;
mod programs;
mod recording;
mod recordings;
mod request;
mod runtime;
mod server;
mod session;
mod sizes;
mod status;
mod sums;
mod symbols;
mod sync;
mod tasks;
mod worker;

use std::process::ExitCode;

use gadgets::catalogue::Catalogue;

/// Runs the agent's command line with these gadgets.
pub fn main(catalogue: Catalogue) -> ExitCode {
    cli::run(catalogue)
}
