//! The real client, agent and kernel, with real containers beside them.

#![allow(clippy::unwrap_used, reason = "a test")]

mod advise;
mod attribution;
mod cgroups;
mod churn;
mod command_line;
mod doctor;
mod execs;
mod failures;
mod flamegraph;
mod gadgets;
mod live;
mod loss;
mod noise;
mod profiles;
mod recording;
mod recordings;
mod sharing;
mod snapshots;
mod sockets;
mod speedscope;
mod strace;
mod symbols;
mod tasks;
mod witnesses;
