/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose a socket is: not the current task's. What happens to a socket often happens in an interrupt, and a pod with hostNetwork
 * shares its addresses with the host.
 *
 * The kernel keeps with each socket the cgroup in which it was made, or its listener if it was accepted, also when the socket
 * is passed on. Where it does not (cgroup v1 alone; before 5.15 once net_cls or net_prio is used), the owner is whoever
 * connected or listened, recorded at that time, and for what was accepted whoever listened last at its address. Such an
 * event is marked GADGET_RECORDED_OWNER. A socket that was there before has no owner then, unless a gadget has looked for it,
 * nor has, until somebody takes it, what is accepted at a port that listen chose itself; such events go to those who watch
 * the host.
 */
#pragma once

#include "filter.h"

/* Owners that were recorded, by the socket's address: a new socket at the same address overwrites it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* set by the agent: few, where the kernel keeps owners */
	__type(key, __u64);
	__type(value, __u64); /* cgroup */
} socket_owners SEC(".maps");

struct listener {
	__u32 network; /* inum of its namespace */
	__u16 port;    /* host byte order */
	__u16 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* the same */
	__type(key, struct listener);
	__type(value, __u64); /* cgroup */
} socket_listeners SEC(".maps");

static __always_inline struct listener socket_address(const struct sock *sk)
{
	struct listener address = {
		.network = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum),
		.port = BPF_CORE_READ(sk, __sk_common.skc_num),
		.protocol = BPF_CORE_READ(sk, sk_protocol),
	};

	return address;
}

static __always_inline void record_owner(const struct sock *sk, __u64 cgroup, bool listens)
{
	struct listener address;
	__u64 key = (__u64)sk;

	bpf_map_update_elem(&socket_owners, &key, &cgroup, BPF_ANY);
	if (listens) {
		address = socket_address(sk);
		bpf_map_update_elem(&socket_listeners, &address, &cgroup, BPF_ANY);
	}
}

/* Somebody's before anything was recorded, who is in this cgroup. */
static __always_inline void socket_found(const struct sock *sk, __u64 cgroup)
{
	if (!socket_cgroup(sk))
		record_owner(sk, cgroup, BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN);
}

/* The current task's, for what a system call does before the socket changes its state. */
static __always_inline void socket_used(const struct sock *sk)
{
	if (!socket_cgroup(sk))
		record_owner(sk, current_cgroup(current_task()), false);
}

/* By the current task, in accept. Of whoever listens since before anything was recorded nobody knows more. */
static __always_inline void socket_taken(const struct sock *sk)
{
	__u64 key = (__u64)sk;

	if (!socket_cgroup(sk) && !bpf_map_lookup_elem(&socket_owners, &key))
		record_owner(sk, current_cgroup(current_task()), false);
}

/* Keeps record of owners where the kernel does not. To be called at every change of a socket's state, first of all. */
static __always_inline void socket_changed(const struct sock *sk, int old, int new)
{
	__u64 key = (__u64)sk, *listens;
	struct listener address;

	if (socket_cgroup(sk))
		return;
	if (old == TCP_CLOSE && new != TCP_CLOSE) {
		/* In the task that calls connect or listen. */
		record_owner(sk, current_cgroup(current_task()), new == TCP_LISTEN);
	} else if (old == TCP_LISTEN && new == TCP_SYN_RECV) {
		/* The start of a socket that will be accepted. */
		address = socket_address(sk);
		listens = bpf_map_lookup_elem(&socket_listeners, &address);
		if (listens)
			record_owner(sk, *listens, false);
		else
			bpf_map_delete_elem(&socket_owners, &key);
	}
}

/*
 * Fills the header for an event of a socket, if somebody wants it. Which tasks are wanted is for the gadget to ask: nobody
 * knows whether the current one has to do with it.
 */
static __always_inline bool gadget_socket_wanted(struct gadget_header *header, __u16 stream, const struct sock *sk)
{
	__u64 cgroup = socket_cgroup(sk), key = (__u64)sk, *recorded = NULL;
	bool is_kept = cgroup;

	if (!is_kept) {
		recorded = bpf_map_lookup_elem(&socket_owners, &key);
		cgroup = recorded ? *recorded : 0;
	}
	if (!gadget_cgroup_wanted(header, stream, cgroup))
		return false;
	if (recorded)
		header->flags |= GADGET_RECORDED_OWNER;
	return true;
}
