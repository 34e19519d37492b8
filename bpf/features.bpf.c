// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * features: one program for each thing that not every kernel can do. What loads and attaches, the kernel can.
 *
 * gadgets/src/catalogue/requirement.rs names them. They hang on what only the kernel's own tests of BPF ever call
 * (net/bpf/test_run.c, 5.5), so they never run; but for the last ones.
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

SEC("perf_event")
int perf_events(void *ctx)
{
	return 0;
}

SEC("tp_btf/rcu_utilization")
int tick_tracepoint(void *ctx)
{
	return 0;
}

SEC("tp_btf/io_uring_submit_req")
int uring_tracepoints(void *ctx)
{
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, int);
} sockets SEC(".maps");

SEC("iter/task_file")
int socket_storage(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct socket *socket = file ? bpf_sock_from_file(file) : NULL;
	struct sock *sk = socket ? socket->sk : NULL;
	int *value = sk ? bpf_sk_storage_get(&sockets, sk, NULL, 0) : NULL;

	return value && __sync_fetch_and_add(value, 1);
}

/* Since 6.18 they are freed without it, or later and elsewhere; this came with that. */
struct udp_prod_queue {
} __attribute__((preserve_access_index));

SEC("tp_btf/consume_skb")
int freed_datagrams(void *ctx)
{
	if (bpf_core_type_exists(struct udp_prod_queue))
		REFUSE_PROGRAM();
	return 0;
}

SEC("fentry/skb_attempt_defer_free")
int deferred_datagrams(void *ctx)
{
	if (!bpf_core_type_exists(struct udp_prod_queue))
		REFUSE_PROGRAM();
	return 0;
}

SEC("fentry/security_sock_graft")
int socket_hooks(void *ctx)
{
	return 0;
}

/* What the module knows is in the kernel's own types, too, if that itself looks at it. */
SEC("fentry/security_sctp_assoc_request")
int association_requests(void *ctx)
{
	if (!bpf_core_field_exists(struct sctp_ep_common, sk))
		REFUSE_PROGRAM();
	return 0;
}

/* 6.3 */
SEC("tp_btf/sk_data_ready")
int readable_sockets(void *ctx)
{
	return 0;
}

/* 6.14. It does nothing. */
SEC("tp_btf/cap_capable")
int capability_tracepoint(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
