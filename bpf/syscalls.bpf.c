// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * syscalls: which system calls containers make, each once.
 *
 * A call that seccomp refuses never comes here. Of a runtime's own calls on the way into a container, those count that the
 * container's filter has to allow: those that it makes under one, and the start of the container's program.
 */
#include "filter.h"
#include "compat.h"

/* include/uapi/linux/seccomp.h */
enum confinement {
	disabled = 0,
	strict = 1,
	filter = 2,
};

/* Whose numbers and calls they are: not always the kernel's own. */
enum architecture {
	x86_64 = 0,
	x86 = 1,
	aarch64 = 2,
	arm = 3,
};

#if defined(__TARGET_ARCH_x86)
#define NATIVE_ARCHITECTURE x86_64
#define COMPAT_ARCHITECTURE x86
#elif defined(__TARGET_ARCH_arm64)
#define NATIVE_ARCHITECTURE aarch64
#define COMPAT_ARCHITECTURE arm
#endif

struct call {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process that was the first to make it");
	gadget_uid uid GADGET_DOC("user id of the process");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the thread");
	enum confinement seccomp GADGET_DOC("how seccomp confines the thread: disabled, strict or filter");
	enum architecture architecture GADGET_DOC("architecture for which the program was made");
	gadget_syscall syscall GADGET_DOC("system call");
};

GADGET_STREAM(events, struct call, 0);

/* Of a program of 32 bits. Only the meaning of the number differs. */
struct compat_call {
	struct gadget_header header;
	gadget_pid pid;
	gadget_uid uid;
	char comm[TASK_COMM_LEN];
	enum confinement seccomp;
	enum architecture architecture;
	gadget_compat_syscall syscall;
};

/* The same ring; GADGET_STREAM would make another. */
struct compat_call gadget_stream_1 SEC(".gadget.streams") = {};

/* Calls of programs of 32 bits count apart, and those of the runtime that no program of the container has made before. */
struct caller {
	__u64 cgroup;
	__u32 is_setup;
	__u32 is_compat;
};

#define WORD_BITS 64
#define WORDS 8 /* more than there are calls */

struct calls {
	__u64 words[WORDS];
};

/* What was shown. Of a cgroup that falls out everything is shown again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct caller);
	__type(value, struct calls);
} shown SEC(".maps");

static __always_inline __u64 *word_of(struct calls *calls, __u32 number)
{
	return &calls->words[number / WORD_BITS % WORDS];
}

static __always_inline __u64 bit_of(__u32 number)
{
	return 1ull << (number % WORD_BITS);
}

static __always_inline bool is_shown(const struct caller *caller, __u32 number)
{
	struct calls *calls = bpf_map_lookup_elem(&shown, caller);

	return calls && *word_of(calls, number) & bit_of(number);
}

/* Notes that a call was shown, and returns whether it was before. If two CPUs come here at once, one note may get lost. */
static __always_inline bool was_shown(const struct caller *caller, __u32 number)
{
	struct calls none = {}, *calls;
	__u64 *word;

	bpf_map_update_elem(&shown, caller, &none, BPF_NOEXIST);
	calls = bpf_map_lookup_elem(&shown, caller);
	if (!calls)
		return false;
	word = word_of(calls, number);
	if (*word & bit_of(number))
		return true;
	*word |= bit_of(number);
	return false;
}

/* Of a caller whose programs have not made it before. */
static __noinline void show(struct caller *caller, long number)
{
	struct task_struct *task = current_task();
	struct call call = {};

	if (!gadget_wanted(&call.header, caller->is_compat, task))
		return;
	call.seccomp = BPF_CORE_READ(task, seccomp.mode);
	caller->is_setup = !!(call.header.flags & GADGET_SETUP);
	if (caller->is_setup && !call.seccomp && number != __NR_execve && number != __NR_execveat)
		return;
	if (was_shown(caller, number))
		return;
	name_task(&call, task);
	call.architecture = caller->is_compat ? COMPAT_ARCHITECTURE : NATIVE_ARCHITECTURE;
	call.syscall = number;
	gadget_send(&events, &call.header, sizeof(call));
}

SEC("tp_btf/sys_enter")
int BPF_PROG(call_enters, struct pt_regs *regs, long number)
{
	struct task_struct *task = current_task();
	struct caller caller = { .cgroup = current_cgroup(task) };

	/* There is no call of such a number. */
	if (number < 0 || number >= WORDS * WORD_BITS || !cgroup_wanted(caller.cgroup))
		return 0;
	caller.is_compat = is_compat_call(task);
	/* Nearly always. */
	if (!is_shown(&caller, number))
		show(&caller, number);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
