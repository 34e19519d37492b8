// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * features: one program for each thing that not every kernel can do. What loads and attaches, the kernel can.
 *
 * gadgets/src/catalogue/requirement.rs names them. They hang on what only the kernel's own tests of BPF ever call
 * (net/bpf/test_run.c, 5.5), so they never run.
 */
#include "compat.h"

SEC("tp_btf/bpf_test_finish")
int typed_tracepoints(void *ctx)
{
	return 0;
}

/* Before 5.12 the kernel could free a trampoline while somebody sleeps in the function behind it. */
struct bpf_tramp_image {
} __attribute__((preserve_access_index));

SEC("fexit/bpf_fentry_test1")
int trampolines(void *ctx)
{
	if (!bpf_core_type_exists(struct bpf_tramp_image))
		REFUSE_PROGRAM();
	return 0;
}

SEC("kprobe/bpf_fentry_test1")
int kprobes(void *ctx)
{
	return 0;
}

SEC("tracepoint/bpf_test_run/bpf_test_finish")
int tracepoints(void *ctx)
{
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_execve")
int syscall_tracepoints(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
