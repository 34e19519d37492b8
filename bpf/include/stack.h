/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of the kernel. Each is kept once, under a number that nobody can guess an address from; records carry the number, and
 * stacks.bpf.c gives out the names of its functions. User space takes away those that it knows: one that comes again gets another number.
 */
#pragma once

#include "gadget.h"

const volatile bool gadget_wants_stacks = true; /* else there is no room for them */

#define STACK_FRAMES 127 /* the kernel gives out no more, unless it is told to */

/* What a process is from one exec to the next. /proc/PID/stat has the same. */
struct gadget_program {
	__u64 pid;
	__u64 started;	 /* when the process has, CLOCK_BOOTTIME, ns */
	__u64 stack_end; /* left to chance with each exec */
	__u64 data_end;	 /* where nothing is left to chance, programs differ in this */
};

struct gadget_stack {
	__u64 number;
	__u32 frame_count;
	__u32 is_named;		       /* of the kernel: its names have been given out */
	struct gadget_program program; /* whose it is, if it is not the kernel's */
	__u64 frames[STACK_FRAMES];    /* innermost first */
};

/* By a hash of their frames. */
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

/* How many new stacks may come before user space is called, by gadgets that call it for some records only: there is room for some thousand. */
#define STACKS_WITHOUT_CALL 512

/* Those of the kernel and of programs. */
__u64 gadget_stacks_since_call;

static __always_inline __u64 hash_with(__u64 hash, __u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15;
	return hash ^ hash >> 32;
}

/* Of the frames, whosever they are. */
static __always_inline __u64 hash_of_stack(const struct gadget_stack *stack)
{
	const struct gadget_program *program = &stack->program;
	__u64 hash = hash_with(hash_with(program->pid, program->started), program->stack_end + program->data_end);
	__u32 i;

	hash = hash_with(hash, stack->frame_count);
	for (i = 0; i < STACK_FRAMES && i < stack->frame_count; i++)
		hash = hash_with(hash, stack->frames[i]);
	return hash;
}

/* Neither of the two numbers that mean something else. */
static __always_inline __u64 stack_number(__u64 number)
{
	return (number | 1) & ~2ull;
}

/* The number of a stack whose frames take so many bytes, or why it has none. */
static __always_inline gadget_kernel_stack kept_kernel_stack(struct gadget_stack *stack, long size)
{
	struct gadget_stack *kept;
	__u64 hash;

	if (size <= 0)
		return GADGET_STACK_NONE;
	stack->frame_count = size / sizeof(stack->frames[0]);
	__builtin_memset(&stack->program, 0, sizeof(stack->program));
	hash = hash_of_stack(stack);
	kept = bpf_map_lookup_elem(&gadget_stacks, &hash);
	if (!kept) {
		stack->number = stack_number((__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32());
		stack->is_named = 0;
		gadget_stacks_since_call++;
		bpf_map_update_elem(&gadget_stacks, &hash, stack, BPF_NOEXIST);
		/* Perhaps another CPU was faster. */
		kept = bpf_map_lookup_elem(&gadget_stacks, &hash);
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
	number = kept_kernel_stack(&buffer->stack, size);
	gadget_give_back(&buffer->users);
	return number;
}
