// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * forksnoop: processes that make others. The smallest gadget; docs/writing-a-gadget.md walks through it.
 */
#include "filter.h"

const volatile bool threads = false;

struct fork {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process id of the parent");
	gadget_pid child GADGET_DOC("process id of the child");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the parent");
};

GADGET_STREAM(events, struct fork, 0);

static __always_inline void fork_made(struct task_struct *child)
{
	struct task_struct *parent = current_task();
	__u32 pid = task_pid(parent), child_pid = BPF_CORE_READ(child, tgid);
	struct fork fork = {};

	if (!threads && pid == child_pid)
		return;
	if (!gadget_wanted(&fork.header, 0, parent))
		return;
	fork.pid = pid;
	fork.child = child_pid;
	read_task_comm(fork.comm, parent);
	gadget_send(&events, &fork.header, sizeof(fork));
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	fork_made(child);
	return 0;
}

SEC("fentry/wake_up_new_task")
int BPF_PROG(child_wakes, struct task_struct *child)
{
	fork_made(child);
	return 0;
}

SEC("kprobe/wake_up_new_task")
int BPF_KPROBE(child_wakes_slowly, struct task_struct *child)
{
	fork_made(child);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
