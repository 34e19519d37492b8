/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A connection of TCP: its two ends, and what went over it, as the kernel counts it anyway.
 */
#pragma once

#include "endpoint.h"

/* Its own port is kept there when the socket has given it back. */
static __always_inline void read_endpoints(const struct sock *sk, struct gadget_address_and_port *local,
					   struct gadget_address_and_port *peer)
{
	endpoint_of_socket(local, sk);
	local->port = bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
	endpoint_of_peer(peer, sk);
}

struct traffic {
	__u64 sent; /* bytes, each counted once */
	__u64 received;
	__u32 retransmits; /* segments */
};

#define SOCK_DONE 1 /* enum sock_flags: a FIN has come */

/* All since the connection began, of the kernel's counters. */
static __always_inline struct traffic traffic_of(__u64 sent, __u64 sent_again, __u64 received, unsigned long flags,
						 __u32 retransmits)
{
	struct traffic traffic = {
		/* What cannot be sent again for want of memory counts as if it were. */
		.sent = sent > sent_again ? sent - sent_again : 0,
		/* The peer's FIN counts as one byte. */
		.received = received && flags & 1 << SOCK_DONE ? received - 1 : received,
		.retransmits = retransmits,
	};

	return traffic;
}

static __always_inline struct traffic read_traffic(const struct sock *sk)
{
	const struct tcp_sock *tcp = (const void *)sk;

	return traffic_of(BPF_CORE_READ(tcp, bytes_sent), BPF_CORE_READ(tcp, bytes_retrans), BPF_CORE_READ(tcp, bytes_received),
			  BPF_CORE_READ(sk, __sk_common.skc_flags), BPF_CORE_READ(tcp, total_retrans));
}

/* The same of a socket whose type the verifier knows: no calls that may fail. */
static __always_inline struct traffic read_typed_traffic(const struct sock *sk, const struct tcp_sock *tcp)
{
	return traffic_of(tcp->bytes_sent, tcp->bytes_retrans, tcp->bytes_received, sk->__sk_common.skc_flags,
			  tcp->total_retrans);
}
