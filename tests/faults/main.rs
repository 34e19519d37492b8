//! The real client against a fake API server, for faults that a real cluster does not produce on demand. Needs no root,
//! no cluster and nothing of the kernel: only `make build` and the loopback interface.
//!
//! - `tests/support/fake/`: the fake API server, and fake agents behind it
//! - [`client`]: the real client
//! - the tests: [`streams`], [`refusals`], [`server`], [`hostility`], [`backlog`], [`interrupts`]

#![allow(clippy::unwrap_used, reason = "a test")]

mod backlog;
mod client;
mod hostility;
mod interrupts;
mod refusals;
mod server;
mod streams;
