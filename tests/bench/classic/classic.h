/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What our gadgets are measured beside, as tools usually do it: what both of them share. The mount namespace decides, found by
 * following pointers.
 */
#pragma once

#include "kernel.h"

/* Where the kernel puts a call's arguments and its result for tracepoints. */
struct call_begins {
	__u64 common;
	__s64 number;
	__u64 args[6];
};

struct call_ends {
	__u64 common;
	__s64 number;
	__s64 ret;
};

/* Mount namespaces that are watched. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} watched SEC(".maps");

static __always_inline __u32 mount_namespace(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

static __always_inline bool is_watched(void)
{
	__u32 mntns = mount_namespace();

	return bpf_map_lookup_elem(&watched, &mntns);
}
