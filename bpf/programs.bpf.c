// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * programs: lists all BPF programs of the kernel, once for each read of the iterator.
 *
 * bpf(2) lists them for CAP_SYS_ADMIN alone; an iterator (5.9) is content with CAP_BPF and CAP_PERFMON.
 */
#include "context.h"

#define NAME_LEN 16
#define HOOK_LEN 64

struct program {
	__u32 id;
	__u32 type; /* enum bpf_prog_type */
	char name[NAME_LEN];
	char hook[HOOK_LEN]; /* what it is attached to by BTF */
};

SEC("iter/bpf_prog")
int list_programs(struct bpf_iter__bpf_prog *ctx)
{
	struct bpf_prog *prog = ctx->prog;
	struct program out = {};

	if (!prog)
		return 0;
	out.id = prog->aux->id;
	out.type = prog->type;
	bpf_probe_read_kernel_str(out.name, sizeof(out.name), prog->aux->name);
	bpf_probe_read_kernel_str(out.hook, sizeof(out.hook), prog->aux->attach_func_name);
	bpf_seq_write(ctx->meta->seq, &out, sizeof(out));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
