/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of programs, as far as frame pointers lead. What their addresses mean only the process knows: user space looks at it as soon as
 * the first of its stacks comes, and again when others do. It finds each by its number, and takes away those that it knows; one that comes
 * again has the same number.
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

/* Those that user space was called for. It takes them away when they are many. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, struct gadget_program);
	__type(value, __u8);
} gadget_user_programs SEC(".maps");

/* Whether user space is to be called for what has a new stack, if it is anybody: since it has none yet, or since there are many. */
static __always_inline bool is_to_be_called(const struct gadget_program *program)
{
	bool is_first = program->pid && !bpf_map_lookup_elem(&gadget_user_programs, program);

	return is_first || gadget_stacks_since_call >= STACKS_WITHOUT_CALL;
}

static __always_inline void was_called(const struct gadget_program *program)
{
	__u8 yes = 1;

	gadget_stacks_since_call = 0;
	if (program->pid)
		bpf_map_update_elem(&gadget_user_programs, program, &yes, BPF_ANY);
}

/* What the current task runs. */
static __always_inline void set_current_program(struct gadget_program *program, __u32 pid)
{
	struct task_struct *task = current_task(), *leader = TASK_MEMBER(struct task_struct, task, group_leader);
	struct mm_struct *mm = TASK_MEMBER(struct task_struct, task, mm);

	program->pid = pid;
	program->started = TASK_MEMBER(struct task_struct, leader, start_boottime);
	program->stack_end = TASK_MEMBER(struct mm_struct, mm, start_stack);
	program->data_end = TASK_MEMBER(struct mm_struct, mm, end_data);
}

/* Its number, or why it has none. If it is new, `whose` says whose it is. */
static __always_inline gadget_user_stack kept_user_stack(struct gadget_stack *stack, __u32 pid, long size, struct gadget_program *whose)
{
	gadget_user_stack number;

	if (size <= 0)
		return GADGET_STACK_NONE;
	stack->frame_count = size / sizeof(stack->frames[0]);
	/* The same addresses mean something else in another program. */
	set_current_program(&stack->program, pid);
	number = stack_number(hash_of_stack(stack));
	if (bpf_map_lookup_elem(&gadget_user_stacks, &number))
		return number;
	stack->number = number;
	if (bpf_map_update_elem(&gadget_user_stacks, &number, stack, BPF_ANY))
		return GADGET_STACK_UNKEPT;
	gadget_stacks_since_call++;
	*whose = stack->program;
	return number;
}

/* The stack of the current task's program, where it entered the kernel. If it is new, `whose` says whose it is. */
static __always_inline gadget_user_stack user_stack(void *ctx, __u32 pid, struct gadget_program *whose)
{
	struct gadget_stack_buffer *buffer = take_stack_buffer();
	gadget_user_stack number;
	long size;

	if (!buffer)
		return GADGET_STACK_UNKEPT;
	size = bpf_get_stack(ctx, buffer->stack.frames, sizeof(buffer->stack.frames), BPF_F_USER_STACK);
	number = kept_user_stack(&buffer->stack, pid, size, whose);
	gadget_give_back(&buffer->users);
	return number;
}
