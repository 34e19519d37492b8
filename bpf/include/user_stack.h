/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of programs, as far as frame pointers lead. What their addresses mean only the process knows: user space asks while it is there.
 */
#pragma once

#include "stack.h"

/* By a hash of the process and the frames. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, __u64);
	__type(value, struct gadget_stack);
} gadget_user_stacks SEC(".maps");

/* The stack of the current task's program, where it entered the kernel. */
static __always_inline gadget_user_stack user_stack(void *ctx, __u32 pid)
{
	struct gadget_stack_buffer *buffer = take_stack_buffer();
	gadget_user_stack number;
	long size;

	if (!buffer)
		return GADGET_STACK_UNKEPT;
	size = bpf_get_stack(ctx, buffer->stack.frames, sizeof(buffer->stack.frames), BPF_F_USER_STACK);
	number = kept_stack(&gadget_user_stacks, &buffer->stack, pid, size);
	gadget_give_back(&buffer->users);
	return number;
}
