// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * capabilities: every time that the kernel checks whether a task has a capability, and what it finds.
 *
 * All checks come through cap_capable(), where the answer is the kernel's own: what a security module says after that is
 * not known here.
 */
#include "filter.h"
#include "compat.h"
#include "stack.h"

const volatile bool failed_only = false;
const volatile bool audit_only = false;
const volatile bool unique = false;
const volatile bool quiet_noise = false;

/* include/linux/security.h */
#define CAP_OPT_NOAUDIT 0x2

enum audit {
	no = 0,	     /* the kernel asks for itself: failing means nothing to the task */
	yes = 1,     /* what the task wants depends on it */
	unknown = 2, /* the hook does not tell */
};

struct check {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process id");
	gadget_uid uid GADGET_DOC("user id of the process");
	gadget_errno ret GADGET_DOC("0 if it has the capability, else EPERM");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the thread");
	gadget_capability capability GADGET_DOC("capability that is asked for");
	gadget_syscall syscall GADGET_DOC("system call in which it is asked for");
	enum audit audit GADGET_DOC("whether the task needs it: no, if the kernel only tries; unknown, if the hook does not tell");
	__u32 user_namespace GADGET_DOC("user namespace in which it is asked for, by its inode");
	__u32 own_user_namespace GADGET_DOC("user namespace of the process");
	gadget_kernel_stack stack GADGET_DOC("functions of the kernel that were on the way to the check, innermost first");
};

GADGET_STREAM(events, struct check, 0);

/* With `unique`: what was shown. One that finds no room is shown again. */
struct finding {
	__u64 cgroup;
	__u32 capability;
	__s32 ret;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct finding);
	__type(value, __u8);
} findings SEC(".maps");

#define EEXIST 17

static __always_inline bool was_shown(const struct check *check)
{
	struct finding finding = {
		.cgroup = check->header.cgroup,
		.capability = check->capability,
		.ret = check->ret,
	};
	__u8 shown = 1;
	/* Before 6.4 the upper half of what the helper returns is not its sign. */
	int ret = bpf_map_update_elem(&findings, &finding, &shown, BPF_NOEXIST);

	return ret == -EEXIST;
}

#define CAP_SYS_ADMIN 21

/* Whoever wants memory is asked whether it may have the last of it, too: all programs do that, and lose nothing without. */
static __always_inline bool is_noise(struct task_struct *task, int capability, enum audit audit)
{
	if (capability != CAP_SYS_ADMIN || audit == yes)
		return false;
	switch (syscall_number(task, syscall_regs_of(task))) {
	case __NR_brk:
	case __NR_clone:
	case __NR_clone3:
	case __NR_execve:
	case __NR_execveat:
#ifdef __NR_fork /* arm64 has neither */
	case __NR_fork:
	case __NR_vfork:
#endif
	case __NR_mmap:
	case __NR_mprotect:
	case __NR_mremap:
	case __NR_munmap:
		return true;
	default:
		return false;
	}
}

/* What a task asks for. */
struct question {
	const struct user_namespace *target;
	int capability;
	enum audit audit;
	gadget_kernel_stack stack;
};

/* `ctx` is that of a program in the function that is asked; NULL if the stack is known. */
static __always_inline void capability_checked(void *ctx, const struct question *asked, int ret)
{
	struct task_struct *task = current_task();
	const struct user_namespace *target = asked->target;
	struct check check = {};

	if ((failed_only && !ret) || (audit_only && asked->audit == no))
		return;
	if (!gadget_wanted(&check.header, 0, task))
		return;
	if (quiet_noise && is_noise(task, asked->capability, asked->audit))
		return;
	check.capability = asked->capability;
	check.ret = ret;
	/* What the runtime does is usually not shown. */
	if (unique && !(check.header.flags & GADGET_SETUP) && was_shown(&check))
		return;
	name_task(&check, task);
	check.syscall = syscall_number(task, syscall_regs_of(task));
	check.audit = asked->audit;
	check.user_namespace = BPF_CORE_READ(target, ns.inum);
	check.own_user_namespace = BPF_CORE_READ(task, cred, user_ns, ns.inum);
	if (gadget_wants_stacks)
		check.stack = ctx ? kernel_stack(ctx) : asked->stack;
	gadget_send(&events, &check.header, sizeof(check));
}

static __always_inline enum audit audit_of(unsigned int options)
{
	return options & CAP_OPT_NOAUDIT ? no : yes;
}

/* cap_capable(cred, target, capability, options) */
SEC("fexit/cap_capable")
int cap_capable_returned(__u64 *args)
{
	struct question question = {
		.target = (const struct user_namespace *)args[1],
		.capability = args[2],
		.audit = audit_of(args[3]),
	};

	capability_checked(args, &question, args[4]);
	return 0;
}

/* 6.14. It does not tell the options. */
SEC("tp_btf/cap_capable")
int cap_capable_traced(__u64 *args)
{
	struct question question = {
		.target = (const struct user_namespace *)args[1],
		.capability = args[3],
		.audit = unknown,
	};

	capability_checked(args, &question, args[4]);
	return 0;
}

/* By task, until the answer comes. It cannot sleep in between, so there are few. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct question);
} questions SEC(".maps");

/*
 * A kretprobe, of anybody, puts an address of its own in the place of the one to return to. Older kernels lose their way there,
 * and name a function that has nothing to do with it.
 */
extern int LINUX_KERNEL_VERSION __kconfig;
#define HAS_STACK_BELOW_KRETPROBES (LINUX_KERNEL_VERSION >= KERNEL_VERSION(5, 16, 0))

SEC("kprobe/cap_capable")
int BPF_KPROBE(cap_capable_called, const struct cred *cred, const struct user_namespace *target, int capability,
	       unsigned int options)
{
	struct question question = { .target = target, .capability = capability, .audit = audit_of(options) };
	__u64 task = bpf_get_current_pid_tgid();
	struct gadget_header header = {};

	/* Where it returns nothing is left of the stack. */
	if (gadget_wants_stacks && HAS_STACK_BELOW_KRETPROBES && gadget_wanted(&header, 0, current_task()))
		question.stack = kernel_stack(ctx);
	bpf_map_update_elem(&questions, &task, &question, BPF_ANY);
	return 0;
}

SEC("kretprobe/cap_capable")
int BPF_KRETPROBE(cap_capable_answered, int ret)
{
	__u64 task = bpf_get_current_pid_tgid();
	struct question *asked = bpf_map_lookup_elem(&questions, &task), question;

	if (!asked)
		return 0;
	question = *asked;
	bpf_map_delete_elem(&questions, &task);
	capability_checked(NULL, &question, ret);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
