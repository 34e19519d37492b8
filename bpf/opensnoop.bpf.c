// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * opensnoop: every file that is opened, and every attempt that failed.
 *
 * Seen where the system call returns: its result is known, and its arguments are still in the registers with which the
 * task entered the kernel, so that nothing is kept in between.
 */
#include "filter.h"
#include "compat.h"

const volatile bool failed_only = false;

#define PATH_MAX 4096 /* the NUL included */

struct open {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process id");
	gadget_uid uid GADGET_DOC("user id of the process");
	gadget_errno ret GADGET_DOC("file descriptor, or why the file was not opened");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the thread");
	gadget_string path GADGET_DOC("file that was asked for, as it was written");
};

GADGET_STREAM(events, struct open, 0);

/* Too large for the stack. */
struct open_buffer {
	__u64 users; /* gadget_take */
	struct open open;
	char path[PATH_MAX + 1]; /* tells what is too long from what is as long as it may be */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct open_buffer);
} buffer SEC(".maps");

/* `path` is the argument of the call that is one. */
static __always_inline void open_done(long ret, const int path)
{
	struct gadget_header header = {};
	struct open_buffer *b;
	__u32 zero = 0;
	__u64 length;
	bool cut;

	if (failed_only && ret >= 0)
		return;
	if (!gadget_wanted(&header, 0))
		return;
	b = bpf_map_lookup_elem(&buffer, &zero);
	if (!b)
		return;
	if (!gadget_take(&b->users)) {
		gadget_count_lost(header.slot);
		return;
	}
	b->open.header = header;
	b->open.pid = bpf_get_current_pid_tgid() >> 32;
	b->open.uid = bpf_get_current_uid_gid();
	b->open.ret = ret;
	bpf_get_current_comm(b->open.comm, sizeof(b->open.comm));

	length = bpf_probe_read_user_str(b->path, sizeof(b->path), (const char *)syscall_argument(task_syscall_regs(), path));
	/* An error is a large number, too. */
	cut = length > PATH_MAX;
	if (length > sizeof(b->path))
		length = 0;
	if (length)
		length--; /* its NUL is not sent */
	/* So it is. Verifiers up to that of 6.12 believe it only if it is the last thing that happens to the number. */
	barrier_var(length);
	if (length > PATH_MAX)
		length = PATH_MAX;
	b->open.path.offset = sizeof(struct open);
	b->open.path.length = length | (cut ? GADGET_TAIL_CUT : 0);
	gadget_send(&events, &b->open.header, sizeof(struct open) + length);
	gadget_give_back(&b->users);
}

#ifdef __NR_open /* arm64 has none */
/* open(path, …) */
static __always_inline void open_path_done(long ret)
{
	open_done(ret, 0);
}

SYSCALL_END(open, open_path_done)
#endif

/* openat(directory, path, …) */
static __always_inline void openat_done(long ret)
{
	open_done(ret, 1);
}

SYSCALL_END(openat, openat_done)

/* Both at once, for kernels that refuse the others; every system call of the node pays. */
SEC("tp_btf/sys_exit")
int BPF_PROG(any_open_exited, struct pt_regs *regs, long ret)
{
	long number = syscall_number((void *)regs);

	if (number == __NR_openat)
		openat_done(ret);
#ifdef __NR_open
	else if (number == __NR_open)
		open_path_done(ret);
#endif
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
