//! opensnoop: files that are opened.

use super::{Gadget, Hook, Parameter, ParameterKind, SYSCALL_TRACEPOINTS, TRAMPOLINES, TYPED_TRACEPOINTS, Variant};

/// arm64 has openat(2) alone.
const HAS_OPEN: bool = cfg!(not(target_arch = "aarch64"));

pub(super) static OPENSNOOP: Gadget = Gadget {
    name: "opensnoop",
    aliases: &["open"],
    summary: "files that are opened, and attempts that failed",
    description: "One row for each open and openat. RET is the file descriptor, or the error. PATH is what the program \
                  asked for, as it wrote it: relative paths stay relative. An ellipsis (in JSON path_truncated) marks a \
                  path that is longer than the kernel takes, or could not be read.",
    object: || bpf::object("opensnoop").unwrap_or_default(),
    parameters: &[Parameter {
        name: "failed",
        constant: "failed_only",
        kind: ParameterKind::Flag,
        doc: "Show only attempts that failed",
    }],
    columns: &["pid", "comm", "uid", "ret", "path"],
    hooks: &[Hook {
        name: "open",
        without: None,
        variants: &[
            Variant {
                name: "fexit",
                programs: if HAS_OPEN { &["openat_returned", "open_returned"] } else { &["openat_returned"] },
                requires: &[&TRAMPOLINES],
                cost: "each open of the node",
            },
            Variant {
                name: "tracepoint",
                programs: if HAS_OPEN { &["openat_exited", "open_exited"] } else { &["openat_exited"] },
                requires: &[&SYSCALL_TRACEPOINTS],
                cost: "each open of the node, and a little each system call",
            },
            Variant {
                name: "tp_btf",
                programs: &["any_open_exited"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each system call of the node",
            },
        ],
    }],
};
