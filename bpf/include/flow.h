/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A flow: a container's peer, and who began. Each is shown once; the kernel remembers which were.
 */
#pragma once

#include "endpoint.h"
#include "socket.h"

enum direction {
	egress = 0,
	ingress = 1,
};

enum protocol {
	tcp = 6,
	udp = 17,
	sctp = 132,
	udplite = 136,
};

struct flow {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process that connects, sends or receives; 0 if the kernel accepted it");
	gadget_uid uid GADGET_DOC("user id of the process, or whose the socket is");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the thread; empty if the kernel accepted it");
	enum direction direction GADGET_DOC("egress if the container began, ingress if the peer did");
	enum protocol protocol GADGET_DOC("tcp, udp, sctp or udplite");
	gadget_policy_peer local GADGET_DOC("its own address and port, as far as it is bound by then");
	gadget_policy_peer peer GADGET_DOC("address and port at the other end");
};

GADGET_STREAM(events, struct flow, 0);

/* What makes two flows the same: of ports only that of who answers. */
struct flow_key {
	__u64 cgroup;
	struct in6_addr peer;
	__u16 port;
	__u8 direction;
	__u8 protocol;
	__u32 reserved;
};

/* Those that were shown. One that was not seen for long may be put out by another. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct flow_key);
	__type(value, __u8);
} shown SEC(".maps");

#define EEXIST 17

static __always_inline struct flow_key key_of(const struct flow *flow, enum direction direction)
{
	struct flow_key key = {
		.cgroup = flow->header.cgroup,
		.port = direction == egress ? flow->peer.port : flow->local.port,
		.direction = direction,
		.protocol = flow->protocol,
	};

	__builtin_memcpy(&key.peer, flow->peer.address, sizeof(key.peer));
	return key;
}

static __always_inline bool is_shown(const struct flow *flow, enum direction direction)
{
	struct flow_key key = key_of(flow, direction);

	return bpf_map_lookup_elem(&shown, &key);
}

static __always_inline void show(struct flow *flow, enum direction direction)
{
	struct flow_key key = key_of(flow, direction);
	__u8 yes = true;

	/* On another CPU it may be seen as well. Before 6.4 the result has 32 bits. */
	if ((int)bpf_map_update_elem(&shown, &key, &yes, BPF_NOEXIST) == -EEXIST)
		return;
	flow->direction = direction;
	/* What was lost may be shown another time. */
	if (!gadget_send(&events, &flow->header, sizeof(*flow)))
		bpf_map_delete_elem(&shown, &key);
}

#define IPV4_AS_IPV6 bpf_htonl(0xffff)

/* Whether it stays inside: with a loopback address, or none, which means that, or between a socket's own address and itself. */
static __always_inline bool is_inside(const struct flow *flow)
{
	struct in6_addr peer, local;
	__be32 *p = peer.s6_addr32, *l = local.s6_addr32;

	__builtin_memcpy(&peer, flow->peer.address, sizeof(peer));
	__builtin_memcpy(&local, flow->local.address, sizeof(local));
	if (p[0] == l[0] && p[1] == l[1] && p[2] == l[2] && p[3] == l[3])
		return true;
	if (p[0] || p[1])
		return false;
	if (p[2] == IPV4_AS_IPV6)
		return !p[3] || (p[3] & bpf_htonl(0xff000000)) == bpf_htonl(127u << 24);
	return !p[2] && (!p[3] || p[3] == bpf_htonl(1));
}

static __always_inline void set_current_task(struct flow *flow)
{
	struct task_struct *task = current_task();

	name_task(flow, task);
}

/* In an interrupt nobody knows the process, but for its user. */
static __always_inline bool is_wanted_of_socket(struct flow *flow, const struct sock *sk)
{
	if (!gadget_socket_wanted(&flow->header, 0, sk))
		return false;
	flow->uid = BPF_CORE_READ(sk, sk_uid.val);
	return known_task_wanted(flow->pid, flow->uid, flow->comm);
}
