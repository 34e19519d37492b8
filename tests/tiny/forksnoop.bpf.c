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

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	struct fork fork = {};

	if (!threads && parent->tgid == child->tgid)
		return 0;
	if (!gadget_wanted(&fork.header, 0))
		return 0;
	fork.pid = parent->tgid;
	fork.child = child->tgid;
	bpf_get_current_comm(fork.comm, sizeof(fork.comm));
	gadget_send(&events, &fork.header, sizeof(fork));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
