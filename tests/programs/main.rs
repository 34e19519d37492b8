//! The tests' own programs, by the name that the file is called under:
//!
//! - `tiny-agent`, `tiny-client`: an agent and a client of gadgets that exist only here, in `tests/tiny`. Nothing else
//!   needed to change for it.
//! - `kubectl-gadget`: the product's client, static, for guests that have no libraries
//! - `guest`: the first process of a guest of the kernel matrix

#![allow(clippy::unwrap_used, reason = "a test")]

mod guest;
mod tiny;

use std::path::Path;
use std::process::ExitCode;

use gadgets::catalogue;

/// In guests: what is here is as users have it, but that agents are confined as they are in a cluster.
const CONFINED: &str = "/confined";

fn main() -> ExitCode {
    let path = std::env::args_os().next().unwrap_or_default();
    let path = Path::new(&path);
    let is_confined = path.starts_with(CONFINED);
    match path.file_name().and_then(|name| name.to_str()) {
        Some("gadget-agent") if is_confined => guest::confine(c"/product/gadget-agent"),
        Some("tiny-agent") if is_confined => guest::confine(c"/product/tiny-agent"),
        Some("tiny-agent") => gadget_agent::main(tiny::CATALOGUE),
        Some("tiny-client") => kubectl_gadget::main(tiny::CATALOGUE),
        Some("kubectl-gadget") => kubectl_gadget::main(catalogue::CATALOGUE),
        _ => guest::main(),
    }
}
