//! The real client and agents in a real cluster of two nodes, as its users see them, with kubectl as the witness.

#![allow(clippy::unwrap_used, reason = "a test")]

mod deployment;
mod doctor;
mod faults;
mod selection;
mod status;
mod streams;
mod users;
