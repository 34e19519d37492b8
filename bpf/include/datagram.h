/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Datagrams of UDP that came: whence and whereto, and how the program that takes them is found.
 */
#pragma once

#include "endpoint.h"

#define SOCK_DGRAM 2

/* Whether it is one for datagrams: of UDP, not raw. */
static __always_inline bool is_udp_socket(const struct sock *sk)
{
	__u16 protocol = BPF_CORE_READ(sk, sk_protocol);

	return (protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE) && BPF_CORE_READ(sk, sk_type) == SOCK_DGRAM;
}

/*
 * Whether it has waited in the queue of a socket of UDP, which notes two numbers and two truths where the device was. No
 * address of the kernel looks like that.
 */
static __always_inline bool is_datagram_that_waited(const struct sk_buff *skb)
{
	__u64 scratch = BPF_CORE_READ(skb, dev_scratch);

	return scratch && scratch >> 56 <= 1 && (scratch >> 48 & 0xff) <= 1;
}

/* Reads both ends of a datagram that came. Returns its protocol; 0 if it is none of IP. */
static __always_inline __u8 endpoints_of_datagram(struct gadget_address_and_port *from, struct gadget_address_and_port *to,
						  const struct sk_buff *skb)
{
	__u8 protocol = endpoints_of_packet(from, to, skb);

	/* Other headers may stand before UDP's. */
	return !protocol || protocol == IPPROTO_UDPLITE ? protocol : IPPROTO_UDP;
}
