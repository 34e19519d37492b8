// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * execsnoop: every program that is started, and every attempt that failed.
 *
 * A start is seen at sched_process_exec, where the new program's memory holds its arguments just as
 * /proc/PID/cmdline shows them. A failure is seen where the system call returns: the caller's memory is still there,
 * so its arguments are read then. Nothing is kept in between.
 */
#include "filter.h"
#include "compat.h"

const volatile bool failed_only = false;
const volatile __u32 args_bytes = 16384;

#define FILE_MAX 4096	/* PATH_MAX, the NUL included */
#define ARGS_MAX 16384	/* bytes of arguments at most */
#define ARG_MAX 4096	/* bytes of one argument of a failed start */
#define ARGC_MAX 256	/* arguments of a failed start */

struct exec {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process id");
	gadget_pid ppid GADGET_DOC("process id of the parent");
	gadget_uid uid GADGET_DOC("user id the program runs as");
	gadget_errno ret GADGET_DOC("0 if the program was started, else why not");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the process: the new one if it was started");
	char pcomm[TASK_COMM_LEN] GADGET_DOC("name of the parent");
	gadget_string file GADGET_DOC("file that was asked for");
	gadget_strings args GADGET_DOC("arguments; for a script those of its interpreter, as in /proc/PID/cmdline");
};

GADGET_STREAM(events, struct exec, 0);

/* Records are built here: too large for the stack. */
struct exec_buffer {
	__u64 users; /* gadget_take */
	__u32 used;  /* bytes of arguments so far, */
	bool cut;   /* and whether any are missing: exec_failed only */
	struct exec exec;
	char tails[FILE_MAX + ARGS_MAX + ARG_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_buffer);
} buffer SEC(".maps");

static __always_inline struct exec_buffer *get_buffer(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&buffer, &zero);
}

/* Starts a record of the current task, or returns NULL if nobody wants it. It is ended by exec_send. */
static __always_inline struct exec_buffer *exec_begin(int ret)
{
	struct task_struct *task = current_task(), *parent;
	struct gadget_header header = {};
	struct exec_buffer *b;

	if (!gadget_wanted(&header, 0, task))
		return NULL;
	b = get_buffer();
	if (!b)
		return NULL;
	if (!gadget_take(&b->users)) {
		gadget_count_lost(header.slot);
		return NULL;
	}
	b->exec.header = header;

	parent = BPF_CORE_READ(task, real_parent);
	name_task(&b->exec, task);
	b->exec.ppid = BPF_CORE_READ(parent, tgid);
	b->exec.ret = ret;
	bpf_core_read_str(b->exec.pcomm, sizeof(b->exec.pcomm), &parent->comm);
	return b;
}

/* Sets the tail `file` from what a read_str helper returned, and returns its length. */
static __always_inline __u32 exec_set_file(struct exec_buffer *b, long read)
{
	/* The NUL that the helper counts is not sent. A name of FILE_MAX and more is refused by the kernel itself. */
	__u32 length = read > 0 ? read - 1 : 0;

	if (length >= FILE_MAX)
		length = FILE_MAX - 1;
	b->exec.file.offset = sizeof(struct exec);
	b->exec.file.length = length;
	return length;
}

static __always_inline void exec_send(struct exec_buffer *b, __u32 file_length, __u32 args_length, bool cut)
{
	b->exec.args.offset = sizeof(struct exec) + file_length;
	b->exec.args.length = args_length | (cut ? GADGET_TAIL_CUT : 0);
	gadget_send(&events, &b->exec.header, sizeof(struct exec) + file_length + args_length);
	gadget_give_back(&b->users);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_started, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct exec_buffer *b;
	__u32 file, args, limit = args_bytes;
	__u64 start, end;
	bool cut;

	if (failed_only)
		return 0;
	b = exec_begin(0);
	if (!b)
		return 0;

	file = exec_set_file(b, bpf_probe_read_kernel_str(b->tails, FILE_MAX, bprm->filename));

	start = BPF_CORE_READ(task, mm, arg_start);
	end = BPF_CORE_READ(task, mm, arg_end);
	cut = end - start > limit;
	args = cut ? limit : end - start;
	if (args > ARGS_MAX)
		args = ARGS_MAX;
	if (bpf_probe_read_user(b->tails + file, args, (void *)start)) {
		args = 0;
		cut = true;
	}
	exec_send(b, file, args, cut);
	return 0;
}

/*
 * Reads one argument of a start that failed behind those that it has. Returns whether there may be another. A function
 * of its own, not inlined and not static, is verified once instead of once for every argument there may be.
 */
__noinline int exec_read_arg(__u64 argv, __u32 i)
{
	const char *arg = NULL;
	struct exec_buffer *b = get_buffer();
	__u32 file, used;
	char next = 0;
	long length;

	if (!b)
		return false;
	file = b->exec.file.length;
	used = b->used;
	if (file >= FILE_MAX || (argv && bpf_probe_read_user(&arg, sizeof(arg), (const char **)argv + i)))
		return false;
	if (!arg) {
		b->cut = false;
		return false;
	}
	if (used >= args_bytes || used >= ARGS_MAX)
		return false;
	length = bpf_probe_read_user_str(b->tails + file + used, ARG_MAX, arg);
	if (length < 0)
		return false;
	/* For an empty string older kernels (seen: 6.1) return 0, and not the 1 byte that they wrote. */
	if (!length)
		length = 1;
	b->used = used + length;
	/* Stops at the first that is not whole. */
	return length < ARG_MAX || (!bpf_probe_read_user(&next, 1, arg + ARG_MAX - 1) && !next);
}

/* An attempt that failed: its file is the argument `first` of the call, the arguments are behind that, in the caller's memory. */
static __always_inline void exec_failed(long ret, const int first)
{
	struct pt_regs___kernel *regs;
	__u32 file, used, limit = args_bytes;
	struct exec_buffer *b;
	__u64 argv;
	int i;

	if (ret >= 0)
		return;
	b = exec_begin(ret);
	if (!b)
		return;

	regs = syscall_regs_of(current_task());
	file = exec_set_file(b, bpf_probe_read_user_str(b->tails, FILE_MAX, (const char *)syscall_argument(regs, first)));

	argv = syscall_argument(regs, first + 1);
	b->used = 0;
	b->cut = true;
	for (i = 0; i < ARGC_MAX; i++)
		if (!exec_read_arg(argv, i))
			break;

	used = b->used;
	if (limit > ARGS_MAX)
		limit = ARGS_MAX;
	if (used > limit) {
		used = limit;
		b->cut = true;
	}
	exec_send(b, file, used, b->cut);
}

/* execve(file, argv, …) and execveat(directory, file, argv, …) */
static __always_inline void execve_done(long ret)
{
	exec_failed(ret, 0);
}

static __always_inline void execveat_done(long ret)
{
	exec_failed(ret, 1);
}

SYSCALL_END(execve, execve_done)
SYSCALL_END(execveat, execveat_done)

/* Both at once, for kernels that refuse the others; every system call of the node pays. */
SEC("tp_btf/sys_exit")
int BPF_PROG(any_exec_failed, struct pt_regs *regs, long ret)
{
	long number;

	if (ret >= 0)
		return 0;
	number = syscall_number(current_task(), (void *)regs);
	if (number == __NR_execve)
		execve_done(ret);
	else if (number == __NR_execveat)
		execveat_done(ret);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
