// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * traceloop: the last system calls of containers.
 *
 * Each is recorded where it returns: by then its result is there, and what it was given still is, and what that points to.
 */
#include "capture.h"
#include "compat.h"
#include "recorder.h"

struct call {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process that made it");
	gadget_pid tid GADGET_DOC("thread of it");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the thread");
	gadget_result ret GADGET_DOC("what it returned: 0 or more, or why it failed");
	gadget_arguments args GADGET_DOC("what it was given, decoded as far as the kernel describes the call; else six registers");
	gadget_syscall syscall GADGET_DOC("system call");
	gadget_duration duration GADGET_DOC("how long it took, or has taken so far");
};

GADGET_STREAM(events, struct call, 0);

/* Of a program of 32 bits. Only the meaning of the number differs. */
struct compat_call {
	struct gadget_header header;
	gadget_pid pid;
	gadget_pid tid;
	char comm[TASK_COMM_LEN];
	gadget_result ret;
	gadget_arguments args;
	gadget_compat_syscall syscall;
	gadget_duration duration;
};

/* The same pages; GADGET_STREAM would make another ring. */
struct compat_call gadget_stream_1 SEC(".gadget.streams") = {};

/* One that never returns, or has not yet. */
struct last_call {
	struct gadget_header header;
	gadget_pid pid;
	gadget_pid tid;
	char comm[TASK_COMM_LEN];
	gadget_arguments args;
	gadget_syscall syscall;
	gadget_duration duration;
};

struct last_call gadget_stream_2 SEC(".gadget.streams") = {};

enum process_end {
	exited = 0,
	killed = 1,
	out_of_memory = 2,
};

/* The end of a process. */
struct process_ends {
	struct gadget_header header;
	gadget_pid pid;
	gadget_pid tid;
	char comm[TASK_COMM_LEN];
	enum process_end end GADGET_DOC("how the process ended: it exited, with this status as ret; a signal has killed it, with this number as ret; so did the kernel, since there was no memory");
	__s32 ret;
};

struct process_ends gadget_stream_3 SEC(".gadget.streams") = {};

/* Which calls are wanted: all, only those in `chosen_calls`, or all but these. */
const volatile __u32 gadget_calls = TASK_ANY;

#define COMPAT_CALL (1u << 31)

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, __u32);     /* number; with COMPAT_CALL that for programs of 32 bits */
	__type(value, __u8);
} chosen_calls SEC(".maps");

static __always_inline bool call_wanted(long number, bool is_compat)
{
	__u32 key = number < 0 && !is_compat ? __NR_rt_sigreturn : number;

	if (gadget_calls == TASK_ANY)
		return true;
	if (is_compat)
		key |= COMPAT_CALL;
	return !bpf_map_lookup_elem(&chosen_calls, &key) == (gadget_calls == TASK_NOT);
}

/* Whether it is recorded how long each call takes. */
const volatile bool durations = false;

/* When threads have begun the calls in which they are, or their last ones. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, __u32);     /* tid */
	__type(value, __u64);
} calls_begun SEC(".maps");

/* How long a thread has been in its call by now. */
static __always_inline gadget_duration duration_by(__u64 now, struct task_struct *task)
{
	__u32 tid = task_tid(task);
	__u64 *begun, us;

	if (!durations)
		return 0;
	begun = bpf_map_lookup_elem(&calls_begun, &tid);
	if (!begun || !*begun)
		return 0;
	us = (now - *begun + 999) / 1000;
	return us > 0xffffffff ? 0xffffffff : us;
}

/* Threads end, and their ids are used again. */
static __always_inline void forget_begin(struct task_struct *task)
{
	__u32 tid = task_tid(task);

	if (durations)
		bpf_map_delete_elem(&calls_begun, &tid);
}

SEC("tp_btf/sys_enter")
int BPF_PROG(call_enters, struct pt_regs *regs, long number)
{
	struct task_struct *task = current_task();
	__u32 tid = task_tid(task);
	__u64 now;

	if (!cgroup_wanted(current_cgroup(task)) || !call_wanted(number, is_compat_call(task)))
		return 0;
	now = bpf_ktime_get_boot_ns();
	/* If there is no room, nobody knows. */
	bpf_map_update_elem(&calls_begun, &tid, &now, BPF_ANY);
	return 0;
}

#define READ_ARGUMENTS(argument)                                                                                       \
	do {                                                                                                           \
		call->args.values[0] = argument(regs, 0);                                                              \
		call->args.values[1] = argument(regs, 1);                                                              \
		call->args.values[2] = argument(regs, 2);                                                              \
		call->args.values[3] = argument(regs, 3);                                                              \
		call->args.values[4] = argument(regs, 4);                                                              \
		call->args.values[5] = argument(regs, 5);                                                              \
	} while (0)

/* What all of them begin with. */
struct of_thread {
	struct gadget_header header;
	gadget_pid pid;
	gadget_pid tid;
	char comm[TASK_COMM_LEN];
};

static __always_inline void set_thread(struct of_thread *record, const struct gadget_header *header, struct task_struct *task)
{
	record->header = *header;
	record->pid = task_pid(task);
	record->tid = task_tid(task);
	read_task_comm(record->comm, task);
}

/* A call that returns. */
struct returning {
	struct task_struct *task;
	struct pt_regs___kernel *regs;
	long ret;
	gadget_duration duration;
};

/* The part of a record that every call has. */
static __always_inline void fill(struct call *call, const struct gadget_header *header, const struct returning *from, bool is_compat)
{
	struct pt_regs___kernel *regs = from->regs;
	long number = any_syscall_number(regs);

	set_thread((void *)call, header, from->task);
	call->ret = from->ret;
	if (is_compat)
		READ_ARGUMENTS(compat_syscall_argument);
	else
		READ_ARGUMENTS(syscall_argument);
	call->args.number = is_compat ? -1 : number;
	call->args.captured.offset = sizeof(*call);
	call->args.captured.length = 0;
	/* By then the registers are those from before the signal, and their call is another's. */
	call->syscall = number < 0 && !is_compat ? __NR_rt_sigreturn : number;
	call->duration = from->duration;
}

/* A function of its own: the verifier must know the size of each of the two places, and clang would make them one. */
static __noinline void record_captured(struct gadget_header *header, const struct returning *from, const struct capture_shape *shape)
{
	struct recorder_slot slot;
	struct call *call;
	__u32 size;

	slot = recorder_reserve(&events, header, sizeof(*call) + CAPTURE_ROOM + 8);
	call = (void *)slot.record;
	if (!call)
		return;
	fill(call, header, from, false);
	size = sizeof(*call) + capture(shape, call->args.values, &call->ret, (char *)(call + 1), &call->args.captured.length);
	call->header.size = size;
	recorder_done(&slot, size, header->time);
}

static __always_inline void record(struct gadget_header *header, const struct returning *from)
{
	struct recorder_slot slot;
	struct call *call;

	slot = recorder_reserve(&events, header, sizeof(*call));
	call = (void *)slot.record;
	if (!call)
		return;
	header->size = sizeof(*call);
	fill(call, header, from, header->stream);
	recorder_done(&slot, sizeof(*call), header->time);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_exits, struct pt_regs *context, long ret)
{
	struct returning from = { .task = current_task(), .regs = (void *)context, .ret = ret };
	const struct capture_shape *shape = NULL;
	struct gadget_header header;

	/* What a runtime does on the way into a container would take the memory of what the container does. */
	if (!gadget_wanted(&header, 0, from.task) || header.flags & GADGET_SETUP)
		return 0;
	header.stream = is_compat_call(from.task);
	if (!call_wanted(any_syscall_number(from.regs), header.stream))
		return 0;
	from.duration = duration_by(header.time, from.task);
	if (!header.stream)
		shape = capture_shape(any_syscall_number(from.regs));
	if (shape)
		record_captured(&header, &from, shape);
	else
		record(&header, &from);
	return 0;
}

/* exit(2) and exit_group(2) do not return. */
static __always_inline void record_last_call(struct gadget_header *header, struct task_struct *task)
{
	struct pt_regs___kernel *regs = syscall_regs_of(task);
	long number = syscall_number(task, regs);
	struct recorder_slot slot;
	struct last_call *call;

	if ((number != __NR_exit && number != __NR_exit_group) || !call_wanted(number, false))
		return;
	header->stream = 2;
	header->size = sizeof(*call);
	slot = recorder_reserve(&events, header, sizeof(*call));
	call = (void *)slot.record;
	if (!call)
		return;
	set_thread((void *)call, header, task);
	READ_ARGUMENTS(syscall_argument);
	call->args.number = number;
	call->args.captured.offset = sizeof(*call);
	call->args.captured.length = 0;
	call->syscall = number;
	call->duration = 0;
	recorder_done(&slot, sizeof(*call), header->time);
}

static __always_inline void record_end(struct gadget_header *header, struct task_struct *task, int status, bool is_out_of_memory)
{
	struct recorder_slot slot;
	struct process_ends *end;

	header->stream = 3;
	header->size = sizeof(*end);
	slot = recorder_reserve(&events, header, sizeof(*end));
	end = (void *)slot.record;
	if (!end)
		return;
	set_thread((void *)end, header, task);
	if (status & 0x7f) {
		end->end = is_out_of_memory ? out_of_memory : killed;
		end->ret = status & 0x7f;
	} else {
		end->end = exited;
		end->ret = status >> 8 & 0xff;
	}
	recorder_done(&slot, sizeof(*end), header->time);
}

/* Whether a task is the first of its container: there it has the id 1. */
static __always_inline bool is_init(struct task_struct *task)
{
	__u32 level, tid = own_tid(task, &level);

	return level && tid == 1;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(task_exits, struct task_struct *task)
{
	struct gadget_header header;
	int status = BPF_CORE_READ(task, exit_code);
	bool is_out_of_memory;

	forget_begin(task);
	if (!gadget_wanted(&header, 0, task) || header.flags & GADGET_SETUP)
		return 0;
	record_last_call(&header, task);
	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	is_out_of_memory = BPF_CORE_READ(task, signal, oom_mm);
	record_end(&header, task, status, is_out_of_memory);
	if (is_init(task))
		recorder_tell_end(&events, &header, status, is_out_of_memory);
	return 0;
}

/* Calls that have not returned, when somebody asks: those of tasks that wait for something. What arguments point to is not read. */
SEC("iter/task")
int list_calls_underway(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct pt_regs___kernel *regs;
	struct last_call seen = {}, *call = &seen;
	long number;

	if (!task || !BPF_CORE_READ(task, mm) || !is_asleep(task) || is_compat_call(task))
		return 0;
	regs = syscall_regs_of(task);
	number = any_syscall_number(regs);
	/* Else it came here by a fault, or an interrupt. */
	if (number < 0 || !call_wanted(number, false))
		return 0;
	call->pid = task->tgid;
	call->tid = task->pid;
	BPF_CORE_READ_STR_INTO(&call->comm, task, comm);
	if (!gadget_cgroup_wanted(&call->header, 2, task_cgroup(task)) ||
	    !known_task_wanted(call->pid, BPF_CORE_READ(task, cred, uid.val), call->comm))
		return 0;
	call->header.size = sizeof(*call);
	READ_ARGUMENTS(syscall_argument);
	call->args.number = number;
	call->args.captured.offset = sizeof(*call);
	call->syscall = number;
	call->duration = duration_by(call->header.time, task);
	bpf_seq_write(ctx->meta->seq, call, sizeof(*call));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
