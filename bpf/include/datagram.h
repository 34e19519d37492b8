/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Datagrams of UDP that came: whence and whereto, and how the program that takes them is found.
 */
#pragma once

#include "endpoint.h"

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

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
	unsigned char *head = BPF_CORE_READ(skb, head), *network = head + BPF_CORE_READ(skb, network_header);
	struct udphdr udp = {};
	__u8 protocol;

	if (BPF_CORE_READ(skb, protocol) == bpf_htons(ETH_P_IP)) {
		struct iphdr ip = {};

		bpf_probe_read_kernel(&ip, sizeof(ip), network);
		protocol = ip.protocol;
		endpoint_set_ipv4(from, ip.saddr);
		endpoint_set_ipv4(to, ip.daddr);
	} else if (BPF_CORE_READ(skb, protocol) == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip = {};

		bpf_probe_read_kernel(&ip, sizeof(ip), network);
		protocol = ip.nexthdr;
		__builtin_memcpy(from->address, &ip.saddr, sizeof(from->address));
		__builtin_memcpy(to->address, &ip.daddr, sizeof(to->address));
	} else {
		return 0;
	}
	bpf_probe_read_kernel(&udp, sizeof(udp), head + BPF_CORE_READ(skb, transport_header));
	from->port = bpf_ntohs(udp.source);
	to->port = bpf_ntohs(udp.dest);
	/* Other headers may stand before UDP's. */
	return protocol == IPPROTO_UDPLITE ? protocol : IPPROTO_UDP;
}
