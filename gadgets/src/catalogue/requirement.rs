//! What a variant may need of the kernel, beyond BTF and what every kernel since 5.10 can do.

use std::fmt;

/// Something that not every kernel can do. The agent finds out by loading a program that does nothing else.
#[derive(Debug, PartialEq, Eq)]
pub struct Requirement {
    /// What it is called.
    pub name: &'static str,
    /// The program of `bpf/features.bpf.c` that loads and attaches where the kernel can do it.
    pub program: &'static str,
    /// The first release that can, on x86-64, if nobody has configured it away or forbidden it.
    pub since: Release,
    /// The first release that cannot any more.
    pub until: Option<Release>,
    /// A file of tracefs that every kernel has that was built for it. Where it is missing nothing need be tried, and trying
    /// takes long enough for somebody to wait.
    pub sign: Option<&'static str>,
    /// What helps where a kernel of that release or a later one still cannot.
    pub mend: &'static str,
}

/// The first two numbers of a kernel's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

/// The oldest kernel that gadgets are written for.
pub const OLDEST: Release = Release(5, 10);
/// Before this release BPF's memory counted as locked memory, of which containers may have little.
pub const CHARGED_TO_CGROUPS: Release = Release(5, 11);

/// All that any variant may need.
pub static REQUIREMENTS: [&Requirement; 15] = [
    &TYPED_TRACEPOINTS,
    &TRAMPOLINES,
    &KPROBES,
    &TRACEPOINTS,
    &SYSCALL_TRACEPOINTS,
    &PERF_EVENTS,
    &TICK_TRACEPOINT,
    &CAPABILITY_TRACEPOINT,
    &URING_TRACEPOINTS,
    &SOCKET_STORAGE,
    &FREED_DATAGRAMS,
    &DEFERRED_DATAGRAMS,
    &READABLE_SOCKETS,
    &SOCKET_HOOKS,
    &ASSOCIATION_REQUESTS,
];

/// Programs on tracepoints, with their arguments' types (`tp_btf`).
pub static TYPED_TRACEPOINTS: Requirement = Requirement {
    name: "typed tracepoints",
    program: "typed_tracepoints",
    since: Release(5, 5),
    until: None,
    sign: None,
    mend: "kubectl gadget deploy (the agent needs the capabilities BPF and PERFMON), on a kernel with BTF",
};

/// Programs on functions, entered through a trampoline (`fentry`, `fexit`). Those of before 5.12 are not safe where the
/// function may sleep.
pub static TRAMPOLINES: Requirement = Requirement {
    name: "trampolines",
    program: "trampolines",
    since: Release(5, 12),
    until: None,
    sign: Some("available_filter_functions"),
    mend: "a kernel whose functions may be patched: CONFIG_DYNAMIC_FTRACE, and no hypervisor or security module against it",
};

/// Programs on functions, entered through a breakpoint (`kprobe`).
pub static KPROBES: Requirement = Requirement {
    name: "kprobes",
    program: "kprobes",
    since: Release(4, 1),
    until: None,
    sign: Some("kprobe_events"),
    mend: "sysctl -w kernel.perf_event_paranoid=2, on a kernel with CONFIG_KPROBE_EVENTS that is not locked down",
};

/// Programs on tracepoints, by their number in tracefs (`tracepoint`).
pub static TRACEPOINTS: Requirement = Requirement {
    name: "tracepoints",
    program: "tracepoints",
    since: Release(4, 7),
    until: None,
    sign: Some("events"),
    mend: "sysctl -w kernel.perf_event_paranoid=2; mount -t tracefs tracefs /sys/kernel/tracing",
};

/// The same for the tracepoints of single system calls (`tracepoint/syscalls/…`).
pub static SYSCALL_TRACEPOINTS: Requirement = Requirement {
    name: "system call tracepoints",
    program: "syscall_tracepoints",
    since: Release(4, 7),
    until: None,
    sign: Some("events/syscalls"),
    mend: "sysctl -w kernel.perf_event_paranoid=2; mount -t tracefs tracefs /sys/kernel/tracing; CONFIG_FTRACE_SYSCALLS",
};

/// Programs that a processor's clock calls, so and so many times a second (`perf_event`).
pub static PERF_EVENTS: Requirement = Requirement {
    name: "perf events",
    program: "perf_events",
    since: Release(4, 9),
    until: None,
    sign: None,
    mend: "sysctl -w kernel.perf_event_paranoid=2",
};

/// A tracepoint at the scheduler's tick: of read-copy-update, which counts there.
pub static TICK_TRACEPOINT: Requirement = Requirement {
    name: "the tracepoint of the tick",
    program: "tick_tracepoint",
    since: Release(5, 5),
    until: None,
    sign: None,
    mend: "a kernel with BTF and CONFIG_RCU_TRACE",
};

/// Tracepoints where io_uring takes and completes requests.
pub static URING_TRACEPOINTS: Requirement = Requirement {
    name: "tracepoints of io_uring",
    program: "uring_tracepoints",
    since: Release(6, 4),
    until: None,
    sign: None,
    mend: "a kernel of 6.4 or later with BTF and CONFIG_IO_URING",
};

/// What a program keeps with a socket, from typed tracepoints and iterators (5.11), and changes atomically (5.12).
pub static SOCKET_STORAGE: Requirement = Requirement {
    name: "socket storage",
    program: "socket_storage",
    since: Release(5, 12),
    until: None,
    sign: None,
    mend: "a kernel of 5.12 or later with BTF, CONFIG_NET and CONFIG_INET",
};

/// A tracepoint where capabilities are checked.
pub static CAPABILITY_TRACEPOINT: Requirement = Requirement {
    name: "the tracepoint of capabilities",
    program: "capability_tracepoint",
    since: Release(6, 14),
    until: None,
    sign: None,
    mend: "a kernel of 6.14 or later with BTF",
};

/// A tracepoint where a datagram is freed by who has taken it, before 6.18 left that to whoever made it.
pub static FREED_DATAGRAMS: Requirement = Requirement {
    name: "the tracepoint of freed datagrams",
    program: "freed_datagrams",
    since: OLDEST,
    until: Some(Release(6, 18)),
    sign: None,
    mend: "a kernel before 6.18, with BTF",
};

/// A function to which a datagram is handed, from 6.18 on, by who has taken it.
pub static DEFERRED_DATAGRAMS: Requirement = Requirement {
    name: "the function that frees datagrams",
    program: "deferred_datagrams",
    since: Release(6, 18),
    until: None,
    sign: None,
    mend: "a kernel of 6.18 or later with BTF, whose functions may be patched",
};

/// Functions that ask security modules what a program may do with sockets, where it connects and accepts.
pub static SOCKET_HOOKS: Requirement = Requirement {
    name: "security hooks of sockets",
    program: "socket_hooks",
    since: OLDEST,
    until: None,
    sign: None,
    mend: "a kernel with BTF and CONFIG_SECURITY_NETWORK, whose functions may be patched",
};

/// A function that asks security modules whether a peer may have an association of SCTP, with types that say whose it is.
pub static ASSOCIATION_REQUESTS: Requirement = Requirement {
    name: "the security hook of associations",
    program: "association_requests",
    since: OLDEST,
    until: None,
    sign: None,
    mend: "a kernel with BTF, CONFIG_SECURITY_NETWORK, and CONFIG_IP_SCTP=y or CONFIG_SECURITY_SELINUX, whose functions may be patched",
};

/// Tracepoints where a socket gets something to read, and where it is read.
pub static READABLE_SOCKETS: Requirement = Requirement {
    name: "tracepoints of readable sockets",
    program: "readable_sockets",
    since: Release(6, 3),
    until: None,
    sign: None,
    mend: "a kernel of 6.3 or later with BTF",
};

impl Requirement {
    /// Whether kernels of a release should be able to.
    pub fn is_of(&self, release: Release) -> bool {
        release >= self.since && self.until.is_none_or(|until| release < until)
    }
}

impl Release {
    /// Of a kernel's release, as in `6.1.0-50-cloud-amd64`; `None` if it does not begin like that.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|character: char| !character.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "{} (kernels before {until})", self.name),
            None => write!(f, "{} (kernel {})", self.name, self.since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert_eq!(Release::parse("6.1.0-50-cloud-amd64"), Some(Release(6, 1)));
        assert_eq!(Release::parse("5.10"), Some(Release(5, 10)));
        assert!(Release(5, 4) < Release(5, 10) && Release(5, 15) < Release(6, 1));
        assert_eq!(Release::parse("linux"), None);
        assert_eq!(Release::parse(""), None);
    }

    #[test]
    fn each_has_its_program() {
        let object = bpf::object("features").unwrap_or_default();
        let text = String::from_utf8_lossy(object);
        for requirement in REQUIREMENTS {
            assert!(text.contains(requirement.program), "{}", requirement.program);
        }
    }
}
