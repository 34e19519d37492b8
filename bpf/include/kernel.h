/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's types, cut down to the members that we read.
 *
 * Every member is relocated by name against the running kernel's BTF (CO-RE), so order and size here mean nothing.
 * Each struct is written as the oldest kernel we support (5.10) has it; a member that moved since then gets a
 * flavour (`struct x___v5_11`) and a comment that names the version.
 */
#pragma once

#include <linux/types.h>
#include <linux/bpf.h>
#include <asm/ptrace.h>
#include <asm/unistd.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#ifndef bool
#define bool _Bool
#define true 1
#define false 0
#endif

#define TASK_COMM_LEN 16

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct css_set;

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
};

struct task_struct {
	void *stack;
	int pid;  /* the thread's id; what user space calls tid */
	int tgid; /* the process's id; what user space calls pid */
	struct task_struct *real_parent;
	struct mm_struct *mm;
	struct nsproxy *nsproxy;
	struct css_set *cgroups;
	char comm[TASK_COMM_LEN];
};

struct linux_binprm {
	const char *filename;
};

struct kernfs_node {
	const char *name;
	__u64 id;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1]; /* by controller; there are more */
	struct cgroup *dfl_cgrp;	       /* in the unified hierarchy */
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_prog_aux {
	__u32 id;
	char name[16];
	const char *attach_func_name;
};

struct bpf_prog {
	enum bpf_prog_type type;
	struct bpf_prog_aux *aux;
};

/* The context of an iter/bpf_prog program. */
struct bpf_iter__bpf_prog {
	struct bpf_iter_meta *meta;
	struct bpf_prog *prog;
};

/* The context of a tracepoint/syscalls/sys_exit_* program. */
struct syscall_trace_exit {
	long ret;
};

#pragma clang attribute pop
