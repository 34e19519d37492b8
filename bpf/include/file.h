/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Open files of the current task, and where they lie.
 */
#pragma once

#include "compat.h"
#include "gadget.h"

/* Whether a thread shares its files with its process, as nearly all do; or with the thread before it, if the first one has ended. */
static __always_inline bool shares_files(struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader), *before;
	struct files_struct *files = BPF_CORE_READ(task, files), *of_leader = BPF_CORE_READ(leader, files);

	if (task == leader || of_leader)
		return task != leader && of_leader == files;
	before = (void *)BPF_CORE_READ(task, thread_node.prev) - bpf_core_field_offset(task->thread_node);
	return BPF_CORE_READ(before, files) == files;
}

/* The file behind a descriptor; NULL if there is none. */
static __always_inline struct file *current_file(__s64 descriptor)
{
	struct task_struct *task = current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files, *file = NULL;

	if (descriptor < 0 || descriptor >= BPF_CORE_READ(table, max_fds))
		return NULL;
	files = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + descriptor);
	return file;
}

/* The socket that a file is; NULL if it is none. */
static __always_inline struct sock *socket_of_file(struct file *file)
{
	struct socket *socket;

	if (!file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != SOCKFS_MAGIC)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* The socket behind a descriptor; NULL if there is none. */
static __always_inline struct sock *current_socket(__s32 descriptor)
{
	return socket_of_file(current_file(descriptor));
}

#define FILE_PATH_MAX 4096 /* bytes of a path, each name with a NUL */
#define FILE_NAME_MAX 256  /* of a name */
#define FILE_DEPTH_MAX 128 /* directories and mount points on the way */

/* Where a file lies, as gadget_path. */
struct file_path {
	struct dentry *dentry; /* how far it was followed, */
	struct vfsmount *mount;
	struct dentry *root; /* and up to where: what the task takes for its root */
	struct vfsmount *root_mount;
	__u32 length;
	bool whole;
	char names[FILE_PATH_MAX + FILE_NAME_MAX]; /* innermost first */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct file_path);
} file_paths SEC(".maps");

static __always_inline struct file_path *file_path_buffer(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&file_paths, &zero);
}

/*
 * Goes one step up. Returns whether there may be another. A function of its own, not inlined and not static, is verified
 * once instead of once for every step there may be.
 */
__noinline int file_path_step(__u32 unused)
{
	struct file_path *p = file_path_buffer();
	struct dentry *dentry, *parent;
	struct vfsmount *mounted;
	struct mount *mount, *mount_parent;
	__u32 at;
	long length;

	if (!p)
		return false;
	at = p->length;
	dentry = p->dentry;
	mounted = p->mount;
	if ((dentry == p->root && mounted == p->root_mount) || !dentry) {
		p->whole = true;
		return false;
	}
	if (dentry == BPF_CORE_READ(mounted, mnt_root)) {
		mount = (void *)mounted - bpf_core_field_offset(struct mount, mnt);
		mount_parent = BPF_CORE_READ(mount, mnt_parent);
		if (mount_parent == mount) {
			p->whole = true;
			return false;
		}
		p->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		p->mount = (void *)mount_parent + bpf_core_field_offset(struct mount, mnt);
		return true;
	}
	if (at >= FILE_PATH_MAX)
		return false;
	length = bpf_probe_read_kernel_str(p->names + at, FILE_NAME_MAX, BPF_CORE_READ(dentry, d_name.name));
	if (length < 0)
		return false;
	p->length = at + length;
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry) {
		/* It is in no directory: a pipe, a socket. */
		p->whole = true;
		return false;
	}
	p->dentry = parent;
	return true;
}

/* The path of a file, as a task would write it from its root; on this CPU, until the next call. */
static __always_inline struct file_path *file_path(struct file *file, struct task_struct *task)
{
	struct file_path *p = file_path_buffer();
	__u32 i;

	if (!p)
		return NULL;
	p->dentry = BPF_CORE_READ(file, f_path.dentry);
	p->mount = BPF_CORE_READ(file, f_path.mnt);
	p->root = BPF_CORE_READ(task, fs, root.dentry);
	p->root_mount = BPF_CORE_READ(task, fs, root.mnt);
	p->length = 0;
	p->whole = false;
	for (i = 0; i < FILE_DEPTH_MAX; i++)
		if (!file_path_step(i))
			break;
	/* The root itself: one name, which is empty. */
	if (p->whole && !p->length) {
		p->names[0] = 0;
		p->length = 1;
	}
	return p;
}
