//! snapshot-file: the files that processes have open.

use super::{Gadget, Hook, Shows, TYPED_TRACEPOINTS, Variant};

pub(super) static SNAPSHOT_FILE: Gadget = Gadget {
    name: "snapshot-file",
    aliases: &[],
    summary: "files that are open now",
    description: "One row for each descriptor of each process. PATH is as the process would write it, from its own root. What lies in no directory has \
                  none: pipes and sockets, which INODE tells apart, and what the kernel made for eventfd, epoll and the like, whose NAME it has. A \
                  file with 0 LINKS was deleted, and goes when the last process closes it.",
    object: || bpf::object("snapshot-file").unwrap_or_default(),
    parameters: &[],
    columns: &["pid", "comm", "fd", "kind", "flags", "size", "links", "path", "name"],
    shows: Shows::Present,
    report: None,
    hooks: &[Hook {
        name: "files",
        without: None,
        variants: &[Variant {
            name: "iter",
            programs: &["list_files"],
            requires: &[&TYPED_TRACEPOINTS],
            cost: "who asks",
            lacks: None,
        }],
    }],
};
