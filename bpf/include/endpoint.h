/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses and ports: of sockets, of packets, and as programs write them.
 */
#pragma once

#include "gadget.h"

#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define AF_INET 2
#define AF_INET6 10

/* As IPv6 has it. */
static __always_inline void endpoint_set_ipv4(struct gadget_address_and_port *endpoint, __be32 address)
{
	__builtin_memset(endpoint->address, 0, 10);
	endpoint->address[10] = 0xff;
	endpoint->address[11] = 0xff;
	__builtin_memcpy(endpoint->address + 12, &address, sizeof(address));
}

static __always_inline bool is_internet(__u16 family)
{
	return family == AF_INET || family == AF_INET6;
}

/* Whether it is one of IP, of this protocol. */
static __always_inline bool is_internet_socket(const struct sock *sk, __u16 protocol)
{
	return sk && BPF_CORE_READ(sk, sk_protocol) == protocol && is_internet(BPF_CORE_READ(sk, __sk_common.skc_family));
}

/* Where a socket is bound. */
static __always_inline void endpoint_of_socket(struct gadget_address_and_port *endpoint, const struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6)
		BPF_CORE_READ_INTO(&endpoint->address, sk, __sk_common.skc_v6_rcv_saddr);
	else
		endpoint_set_ipv4(endpoint, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
	endpoint->port = BPF_CORE_READ(sk, __sk_common.skc_num);
}

/* What it is connected to. */
static __always_inline void endpoint_of_peer(struct gadget_address_and_port *endpoint, const struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6)
		BPF_CORE_READ_INTO(&endpoint->address, sk, __sk_common.skc_v6_daddr);
	else
		endpoint_set_ipv4(endpoint, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	endpoint->port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

static __always_inline void endpoint_set_in(struct gadget_address_and_port *endpoint, const struct sockaddr_in *in)
{
	endpoint_set_ipv4(endpoint, in->sin_addr.s_addr);
	endpoint->port = bpf_ntohs(in->sin_port);
}

static __always_inline void endpoint_set_in6(struct gadget_address_and_port *endpoint, const struct sockaddr_in6 *in6)
{
	__builtin_memcpy(endpoint->address, &in6->sin6_addr, sizeof(endpoint->address));
	endpoint->port = bpf_ntohs(in6->sin6_port);
}

/* Older programs leave out the scope at its end. */
#define SOCKADDR_IN6_MIN (sizeof(struct sockaddr_in6) - sizeof(__u32))

/* Reads a struct sockaddr of the current task. Returns its family; 0 if it cannot be read. */
static __always_inline __u16 endpoint_of_sockaddr(struct gadget_address_and_port *endpoint, const void *address, __u32 size)
{
	struct sockaddr_in6 in6 = {};
	struct sockaddr_in in = {};

	if (size < sizeof(in) || bpf_probe_read_user(&in, sizeof(in), address))
		return 0;
	if (in.sin_family == AF_INET) {
		endpoint_set_in(endpoint, &in);
	} else if (in.sin_family == AF_INET6) {
		if (size < SOCKADDR_IN6_MIN || bpf_probe_read_user(&in6, SOCKADDR_IN6_MIN, address))
			return 0;
		endpoint_set_in6(endpoint, &in6);
	}
	return in.sin_family;
}

/* The same of one that the kernel has copied already. */
static __always_inline __u16 endpoint_of_copied_sockaddr(struct gadget_address_and_port *endpoint, const void *address,
							 __u32 size)
{
	struct sockaddr_in6 in6 = {};
	struct sockaddr_in in = {};

	if (size < sizeof(in) || bpf_probe_read_kernel(&in, sizeof(in), address))
		return 0;
	if (in.sin_family == AF_INET) {
		endpoint_set_in(endpoint, &in);
	} else if (in.sin_family == AF_INET6) {
		if (size < SOCKADDR_IN6_MIN || bpf_probe_read_kernel(&in6, SOCKADDR_IN6_MIN, address))
			return 0;
		endpoint_set_in6(endpoint, &in6);
	}
	return in.sin_family;
}

static __always_inline unsigned char *transport_header(const struct sk_buff *skb)
{
	return BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, transport_header);
}

/*
 * Reads both ends of a packet that came, of a protocol whose header begins with the ports, as those of TCP, UDP and SCTP do.
 * Returns what IP's own header names next, which may be another header of IPv6; 0 if it is no packet of IP.
 */
static __always_inline __u8 endpoints_of_packet(struct gadget_address_and_port *from, struct gadget_address_and_port *to,
						const struct sk_buff *skb)
{
	unsigned char *network = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
	__be16 ports[2] = {};
	__u8 next;

	if (BPF_CORE_READ(skb, protocol) == bpf_htons(ETH_P_IP)) {
		struct iphdr ip = {};

		bpf_probe_read_kernel(&ip, sizeof(ip), network);
		next = ip.protocol;
		endpoint_set_ipv4(from, ip.saddr);
		endpoint_set_ipv4(to, ip.daddr);
	} else if (BPF_CORE_READ(skb, protocol) == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip = {};

		bpf_probe_read_kernel(&ip, sizeof(ip), network);
		next = ip.nexthdr;
		__builtin_memcpy(from->address, &ip.saddr, sizeof(from->address));
		__builtin_memcpy(to->address, &ip.daddr, sizeof(to->address));
	} else {
		return 0;
	}
	bpf_probe_read_kernel(ports, sizeof(ports), transport_header(skb));
	from->port = bpf_ntohs(ports[0]);
	to->port = bpf_ntohs(ports[1]);
	return next;
}
