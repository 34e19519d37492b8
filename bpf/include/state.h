/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * For gadgets that keep something until another event: what finds no room is counted, since that event will be missing.
 */
#pragma once

#include "gadget.h"

/* As gadget_lost. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, __u32);
	__type(value, __u64);
} gadget_unkept SEC(".maps");

static __always_inline void gadget_count_unkept(__u32 slot)
{
	gadget_count(&gadget_unkept, slot);
}
