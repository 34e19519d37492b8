// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What opensnoop is measured beside. A program where the call begins keeps its arguments in a map, another where it ends makes a
 * record of fixed size of them, and each record wakes the reader.
 */
#include "classic.h"

#define PATH_LENGTH 256

struct begun {
	const char *path;
	__u32 flags;
};

struct event {
	__u64 time;
	__u32 pid;
	__u32 tid;
	__u32 uid;
	__s32 ret;
	__u32 flags;
	__u32 mntns;
	char comm[TASK_COMM_LEN];
	char path[PATH_LENGTH];
};

/* By thread. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, struct begun);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 << 10);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline int begin(__u64 path, __u32 flags)
{
	struct begun call = { .path = (const char *)path, .flags = flags };
	__u32 tid = bpf_get_current_pid_tgid();

	if (is_watched())
		bpf_map_update_elem(&calls, &tid, &call, BPF_ANY);
	return 0;
}

static __always_inline int end(struct call_ends *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tid = id, zero = 0;
	struct begun *call = bpf_map_lookup_elem(&calls, &tid);
	struct event *event;
	__u64 *count;

	if (!call)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (event) {
		event->time = bpf_ktime_get_ns();
		event->pid = id >> 32;
		event->tid = tid;
		event->uid = bpf_get_current_uid_gid();
		event->ret = ctx->ret;
		event->flags = call->flags;
		event->mntns = mount_namespace();
		bpf_get_current_comm(event->comm, sizeof(event->comm));
		if (bpf_probe_read_user_str(event->path, sizeof(event->path), call->path) < 0)
			event->path[0] = 0;
		bpf_ringbuf_submit(event, 0);
	} else {
		count = bpf_map_lookup_elem(&lost, &zero);
		if (count)
			__sync_fetch_and_add(count, 1);
	}
	bpf_map_delete_elem(&calls, &tid);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_openat")
int openat_begins(struct call_begins *ctx)
{
	return begin(ctx->args[1], ctx->args[2]);
}

SEC("tracepoint/syscalls/sys_exit_openat")
int openat_ends(struct call_ends *ctx)
{
	return end(ctx);
}

#ifdef __NR_open /* arm64 has none */
SEC("tracepoint/syscalls/sys_enter_open")
int open_begins(struct call_begins *ctx)
{
	return begin(ctx->args[0], ctx->args[1]);
}

SEC("tracepoint/syscalls/sys_exit_open")
int open_ends(struct call_ends *ctx)
{
	return end(ctx);
}
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";
