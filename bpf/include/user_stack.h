/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of programs, as far as frame pointers lead. What their addresses mean only the process knows: user space asks while it is there,
 * and so finds each by its number, at once. It takes away those that it knows; one that comes again has the same number.
 */
#pragma once

#include "stack.h"

/* By their numbers. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, gadget_user_stack);
	__type(value, struct gadget_stack);
} gadget_user_stacks SEC(".maps");

static __always_inline gadget_user_stack kept_user_stack(struct gadget_stack *stack, __u32 pid, long size, bool *is_new)
{
	gadget_user_stack number;

	if (size <= 0)
		return GADGET_STACK_NONE;
	stack->frame_count = size / sizeof(stack->frames[0]);
	/* The same addresses mean something else in another process. */
	number = stack_number(hash_of_frames(stack, pid));
	if (bpf_map_lookup_elem(&gadget_user_stacks, &number))
		return number;
	stack->number = number;
	stack->pid = pid;
	*is_new = true;
	return bpf_map_update_elem(&gadget_user_stacks, &number, stack, BPF_ANY) ? GADGET_STACK_UNKEPT : number;
}

/* The stack of the current task's program, where it entered the kernel. Whether it was not kept yet goes to `is_new`, if so. */
static __always_inline gadget_user_stack user_stack(void *ctx, __u32 pid, bool *is_new)
{
	struct gadget_stack_buffer *buffer = take_stack_buffer();
	gadget_user_stack number;
	long size;

	if (!buffer)
		return GADGET_STACK_UNKEPT;
	size = bpf_get_stack(ctx, buffer->stack.frames, sizeof(buffer->stack.frames), BPF_F_USER_STACK);
	number = kept_user_stack(&buffer->stack, pid, size, is_new);
	gadget_give_back(&buffer->users);
	return number;
}
