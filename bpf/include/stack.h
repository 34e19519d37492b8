/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks. Each is kept once, under a number that nobody can guess an address from; records carry the number, and stacks.bpf.c gives
 * out what is behind it. User space takes away those that it knows: one that comes again is kept under another number.
 */
#pragma once

#include "gadget.h"

const volatile bool gadget_wants_stacks = true; /* else there is no room for them */

#define STACK_FRAMES 127 /* the kernel gives out no more, unless it is told to */

struct gadget_stack {
	__u64 number;
	__u32 frame_count;
	__u32 is_told; /* it has been given out */
	__u32 pid;     /* whose it is; 0 of the kernel */
	__u32 reserved;
	__u64 frames[STACK_FRAMES]; /* innermost first */
};

/* Stacks of the kernel, by a hash of their frames. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, __u64);
	__type(value, struct gadget_stack);
} gadget_stacks SEC(".maps");

struct gadget_stack_buffer {
	__u64 users; /* gadget_take */
	struct gadget_stack stack;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gadget_stack_buffer);
} gadget_stack_buffers SEC(".maps");

/* The same addresses mean something else in another process. */
static __always_inline __u64 hash_of_frames(const struct gadget_stack *stack)
{
	__u64 hash = (__u64)stack->pid << 32 | stack->frame_count;
	__u32 i;

	for (i = 0; i < STACK_FRAMES && i < stack->frame_count; i++) {
		hash = (hash ^ stack->frames[i]) * 0x9e3779b97f4a7c15;
		hash ^= hash >> 32;
	}
	return hash;
}

/* The number under which a map keeps a stack whose frames take so many bytes, or why it has none. */
static __always_inline __u64 kept_stack(void *stacks, struct gadget_stack *stack, __u32 pid, long size)
{
	struct gadget_stack *kept;
	__u64 hash;

	if (size <= 0)
		return GADGET_STACK_NONE;
	stack->pid = pid;
	stack->frame_count = size / sizeof(stack->frames[0]);
	hash = hash_of_frames(stack);
	kept = bpf_map_lookup_elem(stacks, &hash);
	if (!kept) {
		/* Neither of the two that mean something else. */
		stack->number = ((__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1) & ~2ull;
		stack->is_told = 0;
		bpf_map_update_elem(stacks, &hash, stack, BPF_NOEXIST);
		/* Perhaps another CPU was faster. */
		kept = bpf_map_lookup_elem(stacks, &hash);
	}
	return kept ? kept->number : GADGET_STACK_UNKEPT;
}

/* Memory for a stack; NULL if somebody on this CPU has it. */
static __always_inline struct gadget_stack_buffer *take_stack_buffer(void)
{
	struct gadget_stack_buffer *buffer;
	__u32 zero = 0;

	buffer = bpf_map_lookup_elem(&gadget_stack_buffers, &zero);
	return buffer && gadget_take(&buffer->users) ? buffer : NULL;
}

/* The stack of the kernel at a program that was called with this context. */
static __always_inline gadget_kernel_stack kernel_stack(void *ctx)
{
	struct gadget_stack_buffer *buffer = take_stack_buffer();
	gadget_kernel_stack number;
	long size;

	if (!buffer)
		return GADGET_STACK_UNKEPT;
	size = bpf_get_stack(ctx, buffer->stack.frames, sizeof(buffer->stack.frames), 0);
	number = kept_stack(&gadget_stacks, &buffer->stack, 0, size);
	gadget_give_back(&buffer->users);
	return number;
}
