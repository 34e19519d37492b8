// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * stacks: gives out the names of functions for the stacks of the kernel that a gadget has kept, each once.
 *
 * The kernel writes them (5.9): its list of symbols would be read by CAP_SYSLOG alone, and takes 20 MB in memory. A stack is a
 * line with its number, and a line for each frame, innermost first: FUNCTION+OFFSET/SIZE [MODULE].
 */
#include "stack.h"

SEC("iter/bpf_map_elem")
int sample_gadget_stacks(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct gadget_stack *stack = ctx->value;
	__u32 i;

	if (!stack || stack->is_named)
		return 0;
	if (BPF_SEQ_PRINTF(seq, "#%llu\n", stack->number))
		return 0;
	for (i = 0; i < STACK_FRAMES && i < stack->frame_count; i++)
		/* What found no room is asked for again. */
		if (BPF_SEQ_PRINTF(seq, "%pB\n", stack->frames[i]))
			return 0;
	stack->is_named = 1;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
