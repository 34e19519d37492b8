//! What the host must have before anything is loaded, and what it is called.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::error::AgentError;

const TRACEFS: &str = "/sys/kernel/tracing";
const BTF: &str = "/sys/kernel/btf/vmlinux";
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// Checks what every gadget needs.
///
/// # Errors
/// With what is missing and what to do about it.
pub(crate) fn check() -> Result<(), AgentError> {
    let effective = effective_capabilities()?;
    if effective & CAP_SYS_ADMIN == 0 && effective & (CAP_BPF | CAP_PERFMON) != CAP_BPF | CAP_PERFMON {
        return Err(AgentError::Permission(
            "loading BPF programs needs root, or the capabilities CAP_BPF and CAP_PERFMON: run it with sudo".into(),
        ));
    }
    if !Path::new(BTF).exists() {
        return Err(AgentError::Unsupported(format!(
            "this kernel has no BTF ({BTF} is missing): a kernel of 5.10 or later with CONFIG_DEBUG_INFO_BTF=y is needed"
        )));
    }
    Ok(())
}

/// Makes sure that system call tracepoints can be found. Where nobody has mounted tracefs, it is mounted for this
/// process alone; where that is not allowed, gadgets take other variants. To be called before there are threads.
pub(crate) fn provide_tracefs() {
    if Path::new(TRACEFS).join("events").exists() {
        return;
    }
    let none: Option<&str> = None;
    // Mounts of the host go on to appear here; ours does not appear there.
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none))
        .and_then(|()| mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), none));
    if let Err(error) = mounted {
        tracing::debug!("no tracefs: {error}");
    }
}

fn effective_capabilities() -> Result<u64, AgentError> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| AgentError::internal("read /proc/self/status", error))?;
    status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .ok_or_else(|| AgentError::Internal("no CapEff in /proc/self/status".into()))
}

/// The host's name.
pub(crate) fn name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|_| "localhost".into())
}

/// The release of the running kernel.
pub(crate) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map(|release| release.trim().to_owned()).unwrap_or_default()
}
