//! flows: whom pods talk to.

use super::{
    ASSOCIATION_REQUESTS, DEFERRED_DATAGRAMS, FREED_DATAGRAMS, Gadget, Hook, KPROBES, READABLE_SOCKETS, Report,
    ReportForm, SOCKET_HOOKS, SYSCALL_TRACEPOINTS, Shows, TRAMPOLINES, TYPED_TRACEPOINTS, Variant,
};

pub(super) static FLOWS: Gadget = Gadget {
    name: "flows",
    aliases: &["flow"],
    summary: "whom pods talk to by TCP, UDP and SCTP, each peer and port once",
    description: "One row for each peer of a container, port and protocol, the first time that it is seen. DIRECTION is egress if \
                  the container connects or sends first, whatever comes of it, and the port that counts is the peer's; ingress if \
                  the peer does, and the port that counts is the container's own. Answers are no flows, and what stays on loopback \
                  is none. A flow that was not seen for long may be shown again, after some ten thousand others. PID is 0 where \
                  the kernel itself has accepted what came.",
    object: || bpf::object("flows").unwrap_or_default(),
    parameters: &[],
    columns: &["pid", "comm", "direction", "protocol", "local", "peer"],
    shows: Shows::Once,
    report: Some(Report {
        name: "network-policy",
        doc: "NetworkPolicies that let workloads talk to whom they were seen to talk to",
        form: ReportForm::NetworkPolicy,
        parameters: &[],
        machinery: false,
    }),
    hooks: &[
        Hook {
            name: "state",
            without: None,
            variants: &[Variant {
                name: "tp_btf",
                programs: &["state_changes", "state_changes_nested"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each change of a TCP socket's state",
                lacks: None,
            }],
        },
        Hook {
            name: "associations",
            without: Some("flows of SCTP are not shown"),
            variants: &[Variant {
                name: "fentry",
                programs: &["association_begins", "association_begins_by_name", "association_accepted"],
                requires: &[&TRAMPOLINES, &SOCKET_HOOKS],
                cost: "each connect and accept of the node",
                lacks: None,
            }],
        },
        Hook {
            name: "requests",
            without: Some("flows of SCTP to sockets that take many associations are not shown"),
            variants: &[Variant {
                name: "fentry",
                programs: &["association_requested"],
                requires: &[&TRAMPOLINES, &ASSOCIATION_REQUESTS],
                cost: "each association of SCTP that a peer asks for",
                lacks: None,
            }],
        },
        Hook {
            name: "sends",
            without: Some("flows of UDP that begin with a datagram sent are not shown"),
            variants: &[
                Variant {
                    name: "fentry",
                    programs: &["udp_sends", "udpv6_sends"],
                    requires: &[&TRAMPOLINES],
                    cost: "each datagram that is sent",
                    lacks: None,
                },
                Variant {
                    name: "kprobe",
                    programs: &["udp_sends_slowly", "udpv6_sends_slowly"],
                    requires: &[&KPROBES],
                    cost: "each datagram that is sent, more",
                    lacks: None,
                },
                Variant {
                    name: "tracepoint",
                    programs: &["sendto_exited", "sendmsg_exited", "sendmmsg_exited", "write_exited", "writev_exited"],
                    requires: &[&SYSCALL_TRACEPOINTS],
                    cost: "each send and write of the node, and a little each system call",
                    lacks: None,
                },
                Variant {
                    name: "tp_btf",
                    programs: &["any_send_exited"],
                    requires: &[&TYPED_TRACEPOINTS],
                    cost: "each system call of the node",
                    lacks: None,
                },
            ],
        },
        Hook {
            name: "receives",
            without: Some("flows of UDP that begin with a datagram received are not shown"),
            variants: &[
                Variant {
                    name: "fentry",
                    programs: &["datagram_done"],
                    requires: &[&TRAMPOLINES, &FREED_DATAGRAMS],
                    cost: "each datagram that is received",
                    lacks: None,
                },
                Variant {
                    name: "deferred",
                    programs: &["datagram_done", "datagram_deferred"],
                    requires: &[&TRAMPOLINES, &DEFERRED_DATAGRAMS],
                    cost: "each datagram that is received, and a little what TCP receives",
                    lacks: None,
                },
                Variant {
                    name: "freed",
                    programs: &["datagram_freed", "datagram_freed_nested"],
                    requires: &[&FREED_DATAGRAMS],
                    cost: "each packet that is freed",
                    lacks: None,
                },
                Variant {
                    name: "readable",
                    programs: &["socket_readable", "socket_readable_nested", "socket_read"],
                    requires: &[&READABLE_SOCKETS],
                    cost: "all that comes to a socket",
                    lacks: None,
                },
            ],
        },
    ],
};
