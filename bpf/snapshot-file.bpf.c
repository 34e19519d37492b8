// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * snapshot-file: the files that processes have open.
 */
#include "filter.h"
#include "file.h"

#include <asm/fcntl.h>

#define PIPEFS_MAGIC 0x50495045
#define ANON_INODE_FS_MAGIC 0x09041934
#define NSFS_MAGIC 0x6e736673
#define PIDFS_MAGIC 0x50494446 /* 6.9; before, pidfds are like what the kernel makes for eventfd */

/* Of inode's i_mode, above the permissions. */
enum file_type {
	anonymous = 0,
	pipe = 1,
	character = 2,
	directory = 4,
	block = 6,
	regular = 8,
	link = 10,
	socket = 12,
};

struct open_file {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process id");
	gadget_uid uid GADGET_DOC("user id");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the process");
	__u32 fd GADGET_DOC("descriptor");
	enum file_type kind GADGET_DOC("what it is: a file, directory, device, pipe, socket, or what the kernel made for eventfd, namespaces and the like");
	gadget_open_flags flags GADGET_DOC("flags with which it is open now");
	gadget_bytes offset GADGET_DOC("where the next read or write begins");
	gadget_bytes size GADGET_DOC("size of the file");
	__u64 inode GADGET_DOC("number of the inode; of a pipe or socket what tells it from others");
	__u32 links GADGET_DOC("names that the file has: 0 if it was deleted");
	gadget_path path GADGET_DOC("path from the process's root; empty for what lies in no directory");
	char name[TASK_COMM_LEN] GADGET_DOC("what the kernel calls an anonymous one");
};

GADGET_STREAM(events, struct open_file, 0);

static __always_inline enum file_type type_of(struct inode *inode, __u64 system)
{
	if (system == ANON_INODE_FS_MAGIC || system == NSFS_MAGIC || system == PIDFS_MAGIC)
		return anonymous;
	return BPF_CORE_READ(inode, i_mode) >> 12;
}

/* What an anonymous one is called: [eventfd], [pidfd]; of a namespace, what it is one of. */
static __always_inline void name_anonymous(char *name, struct file *file, struct inode *inode, __u64 system)
{
	struct ns_common *namespace;
	const void *called;

	if (system == PIDFS_MAGIC) {
		__builtin_memcpy(name, "[pidfd]", sizeof("[pidfd]"));
		return;
	}
	if (system == NSFS_MAGIC) {
		namespace = BPF_CORE_READ(inode, i_private);
		called = BPF_CORE_READ(namespace, ops, name);
	} else {
		called = BPF_CORE_READ(file, f_path.dentry, d_name.name);
	}
	bpf_probe_read_kernel_str(name, TASK_COMM_LEN, called);
}

SEC("iter/task_file")
int list_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct file_path *path = NULL;
	struct open_file open = {};
	struct inode *inode;
	__u64 length, system;

	if (!task || !file || shares_files(task))
		return 0;
	if (!listed_task_wanted(&open, 0, task))
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	system = BPF_CORE_READ(inode, i_sb, s_magic);
	open.fd = ctx->fd;
	open.kind = type_of(inode, system);
	/* Most have that from the kernel itself. */
	open.flags = portable_open_flags(BPF_CORE_READ(file, f_flags) & ~(__u64)O_LARGEFILE);
	open.offset = BPF_CORE_READ(file, f_pos);
	open.size = BPF_CORE_READ(inode, i_size);
	open.inode = BPF_CORE_READ(inode, i_ino);
	open.links = BPF_CORE_READ(inode, i_nlink);
	open.path.offset = sizeof(open);
	if (open.kind == anonymous)
		name_anonymous(open.name, file, inode, system);
	else if (system != PIPEFS_MAGIC && system != SOCKFS_MAGIC)
		path = file_path(file, task);
	length = path ? path->length : 0;
	barrier_var(length);
	if (length > FILE_PATH_MAX + FILE_NAME_MAX)
		length = 0;
	open.path.length = length;
	if (path && !path->whole)
		open.path.length |= GADGET_TAIL_CUT;
	open.header.size = sizeof(open) + length;
	/* What does not fit is asked for again, as a whole. */
	if (!bpf_seq_write(ctx->meta->seq, &open, sizeof(open)) && path && length)
		bpf_seq_write(ctx->meta->seq, path->names, length);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
