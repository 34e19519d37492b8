/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Events within events. Newer kernels (6.1 for tracepoints) leave out a run of a program that is running on this CPU
 * already: in an interrupt, or in a task that preempts another. At a hook that is also reached from interrupts, that would
 * lose events of busy machines.
 *
 * So a second program, NAME_nested, hangs on the same hook, is called right after the first, and does the work if that has not
 * done it. The agent takes what the second did from what the kernel says it has left out; what remains is a gap.
 *
 * An event has a number, which no other has that is underway on this CPU: the address of what it is about.
 */
#pragma once

#include "gadget.h"

#define GADGET_DONE_MAX 4 /* more than can come in between: a task's, an interrupt's */

struct gadget_nesting {
	__u64 stepped_in; /* how often the second program did the work */
	__u64 count;	  /* of what the first has done */
	/*
	 * What the first has done and the second was not called for yet. For what comes while the second runs it is never called;
	 * what that leaves here is overwritten, the oldest first, or gone with the next event of the same number.
	 */
	struct {
		__u64 event;
		__u64 at; /* the count then */
	} done[GADGET_DONE_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gadget_nesting);
} gadget_nesting SEC(".maps");

static __always_inline struct gadget_nesting *gadget_nesting_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&gadget_nesting, &zero);
}

/* At the end of the first program. */
static __always_inline void gadget_first_did(__u64 event)
{
	struct gadget_nesting *here = gadget_nesting_here();
	__u32 i, place = 0;

	if (!here)
		return;
	for (i = 0; i < GADGET_DONE_MAX; i++) {
		if (here->done[i].event == event) {
			place = i;
			break;
		}
		if (here->done[i].at < here->done[place].at)
			place = i;
	}
	if (place >= GADGET_DONE_MAX)
		return;
	here->done[place].at = ++here->count;
	here->done[place].event = event;
}

/* Whether the work for an event is the second program's. */
static __always_inline bool gadget_second_does(__u64 event)
{
	struct gadget_nesting *here = gadget_nesting_here();
	int i;

	if (!here)
		return false;
	for (i = 0; i < GADGET_DONE_MAX; i++)
		if (here->done[i].event == event) {
			here->done[i].event = 0;
			here->done[i].at = 0;
			return false;
		}
	__sync_fetch_and_add(&here->stepped_in, 1);
	return true;
}

/* Both programs of a typed tracepoint, whose arguments follow. `event` and `work` are expressions of these. */
#define GADGET_NESTED(tracepoint, name, event, work, ...)                                                               \
	SEC("tp_btf/" #tracepoint)                                                                                     \
	int BPF_PROG(name, __VA_ARGS__)                                                                                \
	{                                                                                                              \
		work;                                                                                                  \
		gadget_first_did((__u64)(event));                                                                      \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC("tp_btf/" #tracepoint)                                                                                     \
	int BPF_PROG(name##_nested, __VA_ARGS__)                                                                       \
	{                                                                                                              \
		if (gadget_second_does((__u64)(event)))                                                                \
			work;                                                                                          \
		return 0;                                                                                              \
	}
