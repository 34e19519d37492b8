//! The real client, agent and kernel, with real containers beside them.

#![allow(clippy::unwrap_used, reason = "a test")]

mod attribution;
mod command_line;
mod doctor;
mod execs;
mod failures;
mod gadgets;
mod loss;
mod sharing;
