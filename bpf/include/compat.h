/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What differs between kernels and architectures, behind one name each.
 */
#pragma once

#include "context.h"
#include "kernel.h"

/* Has the verifier refuse the program, if it can come here. What CO-RE tells of the kernel is a constant to it. */
#define REFUSE_PROGRAM() asm volatile("call -1")

/* Stores a number, of 32 or 64 bits, so that whoever reads it, on another CPU, finds all that was stored before. */
#if defined(__TARGET_ARCH_x86)
#define publish(place, number)                                                                                          \
	do {                                                                                                           \
		barrier();                                                                                             \
		*(volatile typeof(*(place)) *)(place) = (number);                                                      \
		barrier();                                                                                             \
	} while (0)
#elif defined(__TARGET_ARCH_arm64)
/* 5.12 */
#define publish(place, number) ((void)__sync_lock_test_and_set(place, number))
#endif

/* What is read after it is no older than what was read before. */
static __always_inline void fence(void)
{
#if defined(__TARGET_ARCH_x86)
	barrier();
#elif defined(__TARGET_ARCH_arm64)
	/* 5.12 */
	__u64 number = 0;

	number = __sync_fetch_and_add(&number, 1);
	barrier_var(number);
#endif
}

/* ---- Registers of a system call. Only what is in here differs between architectures. ---- */

/* Named after the kernel's, not after user space's header, whose names differ. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs___kernel {
	unsigned long di, si, dx, r10, r8, r9;
	unsigned long bx, cx, bp; /* of programs of 32 bits */
	unsigned long orig_ax;
} __attribute__((preserve_access_index));

struct thread_info___x86 {
	__u32 status;
} __attribute__((preserve_access_index));

struct task_struct___x86 {
	struct thread_info___x86 thread_info;
} __attribute__((preserve_access_index));

/* The kernel's function for a system call, which gets these registers (4.17). */
#define SYSCALL_FUNCTION(name) "__x64_sys_" name
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs___kernel {
	__u64 regs[31];
	__u64 orig_x0;
	int syscallno;
} __attribute__((preserve_access_index));

struct thread_info___arm64 {
	unsigned long flags;
} __attribute__((preserve_access_index));

struct task_struct___arm64 {
	struct thread_info___arm64 thread_info;
} __attribute__((preserve_access_index));

#define SYSCALL_FUNCTION(name) "__arm64_sys_" name
#else
#error "registers of an unknown architecture"
#endif

enum bpf_func_id___v5_15 {
	BPF_FUNC_task_pt_regs___v5_15 = 175,
};

static __always_inline bool has_task_pt_regs(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id___v5_15, BPF_FUNC_task_pt_regs___v5_15);
}

/* ---- A task that the verifier knows as one: its members are loads then. A call costs some 25 ns where returns are guarded. ---- */

static __always_inline struct task_struct *current_task(void)
{
	return has_task_pt_regs() ? bpf_get_current_task_btf() : (void *)bpf_get_current_task();
}

/* A member of a task, or of the structs within it. */
#define TASK_MEMBER(type, task, member)                                                                                 \
	(has_task_pt_regs() ? ((type *)(task))->member : BPF_CORE_READ((type *)(task), member))

static __always_inline __u32 task_pid(struct task_struct *task)
{
	return TASK_MEMBER(struct task_struct, task, tgid);
}

static __always_inline __u32 task_tid(struct task_struct *task)
{
	return TASK_MEMBER(struct task_struct, task, pid);
}

static __always_inline __u32 task_uid(struct task_struct *task)
{
	return has_task_pt_regs() ? task->cred->uid.val : BPF_CORE_READ(task, cred, uid.val);
}

/* What is behind its NUL is anything. */
static __always_inline void read_task_comm(char *comm, struct task_struct *task)
{
	const __u32 *from = (const __u32 *)task->comm;
	__u32 *to = (__u32 *)comm;

	if (has_task_pt_regs()) {
		to[0] = from[0];
		to[1] = from[1];
		to[2] = from[2];
		to[3] = from[3];
	} else {
		BPF_CORE_READ_STR_INTO((char(*)[TASK_COMM_LEN])comm, task, comm);
	}
}

/* Who a task is: the members `pid`, `uid` and `comm` of a record. */
#define name_task(record, task)                                                                                         \
	do {                                                                                                           \
		(record)->pid = task_pid(task);                                                                        \
		(record)->uid = task_uid(task);                                                                        \
		read_task_comm((record)->comm, task);                                                                  \
	} while (0)

/* The registers with which a task entered the kernel. Where they cannot be had the program does not load. */
static __always_inline struct pt_regs___kernel *syscall_regs_of(struct task_struct *task)
{
	if (has_task_pt_regs())
		return (void *)bpf_task_pt_regs(task);
#if defined(__TARGET_ARCH_x86)
	/* They lie at the end of the task's kernel stack, which has four pages (THREAD_SIZE). */
	return BPF_CORE_READ(task, stack) + 4 * 4096 - bpf_core_type_size(struct pt_regs___kernel);
#else
	REFUSE_PROGRAM();
	return NULL;
#endif
}

/* One of them. Where the verifier knows what they are it is a load, which costs less than a call. */
#define SYSCALL_REGISTER(regs, name) (has_task_pt_regs() ? (__u64)(regs)->name : (__u64)BPF_CORE_READ(regs, name))

/* An argument of a system call, counted from 0. `n` must be a constant. */
static __always_inline __u64 syscall_argument(struct pt_regs___kernel *regs, const int n)
{
#if defined(__TARGET_ARCH_x86)
	switch (n) {
	case 0:
		return SYSCALL_REGISTER(regs, di);
	case 1:
		return SYSCALL_REGISTER(regs, si);
	case 2:
		return SYSCALL_REGISTER(regs, dx);
	case 3:
		return SYSCALL_REGISTER(regs, r10);
	case 4:
		return SYSCALL_REGISTER(regs, r8);
	default:
		return SYSCALL_REGISTER(regs, r9);
	}
#elif defined(__TARGET_ARCH_arm64)
	/* The result has taken the first one's place. */
	return n ? SYSCALL_REGISTER(regs, regs[n]) : SYSCALL_REGISTER(regs, orig_x0);
#endif
}

/* The same of a call as a program of 32 bits makes it. */
static __always_inline __u64 compat_syscall_argument(struct pt_regs___kernel *regs, const int n)
{
#if defined(__TARGET_ARCH_x86)
	switch (n) {
	case 0:
		return (__u32)SYSCALL_REGISTER(regs, bx);
	case 1:
		return (__u32)SYSCALL_REGISTER(regs, cx);
	case 2:
		return (__u32)SYSCALL_REGISTER(regs, dx);
	case 3:
		return (__u32)SYSCALL_REGISTER(regs, si);
	case 4:
		return (__u32)SYSCALL_REGISTER(regs, di);
	default:
		return (__u32)SYSCALL_REGISTER(regs, bp);
	}
#else
	return (__u32)syscall_argument(regs, n);
#endif
}

/* Whether a task is in a system call as a program of 32 bits makes it. */
static __always_inline bool is_compat_call(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	const __u32 ts_compat = 0x2; /* arch/x86/include/asm/thread_info.h */

	return TASK_MEMBER(struct task_struct___x86, task, thread_info.status) & ts_compat;
#elif defined(__TARGET_ARCH_arm64)
	const unsigned long tif_32bit = 1 << 22; /* arch/arm64/include/asm/thread_info.h */

	return TASK_MEMBER(struct task_struct___arm64, task, thread_info.flags) & tif_32bit;
#endif
}

/* include/linux/sched.h: what a task waits for, if anything. */
#define TASK_INTERRUPTIBLE 0x1
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_STOPPED 0x4
#define TASK_TRACED 0x8
#define TASK_PARKED 0x40
#define TASK_NOLOAD 0x400
#define TASK_RTLOCK_WAIT 0x1000 /* 5.15, where spinlocks sleep */
#define TASK_FROZEN 0x8000	/* 6.1 */

/* Whether a task runs, 0, or what it waits for. */
static __always_inline __u32 task_run_state(struct task_struct *task)
{
	struct task_struct___v5_14 *newer = (void *)task;

	if (bpf_core_field_exists(newer->__state))
		return BPF_CORE_READ(newer, __state);
	return BPF_CORE_READ(task, state);
}

/* Whether a task sleeps, and until what it waits for has come: not on a processor, and not waiting for one. */
static __always_inline bool is_asleep(struct task_struct *task)
{
	return task_run_state(task) & (TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE);
}

/* The id of a thread as it sees it itself, in its own pid namespace; `level` is how deep that lies. 0 if the thread has ended. */
static __always_inline __u32 own_tid(struct task_struct *task, __u32 *level)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	int nr = 0;

	*level = BPF_CORE_READ(pid, level);
	bpf_probe_read_kernel(&nr, sizeof(nr), (void *)pid + bpf_core_field_offset(pid->numbers) + *level * bpf_core_type_size(struct upid) +
						       bpf_core_field_offset(struct upid, nr));
	return nr;
}

/* The number of the system call that is ending, whoever numbers it; -1 if a signal's handler returns. */
static __always_inline long any_syscall_number(struct pt_regs___kernel *regs)
{
#if defined(__TARGET_ARCH_x86)
	return SYSCALL_REGISTER(regs, orig_ax);
#elif defined(__TARGET_ARCH_arm64)
	return SYSCALL_REGISTER(regs, syscallno);
#endif
}

/* That of a task's call; -1 for a 32-bit call on a 64-bit kernel. */
static __always_inline long syscall_number(struct task_struct *task, struct pt_regs___kernel *regs)
{
	return is_compat_call(task) ? -1 : any_syscall_number(regs);
}

/* A program for the end of a system call, at its tracepoint: NAME_exited. It calls `done(ret)`, in the task that made the call. */
#define SYSCALL_EXIT(name, done)                                                                                        \
	SEC("tracepoint/syscalls/sys_exit_" #name)                                                                     \
	int name##_exited(struct syscall_trace_exit *ctx)                                                              \
	{                                                                                                              \
		done(ctx->ret);                                                                                        \
		return 0;                                                                                              \
	}

/*
 * That, and NAME_returned, where the kernel's function for the call can be patched and no other call pays anything. The argument
 * of this one is the registers and the result, but the verifier of 5.10 does not always know its type.
 */
#define SYSCALL_END(name, done)                                                                                         \
	SEC("fexit/" SYSCALL_FUNCTION(#name))                                                                          \
	int name##_returned(__u64 *args)                                                                               \
	{                                                                                                              \
		done((long)args[1]);                                                                                   \
		return 0;                                                                                              \
	}                                                                                                              \
	SYSCALL_EXIT(name, done)

/* Flags of open(2), numbered as on x86-64: arm64 has four of them elsewhere. */
static __always_inline __u64 portable_open_flags(__u64 flags)
{
#if defined(__TARGET_ARCH_arm64)
	const __u64 directory_and_nofollow = 0xc000, direct_and_largefile = 0x30000;

	return (flags & ~(directory_and_nofollow | direct_and_largefile)) | (flags & directory_and_nofollow) << 2 |
	       (flags & direct_and_largefile) >> 2;
#else
	return flags;
#endif
}
