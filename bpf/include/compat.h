/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What differs between kernels and architectures, behind one name each.
 */
#pragma once

#include "kernel.h"

/* The registers with which the current task entered the kernel, in a tracepoint/syscalls/sys_exit_* program. */
static __always_inline struct pt_regs *task_syscall_regs(void)
{
	/* Both helpers are of 5.11 and 5.15. On older kernels the load fails and the agent takes another variant. */
	return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
}

/* The number of the system call that is ending, from its registers; -1 for a 32-bit call on a 64-bit kernel. */
static __always_inline long syscall_number(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	struct thread_info___x86 {
		__u32 status;
	} __attribute__((preserve_access_index));
	struct task_struct___x86 {
		struct thread_info___x86 thread_info;
	} __attribute__((preserve_access_index));
	const __u32 ts_compat = 0x2; /* arch/x86/include/asm/thread_info.h */
	struct task_struct___x86 *task = (void *)bpf_get_current_task();

	if (BPF_CORE_READ(task, thread_info.status) & ts_compat)
		return -1;
	return regs->orig_rax;
#elif defined(__TARGET_ARCH_arm64)
	struct pt_regs___arm64 {
		int syscallno;
	} __attribute__((preserve_access_index));

	return ((struct pt_regs___arm64 *)regs)->syscallno;
#else
#error "syscall_number: unknown architecture"
#endif
}
