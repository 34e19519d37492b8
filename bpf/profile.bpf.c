// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * profile: what threads do, by samples of the processors; or what they wait for, by when they leave a processor and come back.
 */
#include "compat.h"
#include "filter.h"
#include "state.h"
#include "user_stack.h"

const volatile __u32 gadget_frequency = 49;    /* samples of each processor in a second */
const volatile __u64 gadget_tick_ns = 4000000; /* how long the kernel's tick is; set by the agent */
const volatile bool gadget_wants_idle = false;

/* One of these stacks only. */
const volatile bool user_only = false;
const volatile bool kernel_only = false;

/* Not what runs but what waits. */
const volatile bool off_cpu = false;

enum activity {
	running = 0,
	idle = 1,
	sleeping = 2,
	uninterruptible = 3,
	preempted = 4,
};

struct sample {
	struct gadget_header header;
	gadget_user_stack user_stack GADGET_DOC("functions of the program, innermost first");
	gadget_kernel_stack kernel_stack GADGET_DOC("functions of the kernel, innermost first");
	__u64 samples GADGET_DOC("how many samples were like this; with --off-cpu, how many times it waited");
	gadget_span spent GADGET_DOC("time that they stand for; with --off-cpu, how long it waited");
	gadget_pid pid GADGET_DOC("process id");
	gadget_uid uid GADGET_DOC("user id");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the thread");
	enum activity activity GADGET_DOC("what it does: it runs, or, with --off-cpu, sleeps, waits for what nothing interrupts, or for a processor");
};

GADGET_STREAM(events, struct sample, 0);

static __always_inline __u64 period_ns(void)
{
	return 1000000000ull / gadget_frequency;
}

/* What is known of the current task, its stacks included. If its program's is new, `whose` says whose it is. */
static __always_inline void describe(struct sample *sample, void *ctx, struct task_struct *task, struct gadget_program *whose)
{
	name_task(sample, task);
	sample->user_stack = kernel_only || !sample->pid ? GADGET_STACK_NONE : user_stack(ctx, sample->pid, whose);
	sample->kernel_stack = user_only ? GADGET_STACK_NONE : kernel_stack(ctx);
}

/* Functions have names while there is a process: somebody should look at it soon. */
static __always_inline void send_sample(struct sample *sample, const struct gadget_program *whose)
{
	bool is_call = is_to_be_called(whose);

	if (gadget_send_some_time(&events, &sample->header, sizeof(*sample), !is_call) && is_call)
		was_called(whose);
}

/* ---- What runs. ---- */

static __always_inline void take_samples(void *ctx, __u64 count)
{
	struct task_struct *task = current_task();
	struct gadget_program whose = {};
	struct sample sample = {};

	if (!gadget_wanted(&sample.header, 0, task))
		return;
	describe(&sample, ctx, task, &whose);
	sample.activity = sample.pid ? running : idle;
	sample.samples = count;
	sample.spent = count * period_ns();
	send_sample(&sample, &whose);
}

/* On each processor at this frequency; when it is idle only if that is wanted. */
SEC("perf_event")
int clock_strikes(void *ctx)
{
	take_samples(ctx, 1);
	return 0;
}

/* How much time has passed on a processor, in ticks, that no sample stands for. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} unsampled SEC(".maps");

/* The text that the kernel calls it by, once it was seen: texts are compared by where they are. */
const char *tick_text = NULL;

static __always_inline bool is_tick(const char *text)
{
	char begin[] = "Start scheduler", seen[sizeof(begin)] = {};
	__u32 i;

	if (tick_text)
		return text == tick_text;
	bpf_probe_read_kernel_str(seen, sizeof(seen), text);
	for (i = 0; i < sizeof(begin); i++)
		if (seen[i] != begin[i])
			return false;
	tick_text = text;
	return true;
}

/*
 * The scheduler's tick, which comes in an interrupt, where perf events are not to be had. Its frequency is the kernel's: a sample is taken
 * when as much time has passed as it stands for, or several at once. Idle processors have none.
 */
SEC("tp_btf/rcu_utilization")
int BPF_PROG(processor_ticks, const char *text)
{
	__u64 *passed, count;
	__u32 zero = 0;

	if (!is_tick(text))
		return 0;
	passed = bpf_map_lookup_elem(&unsampled, &zero);
	if (!passed)
		return 0;
	*passed += gadget_tick_ns;
	if (*passed < period_ns())
		return 0;
	count = *passed / period_ns();
	*passed -= count * period_ns();
	if (gadget_wants_idle || task_pid(current_task()))
		take_samples(ctx, count);
	return 0;
}

/* ---- What waits. ---- */

struct wait {
	struct sample sample;
	__u64 begin;
	__u64 ran;		     /* how long the thread had run in all until then, in ns */
	struct gadget_program whose; /* if its program's stack is new */
};

/* By thread. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, __u32);
	__type(value, struct wait);
} waits SEC(".maps");

/* Which wait: a thread has one after the other. */
struct wait_id {
	__u64 begin;
	__u64 tid;
};

/*
 * How much of waits that go on was told of. Not kept with the wait itself, whose memory may be another's by the time that who samples has
 * looked at it. Whoever takes a number away is the one for whom it counts.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, struct wait_id);
	__type(value, __u64);
} waits_told SEC(".maps");

static __always_inline enum activity activity_of(struct task_struct *task)
{
	/* Until somebody says so. */
	const __u32 asleep = TASK_INTERRUPTIBLE | TASK_STOPPED | TASK_TRACED | TASK_PARKED;
	const __u32 uninterrupted = TASK_UNINTERRUPTIBLE | TASK_RTLOCK_WAIT | TASK_FROZEN;
	__u32 state = task_run_state(task);

	if (!(state & (asleep | uninterrupted)))
		return preempted;
	/* Threads of the kernel that have nothing to do are called uninterruptible, too. */
	return state & uninterrupted && !(state & TASK_NOLOAD) ? uninterruptible : sleeping;
}

/* It begins, or was found, now. */
static __always_inline void set_wait(struct wait *wait, struct task_struct *task, __u64 now)
{
	wait->sample.activity = activity_of(task);
	wait->sample.samples = 1;
	wait->begin = now;
	wait->ran = TASK_MEMBER(struct task_struct, task, se.sum_exec_runtime);
}

/* Whether a wait is wanted now: its cgroup may have another slot than when it began. */
static __always_inline bool is_still_wanted(struct gadget_header *header)
{
	bool is_new;

	header->time = bpf_ktime_get_boot_ns();
	header->slot = slot_of(header->cgroup, &is_new);
	return slot_wanted(header->slot);
}

/* A wait is over, after which its thread has run for so long. */
static __always_inline void wait_is_over(__u32 tid, const struct wait *wait, __u64 ran)
{
	struct wait_id id = { .begin = wait->begin, .tid = tid };
	struct gadget_program whose = wait->whose;
	struct sample sample = wait->sample;
	__u64 *told, before;

	bpf_map_delete_elem(&waits, &tid);
	if (!is_still_wanted(&sample.header))
		return;
	sample.spent = sample.header.time - id.begin - ran;
	told = bpf_map_lookup_elem(&waits_told, &id);
	if (told) {
		before = *told;
		if (!bpf_map_delete_elem(&waits_told, &id)) {
			/* It is one wait, however often it is told of. */
			sample.samples = 0;
			sample.spent = sample.spent > before ? sample.spent - before : 0;
		}
	}
	send_sample(&sample, &whose);
}

static __always_inline void wait_ends(struct task_struct *task)
{
	__u32 tid = task_tid(task);
	struct wait *wait = bpf_map_lookup_elem(&waits, &tid);

	if (wait)
		wait_is_over(tid, wait, 0);
}

static __always_inline void wait_begins(void *ctx, struct task_struct *task)
{
	struct wait wait = {}, *former;
	__u32 tid = task_tid(task);

	/* Of the idle ones each processor has its own, and those that end never come back. */
	if (!tid || BPF_CORE_READ(task, exit_state) || !gadget_wanted(&wait.sample.header, 0, task))
		return;
	describe(&wait.sample, ctx, task, &wait.whose);
	set_wait(&wait, task, wait.sample.header.time);
	/* Not each return to a processor is told of: on 6.18 one in some hundred is not, where processors are busy. */
	former = bpf_map_lookup_elem(&waits, &tid);
	if (former)
		wait_is_over(tid, former, wait.ran - former->ran);
	if (bpf_map_update_elem(&waits, &tid, &wait, BPF_ANY))
		gadget_count_unkept(wait.sample.header.slot);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(task_switches, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	wait_ends(next);
	wait_begins(ctx, current_task());
	return 0;
}

/* Those that wait when it begins: nobody knows their programs' stacks. */
SEC("iter/task")
int find_waits(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct gadget_stack_buffer *buffer;
	struct wait wait = {};
	bool is_new;
	__u32 tid;
	long size;

	if (!task || activity_of(task) == preempted || BPF_CORE_READ(task, exit_state))
		return 0;
	tid = task->pid;
	name_task(&wait.sample, task);
	if (!known_task_wanted(wait.sample.pid, wait.sample.uid, wait.sample.comm))
		return 0;
	wait.sample.header.cgroup = task_cgroup(task);
	wait.sample.header.slot = slot_of(wait.sample.header.cgroup, &is_new);
	set_wait(&wait, task, bpf_ktime_get_boot_ns());
	buffer = user_only ? NULL : take_stack_buffer();
	if (buffer) {
		size = bpf_get_task_stack(task, buffer->stack.frames, sizeof(buffer->stack.frames), 0);
		wait.sample.kernel_stack = kept_kernel_stack(&buffer->stack, size);
		gadget_give_back(&buffer->users);
	}
	/* It may have come back meanwhile, and waits for something else. */
	if (bpf_map_update_elem(&waits, &tid, &wait, BPF_NOEXIST) && !bpf_map_lookup_elem(&waits, &tid))
		gadget_count_unkept(wait.sample.header.slot);
	return 0;
}

/* Whether a wait goes on. */
static __always_inline bool goes_on(const struct wait_id *id)
{
	__u32 tid = id->tid;
	struct wait *wait = bpf_map_lookup_elem(&waits, &tid);

	return wait && *(volatile __u64 *)&wait->begin == id->begin;
}

/* Those that go on: so far. Any may end meanwhile, and another begin in its place. */
SEC("iter/bpf_map_elem")
int sample_waits(struct bpf_iter__bpf_map_elem *ctx)
{
	struct wait *wait = ctx->value;
	__u32 *tid = ctx->key;
	struct wait_id id = {};
	struct sample sample;
	__u64 *told, before = 0, now;

	if (!wait || !tid)
		return 0;
	id.begin = *(volatile __u64 *)&wait->begin;
	id.tid = *(volatile __u32 *)tid;
	barrier();
	sample = wait->sample;
	barrier();
	if (*(volatile __u64 *)&wait->begin != id.begin || !is_still_wanted(&sample.header))
		return 0;
	sample.header.size = sizeof(sample);
	now = sample.header.time - id.begin;
	sample.spent = now;
	told = bpf_map_lookup_elem(&waits_told, &id);
	if (told) {
		before = *told;
		sample.samples = 0;
		sample.spent -= before;
	}
	bpf_map_update_elem(&waits_told, &id, &now, BPF_ANY);
	/* If it has ended, and what is told now was not left to us, its end tells all. */
	if (!goes_on(&id) && !bpf_map_delete_elem(&waits_told, &id))
		return 0;
	/* What found no room is asked for again. */
	if (bpf_seq_write(ctx->meta->seq, &sample, sizeof(sample))) {
		if (before)
			bpf_map_update_elem(&waits_told, &id, &before, BPF_EXIST);
		else
			bpf_map_delete_elem(&waits_told, &id);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
