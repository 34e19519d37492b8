//! opensnoop: files that are opened.

use super::{
    Gadget, Hook, Parameter, SYSCALL_TRACEPOINTS, Shows, TRAMPOLINES, TYPED_TRACEPOINTS, URING_TRACEPOINTS, Variant,
};

/// The programs of a variant. arm64 has neither open(2) nor creat(2).
const fn programs(all: &'static [&'static str]) -> &'static [&'static str] {
    if cfg!(target_arch = "aarch64") { all.split_at(all.len() - 2).0 } else { all }
}

pub(super) static OPENSNOOP: Gadget = Gadget {
    name: "opensnoop",
    aliases: &["open"],
    summary: "files that are opened, and attempts that failed",
    description: "One row for each open, creat, openat, openat2 and open_by_handle_at, and for each open that io_uring makes \
                  (kernel 6.4). RET is the file descriptor, or the \
                  error. PATH is what the program asked for, as it wrote it: relative paths stay relative, and a handle has \
                  none. An ellipsis (in JSON path_truncated) marks a path that is longer than the kernel takes, or could \
                  not be read. FLAGS are as strace shows them.",
    object: || bpf::object("opensnoop").unwrap_or_default(),
    parameters: &[
        Parameter::flag("failed", "failed_only", "Show only attempts that failed"),
        Parameter::flag("paths", "paths", "Tell in FILE which file was opened: whole, without symbolic links")
            .with_column("file"),
        Parameter::flag(
            "quiet-noise",
            "quiet_noise",
            "Leave out what every program looks for when it starts: shared objects and locales",
        ),
    ],
    columns: &["pid", "comm", "uid", "ret", "flags", "path"],
    shows: Shows::Events,
    report: None,
    hooks: &[
        Hook {
            name: "open",
            without: None,
            variants: &[
                Variant {
                    name: "fexit",
                    programs: programs(&[
                        "openat_returned",
                        "openat2_returned",
                        "open_by_handle_at_returned",
                        "open_returned",
                        "creat_returned",
                    ]),
                    requires: &[&TRAMPOLINES],
                    cost: "each open of the node",
                    lacks: None,
                },
                Variant {
                    name: "tracepoint",
                    programs: programs(&[
                        "openat_exited",
                        "openat2_exited",
                        "open_by_handle_at_exited",
                        "open_exited",
                        "creat_exited",
                    ]),
                    requires: &[&SYSCALL_TRACEPOINTS],
                    cost: "each open of the node, and a little each system call",
                    lacks: None,
                },
                Variant {
                    name: "tp_btf",
                    programs: &["any_open_exited"],
                    requires: &[&TYPED_TRACEPOINTS],
                    cost: "each system call of the node",
                    lacks: None,
                },
            ],
        },
        Hook {
            name: "io_uring",
            without: Some("opens that io_uring makes are not shown"),
            variants: &[Variant {
                name: "tp_btf",
                programs: &["uring_submitted", "uring_completed"],
                requires: &[&URING_TRACEPOINTS],
                cost: "each request of io_uring",
                lacks: None,
            }],
        },
    ],
};
