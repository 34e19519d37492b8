//! tcptop: what goes over connections of TCP.

use super::{Gadget, Hook, SOCKET_STORAGE, Sampled, Shows, TYPED_TRACEPOINTS, Variant};

pub(super) static TCPTOP: Gadget = Gadget {
    name: "tcptop",
    aliases: &[],
    summary: "bytes that go over connections of TCP, by intervals",
    description: "The connections over which something went in the last interval, those with the most bytes first, over all \
                  nodes. What one carried that was opened and closed within an interval is counted, too; the interval in which \
                  it ended shows it. Connections that were there before are seen if a process holds their socket. PID \
                  and COMM are of who connected, or listens at the port; 0 if that is not known (before kernel 5.12, of \
                  accepted connections). --pid, --uid and --comm are about these.",
    object: || bpf::object("tcptop").unwrap_or_default(),
    parameters: &[],
    columns: &["pid", "comm", "local", "peer", "sent", "received", "retransmits"],
    shows: Shows::Sums(Sampled { measures: &["sent", "received", "retransmits"] }),
    report: None,
    hooks: &[Hook {
        name: "connections",
        without: None,
        variants: &[
            Variant {
                name: "storage",
                programs: &["state_changes_kept", "state_changes_kept_nested", "find_kept", "sample_kept"],
                requires: &[&TYPED_TRACEPOINTS, &SOCKET_STORAGE],
                cost: "each change of a TCP socket's state, and each connection once an interval",
                lacks: None,
            },
            Variant {
                name: "hash",
                programs: &["state_changes_listed", "state_changes_listed_nested", "find_listed", "sample_listed"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "the same; at most 65,536 connections",
                lacks: None,
            },
        ],
    }],
};
