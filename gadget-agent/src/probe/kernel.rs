//! What the kernel is, and what it allows us.

use std::fs;

use gadgets::catalogue::{KPROBES, OLDEST, REQUIREMENTS, Release, TRACEPOINTS, TYPED_TRACEPOINTS};
use gadgets::diagnosis::Finding;

use crate::host;
use crate::pods::hierarchy::Hierarchy;
use crate::runtime::features;

/// Memory below which an agent with a gadget of the usual size may be ended, in bytes.
const ENOUGH_MEMORY: u64 = 128 << 20;

pub(super) fn look(hierarchy: Option<&Hierarchy>) -> Vec<Finding> {
    let mut findings = vec![release(), btf(), privileges(), lockdown()];
    findings.extend([features(), perf_events(), tracefs(), confinement(), memory(hierarchy)]);
    findings
}

fn release() -> Finding {
    let release = host::kernel();
    if Release::parse(&release).is_some_and(|release| release >= OLDEST) {
        return Finding::ok("kernel", release);
    }
    Finding::failed("kernel", release, "gadgets do not load", format!("run the node with kernel {OLDEST} or later"))
}

fn btf() -> Finding {
    if host::has_btf() {
        return Finding::ok("btf", "the kernel describes its types");
    }
    let found = format!("{} is missing", host::BTF);
    Finding::failed("btf", found, "no gadget loads", "use a kernel with CONFIG_DEBUG_INFO_BTF=y")
}

fn privileges() -> Finding {
    let effective = match host::effective_capabilities() {
        Ok(effective) => effective,
        Err(error) => return Finding::failed("privileges", error.to_string(), "nothing is known", "mount /proc"),
    };
    // Of some, each of several is enough.
    let missing = |wanted: [(&'static str, u64); 2]| -> Vec<&str> {
        wanted.into_iter().filter(|(_, any)| effective & any == 0).map(|(name, _)| name).collect()
    };
    let mend = "deploy the agent with kubectl gadget deploy; on a host, use sudo";
    let admin = host::CAP_SYS_ADMIN;
    let needed = missing([("BPF", host::CAP_BPF | admin), ("PERFMON", host::CAP_PERFMON | admin)]);
    if !needed.is_empty() {
        return Finding::failed("privileges", format!("without {}", needed.join(", ")), "no gadget loads", mend);
    }
    let useful = missing([("SYS_PTRACE", host::CAP_SYS_PTRACE), ("SYS_CHROOT", host::CAP_SYS_CHROOT)]);
    if !useful.is_empty() {
        let of_names = "functions of programs have no names";
        let cost = match useful.contains(&"SYS_PTRACE") {
            true => format!("{of_names}, nor have containers of runtimes that keep their state in an unusual place"),
            false => of_names.to_owned(),
        };
        return Finding::degraded("privileges", format!("without {}", useful.join(", ")), cost, mend);
    }
    Finding::ok("privileges", "BPF, PERFMON, SYS_PTRACE, SYS_CHROOT")
}

fn lockdown() -> Finding {
    match host::lockdown().as_deref() {
        Some("confidentiality") => Finding::failed(
            "lockdown",
            "confidentiality",
            "BPF programs may not read the kernel's memory: no gadget loads",
            "boot with lockdown=integrity, or without",
        ),
        Some(mode) => Finding::ok("lockdown", mode),
        None => Finding::ok("lockdown", "not told (securityfs is not mounted here)"),
    }
}

/// What all variants together may need. What a gadget makes of it is told with the gadget.
fn features() -> Finding {
    let mut there = Vec::new();
    let mut missing = Vec::new();
    for requirement in REQUIREMENTS {
        match features::check(requirement) {
            Ok(()) => there.push(requirement.name),
            Err(refusal) if requirement == &TYPED_TRACEPOINTS => {
                let cost = "containers cannot be followed: no gadget runs";
                return Finding::failed("bpf", format!("no {requirement}: {refusal}"), cost, requirement.mend);
            }
            Err(_) => missing.push(requirement.name),
        }
    }
    let there = there.join(", ");
    Finding::ok("bpf", if missing.is_empty() { there } else { format!("{there}; not: {}", missing.join(", ")) })
}

fn perf_events() -> Finding {
    // Not all kernels mean the same by it.
    let is_refused = || features::check(&TRACEPOINTS).is_err() && features::check(&KPROBES).is_err();
    match host::perf_event_paranoid() {
        Some(paranoid @ 3..) if is_refused() => Finding::degraded(
            "perf events",
            format!("kernel.perf_event_paranoid is {paranoid}"),
            "tracepoints and kprobes are refused: gadgets use other hooks, or do without",
            "sysctl -w kernel.perf_event_paranoid=2",
        ),
        Some(paranoid) => Finding::ok("perf events", format!("kernel.perf_event_paranoid is {paranoid}")),
        None => Finding::ok("perf events", "the kernel does not restrict them"),
    }
}

fn tracefs() -> Finding {
    if host::has_tracefs() {
        return Finding::ok("tracefs", host::TRACEFS);
    }
    Finding::degraded(
        "tracefs",
        "it is not mounted",
        "tracepoints are not found: gadgets use other hooks, or do without",
        format!("mount -t tracefs tracefs {}", host::TRACEFS),
    )
}

/// Who may stand in the way. Whether they do shows in `bpf`.
fn confinement() -> Finding {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim_end_matches(['\n', '\0']).to_owned();
    let status = read("/proc/self/status");
    let seccomp = match status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim) {
        Some("0") | None => "none",
        Some(_) => "a filter",
    };
    let label = read("/proc/self/attr/current");
    let label = if label.is_empty() { "unconfined" } else { &label };
    let modules = read("/sys/kernel/security/lsm");
    let modules = if modules.is_empty() { "not told" } else { &modules };
    let found = format!("seccomp: {seccomp}; label: {label}; security modules: {modules}");
    if seccomp == "none" {
        return Finding::ok("confinement", found);
    }
    let cost = "a filter that does not know bpf(2) or perf_event_open(2) makes gadgets fail";
    let mend = "run the agent with seccompProfile Unconfined, as kubectl gadget deploy does";
    match features::check(&TYPED_TRACEPOINTS) {
        Ok(()) => Finding::ok("confinement", found),
        Err(_) => Finding::degraded("confinement", found, cost, mend),
    }
}

fn memory(hierarchy: Option<&Hierarchy>) -> Finding {
    if let Some(limit) = host::locked_memory_limit() {
        return Finding::failed(
            "memory",
            format!("this kernel counts BPF's memory as locked, and {} KiB may be locked", limit >> 10),
            "maps and programs do not load",
            "give the agent the capability SYS_RESOURCE (kubectl gadget deploy does so for such nodes)",
        );
    }
    let limits = [hierarchy.and_then(Hierarchy::own_memory_limit), host::memory_limit()];
    match limits.into_iter().flatten().min() {
        Some(limit) if limit < ENOUGH_MEMORY => Finding::degraded(
            "memory",
            format!("the limit is {} MiB", limit >> 20),
            "with several gadgets or large rings the kernel may end the agent",
            "raise the limit of the DaemonSet",
        ),
        Some(limit) => Finding::ok("memory", format!("the limit is {} MiB", limit >> 20)),
        None => Finding::ok("memory", "no limit that can be seen"),
    }
}
