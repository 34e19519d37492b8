//! snapshot-socket: the sockets that processes have open.

use super::{Gadget, Hook, Shows, TYPED_TRACEPOINTS, Variant};

pub(super) static SNAPSHOT_SOCKET: Gadget = Gadget {
    name: "snapshot-socket",
    aliases: &[],
    summary: "sockets that are open now, with their states and queues",
    description: "One row for each descriptor of a socket of IP, or of one for programs of the same host (Unix), which has a PATH in place of \
                  LOCAL and PEER. RECV_QUEUE is what the process has not read, SEND_QUEUE what its peer has not acknowledged; of a socket that \
                  listens connections that wait to be accepted, and how many may. Connections that no process has come last, without one: those that wait \
                  to be accepted, and what is left of those that were closed (time_wait and others).",
    object: || bpf::object("snapshot-socket").unwrap_or_default(),
    parameters: &[],
    columns: &["pid", "comm", "fd", "protocol", "state", "recv_queue", "send_queue", "local", "peer", "path"],
    shows: Shows::Present,
    report: None,
    hooks: &[Hook {
        name: "sockets",
        without: None,
        variants: &[Variant {
            name: "iter",
            programs: &["list_networks", "list_sockets", "list_table_parts"],
            requires: &[&TYPED_TRACEPOINTS],
            cost: "who asks",
            lacks: None,
        }],
    }],
};
