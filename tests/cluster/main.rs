//! The real client and agents in a real cluster of two nodes, as its users see them, with kubectl as the witness.

#![allow(clippy::unwrap_used, reason = "a test")]

mod advise;
mod deployment;
mod doctor;
mod faults;
mod gadgets;
mod names;
mod outages;
mod peers;
mod recordings;
mod selection;
mod shop;
mod status;
mod streams;
mod users;
mod workloads;
