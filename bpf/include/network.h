/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose a network namespace is: that of the pod whose processes are in it. The host's is that of its first process. Processes that look
 * into a pod's do not count: those of the host, nor those of another pod that come after the pod's own.
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

/* To be called for each process, first for the host's first one. Returns whether nobody's was known to be in it. */
static __always_inline bool network_found(struct net *net, struct task_struct *task, bool is_first)
{
	__u32 slot = SLOT_HOST;
	bool is_new;

	if (bpf_map_lookup_elem(&networks, &net))
		return false;
	if (!is_first) {
		slot = slot_of(task_cgroup(task), &is_new);
		if (slot == SLOT_HOST)
			return false;
	}
	/* Before 6.4 the result has 32 bits. */
	if ((int)bpf_map_update_elem(&networks, &net, &slot, BPF_ANY))
		gadget_count_lost(slot);
	return true;
}
