// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * snapshot-process: the processes that there are.
 */
#include "filter.h"

/* Show each thread, too. */
const volatile bool each_thread = false;

enum task_state {
	running = 0,
	sleeping = 1,
	uninterruptible = 2,
	stopped = 4,
	traced = 8,
	dead = 16,
	zombie = 32,
	parked = 64,
	idle = 1026,
};

struct process {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process id");
	gadget_pid tid GADGET_DOC("thread id: that of the process, if no threads are asked for");
	gadget_pid ppid GADGET_DOC("process id of the parent");
	__u32 own_pid GADGET_DOC("process id as the process itself sees it: in its own pid namespace");
	gadget_uid uid GADGET_DOC("user id");
	__u32 threads GADGET_DOC("how many threads the process has");
	enum task_state state GADGET_DOC("what it does: it runs or could, sleeps, waits for what nothing interrupts, is stopped, traced, parked by the kernel, or has ended and waits for its parent");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the process, or thread");
	gadget_age age GADGET_DOC("how long ago it was started");
};

GADGET_STREAM(events, struct process, 0);

static __always_inline enum task_state state_of(struct task_struct *task)
{
	const __u32 told = running | sleeping | uninterruptible | stopped | traced | parked;
	__u32 state = task_run_state(task), ended = BPF_CORE_READ(task, exit_state);

	if (ended)
		return ended & zombie ? zombie : dead;
	if ((state & idle) == idle)
		return idle;
	/* As for anything that nothing interrupts. */
	return state & (TASK_RTLOCK_WAIT | TASK_FROZEN) ? uninterruptible : state & told;
}

SEC("iter/task")
int list_processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct process process = {};
	__u32 level;

	if (!task || (!each_thread && task->pid != task->tgid))
		return 0;
	if (!listed_task_wanted(&process, 0, task))
		return 0;
	process.header.size = sizeof(process);
	process.tid = task->pid;
	process.ppid = BPF_CORE_READ(task, real_parent, tgid);
	process.own_pid = own_tid(BPF_CORE_READ(task, group_leader), &level);
	process.threads = BPF_CORE_READ(task, signal, nr_threads);
	process.state = state_of(task);
	process.age = process.header.time - BPF_CORE_READ(task, start_boottime);
	bpf_seq_write(ctx->meta->seq, &process, sizeof(process));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
