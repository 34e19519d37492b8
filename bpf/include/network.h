/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose a network namespace is: that of the pod whose processes are in it. The host's is that of its first process. One in
 * which several pods' are, as with hostNetwork where a node is a container, is the host's as well; processes of the host that look into
 * a pod's do not count.
 */
#pragma once

#include "filter.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct net *);
	__type(value, __u32); /* slot */
} networks SEC(".maps");

static __always_inline __u32 network_slot(struct net *net)
{
	__u32 *slot = bpf_map_lookup_elem(&networks, &net);

	return slot ? *slot : SLOT_HOST;
}

/* To be called for each process, by the iterator: it begins with the first. */
static __always_inline void network_found(struct net *net, struct task_struct *task)
{
	__u32 host = SLOT_HOST, slot, *known;
	bool is_new;

	if (task->pid == 1)
		bpf_map_update_elem(&networks, &net, &host, BPF_ANY);
	slot = slot_of(task_cgroup(task), &is_new);
	if (slot == SLOT_HOST)
		return;
	known = bpf_map_lookup_elem(&networks, &net);
	if (known && *known != slot)
		*known = SLOT_HOST;
	else if (!known && (int)bpf_map_update_elem(&networks, &net, &slot, BPF_ANY))
		gadget_count_lost(slot);
}
