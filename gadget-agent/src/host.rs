//! What the host must have before anything is loaded, and what it is called.

use std::fs;
use std::path::Path;

use gadgets::catalogue::{CHARGED_TO_CGROUPS, Release};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::AgentError;

pub(crate) const TRACEFS: &str = "/sys/kernel/tracing";
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";
pub(crate) const CAP_SYS_CHROOT: u64 = 1 << 18;
pub(crate) const CAP_SYS_PTRACE: u64 = 1 << 19;
pub(crate) const CAP_SYS_ADMIN: u64 = 1 << 21;
pub(crate) const CAP_SYS_RESOURCE: u64 = 1 << 24;
pub(crate) const CAP_PERFMON: u64 = 1 << 38;
pub(crate) const CAP_BPF: u64 = 1 << 39;

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
    if !has_btf() {
        return Err(AgentError::Unsupported(format!(
            "this kernel has no BTF ({BTF} is missing): a kernel of 5.10 or later with CONFIG_DEBUG_INFO_BTF=y is needed"
        )));
    }
    Ok(())
}

/// Whether the kernel describes its types.
pub(crate) fn has_btf() -> bool {
    Path::new(BTF).exists()
}

/// Whether tracepoints have numbers that can be read.
pub(crate) fn has_tracefs() -> bool {
    Path::new(TRACEFS).join("events").exists()
}

/// Whether tracefs has a file; `None` if tracefs is not there.
pub(crate) fn in_tracefs(file: &str) -> Option<bool> {
    has_tracefs().then(|| Path::new(TRACEFS).join(file).exists())
}

/// Lets this process have as many files open as it may: a recorder has one for each container.
pub(crate) fn raise_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!("the limit of open files stays: {error}");
    }
}

/// Makes sure that system call tracepoints can be found. Where nobody has mounted tracefs, it is mounted for this
/// process alone; where that is not allowed, gadgets take other variants. To be called before there are threads.
pub(crate) fn provide_tracefs() {
    if has_tracefs() {
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

/// Why the kernel may forbid to load or attach a program that this process has the capabilities for; `perf_event` says
/// that it is attached through one.
pub(crate) fn why_forbidden(perf_event: bool) -> String {
    let mut reasons = Vec::new();
    if let Some(paranoid) = perf_event_paranoid().filter(|paranoid| perf_event && *paranoid > 2) {
        reasons.push(format!("kernel.perf_event_paranoid is {paranoid}; sysctl -w kernel.perf_event_paranoid=2"));
    }
    if let Some(limit) = locked_memory_limit() {
        reasons.push(format!("BPF may lock {} KiB of memory only (ulimit -l)", limit >> 10));
    }
    if let Some(mode) = lockdown().filter(|mode| mode != "none") {
        reasons.push(format!("the kernel is locked down ({mode})"));
    }
    if reasons.is_empty() {
        reasons.push("a security module, the hypervisor or the kernel's configuration".into());
    }
    format!("the kernel forbids it: {}", reasons.join(", or "))
}

/// Who may use perf events: above 2, on kernels of Debian and Ubuntu, CAP_SYS_ADMIN alone.
pub(crate) fn perf_event_paranoid() -> Option<i32> {
    fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse().ok()
}

/// How much memory BPF may lock, in bytes; `None` if that does not matter: on newer kernels, if there is no limit, and if
/// libbpf may raise it.
pub(crate) fn locked_memory_limit() -> Option<u64> {
    let may_raise = effective_capabilities().is_ok_and(|effective| effective & CAP_SYS_RESOURCE != 0);
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let matters = Release::parse(&kernel())? < CHARGED_TO_CGROUPS && !may_raise && hard != nix::libc::RLIM_INFINITY;
    matters.then_some(soft)
}

/// How much memory this process's cgroup may have, in bytes; `None` if there is no limit that can be seen.
pub(crate) fn memory_limit() -> Option<u64> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let files = cgroups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => Some(format!("/sys/fs/cgroup{path}/memory.max")),
            "memory" => Some(format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")),
            _ => None,
        }
    });
    // What version 1 calls no limit is the largest number of pages.
    let limits = files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.filter(|limit| *limit < i64::MAX as u64 / 2).min()
}

/// Processors that the kernel has made room for: per-CPU maps have an element for each.
pub(crate) fn possible_processors() -> u32 {
    libbpf_rs::num_possible_cpus().ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(1)
}

/// How far the kernel is locked down: `none`, `integrity` or `confidentiality`; `None` if it does not say.
pub(crate) fn lockdown() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = modes.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// The capabilities that this process has now, as a set of bits.
pub(crate) fn effective_capabilities() -> Result<u64, AgentError> {
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
