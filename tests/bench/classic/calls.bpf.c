// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What traceloop is measured beside. A record where a call begins and another where it ends, both in the processor's perf buffer,
 * which is written over. Nothing that arguments point to is copied.
 */
#include "classic.h"

struct moment {
	__u64 time;
	__s64 number;
	__u32 pid;
	__u32 tid;
	char comm[TASK_COMM_LEN];
};

struct begun {
	struct moment moment;
	__u64 args[6];
};

struct ended {
	struct moment moment;
	__s64 ret;
};

/* By processor; as many as there are. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} buffers SEC(".maps");

static __always_inline void set_moment(struct moment *moment, __s64 number)
{
	__u64 id = bpf_get_current_pid_tgid();

	moment->time = bpf_ktime_get_ns();
	moment->number = number;
	moment->pid = id >> 32;
	moment->tid = id;
	bpf_get_current_comm(moment->comm, sizeof(moment->comm));
}

SEC("tracepoint/raw_syscalls/sys_enter")
int call_begins(struct call_begins *ctx)
{
	struct begun begun = {};

	if (!is_watched())
		return 0;
	set_moment(&begun.moment, ctx->number);
	__builtin_memcpy(begun.args, ctx->args, sizeof(begun.args));
	bpf_perf_event_output(ctx, &buffers, BPF_F_CURRENT_CPU, &begun, sizeof(begun));
	return 0;
}

SEC("tracepoint/raw_syscalls/sys_exit")
int call_ends(struct call_ends *ctx)
{
	struct ended ended = {};

	if (!is_watched())
		return 0;
	set_moment(&ended.moment, ctx->number);
	ended.ret = ctx->ret;
	bpf_perf_event_output(ctx, &buffers, BPF_F_CURRENT_CPU, &ended, sizeof(ended));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
