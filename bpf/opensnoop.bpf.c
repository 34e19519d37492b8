// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * opensnoop: every file that is opened, and every attempt that failed.
 *
 * Seen where the system call returns: its result is known, and its arguments are still in the registers with which the
 * task entered the kernel, so that nothing is kept in between.
 */
#include "filter.h"
#include "compat.h"
#include "file.h"
#include "state.h"

#include <asm/fcntl.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>

const volatile bool failed_only = false;
const volatile bool paths = false;
const volatile bool quiet_noise = false;

#define PATH_MAX 4096 /* the NUL included */

struct open {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process id");
	gadget_uid uid GADGET_DOC("user id of the process");
	gadget_errno ret GADGET_DOC("file descriptor, or why the file was not opened");
	gadget_mode mode GADGET_DOC("permissions for a file that is made; else 0");
	gadget_open_flags flags GADGET_DOC("how it was to be opened");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the thread");
	gadget_string path GADGET_DOC("file that was asked for, as it was written");
	gadget_path file GADGET_DOC("file that was opened, as the process sees it from its root: with --paths");
};

GADGET_STREAM(events, struct open, 0);

/* Too large for the stack. */
struct open_buffer {
	__u64 users; /* gadget_take */
	struct open open;
	char path[PATH_MAX + 1 + FILE_PATH_MAX]; /* one more tells what is too long from what is as long as it may be */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct open_buffer);
} buffer SEC(".maps");

enum open_call {
	CALL_OPEN,		/* open(path, flags, mode) */
	CALL_CREAT,		/* creat(path, mode) */
	CALL_OPENAT,		/* openat(directory, path, flags, mode) */
	CALL_OPENAT2,		/* openat2(directory, path, how, size of how) */
	CALL_OPEN_BY_HANDLE_AT, /* open_by_handle_at(mount, handle, flags) */
};

/* What was asked for. */
struct request {
	const char *path; /* in the task's memory; NULL if there is none */
	__u64 flags;
	__u64 mode;
};

static __always_inline struct request open_request(struct task_struct *task, const enum open_call call)
{
	struct pt_regs___kernel *regs = syscall_regs_of(task);
	struct request request = {};
	struct open_how how = {};

	switch (call) {
	case CALL_OPEN:
		request.path = (const char *)syscall_argument(regs, 0);
		request.flags = (__u32)syscall_argument(regs, 1);
		request.mode = syscall_argument(regs, 2);
		break;
	case CALL_CREAT:
		request.path = (const char *)syscall_argument(regs, 0);
		request.flags = O_CREAT | O_WRONLY | O_TRUNC;
		request.mode = syscall_argument(regs, 1);
		break;
	case CALL_OPENAT:
		request.path = (const char *)syscall_argument(regs, 1);
		request.flags = (__u32)syscall_argument(regs, 2);
		request.mode = syscall_argument(regs, 3);
		break;
	case CALL_OPENAT2:
		request.path = (const char *)syscall_argument(regs, 1);
		/* What cannot be read is none. */
		bpf_probe_read_user(&how, sizeof(how), (const void *)syscall_argument(regs, 2));
		request.flags = how.flags;
		request.mode = how.mode;
		break;
	case CALL_OPEN_BY_HANDLE_AT:
		request.flags = (__u32)syscall_argument(regs, 2);
		break;
	}
	/* Else the caller need not have said any. */
	if (!(request.flags & (O_CREAT | __O_TMPFILE)))
		request.mode = 0;
	return request;
}

#define NOISE_MAX 256 /* bytes of a path that are looked at */
#define BEGINS_WITH(path, text) begins_with(path, text, sizeof(text) - 1)

static __always_inline bool begins_with(const char *path, const char *text, const int length)
{
	int i;

	/* There is no memcmp(). */
	for (i = 0; i < length; i++)
		if (path[i] != text[i])
			return false;
	return true;
}

static __always_inline bool names_shared_object(const char *path)
{
	bool does = false;
	int i;

	for (i = 0; i < NOISE_MAX && path[i]; i++) {
		if (path[i] == '/')
			does = false;
		else if (path[i] == '.' && path[i + 1] == 's' && path[i + 2] == 'o' && (path[i + 3] == '.' || !path[i + 3]))
			does = true;
	}
	return does;
}

/* What the loader (with O_CLOEXEC) and the C library look for in every program. `path` has room for a longer one. */
static __always_inline bool is_noise(const char *path, __u64 flags)
{
	if ((flags & ~(__u64)O_CLOEXEC) != O_RDONLY)
		return false;
	return BEGINS_WITH(path, "/etc/ld.so.") || BEGINS_WITH(path, "/usr/lib/locale/") ||
	       BEGINS_WITH(path, "/usr/share/locale") || (flags && names_shared_object(path));
}

static __always_inline void open_done(long ret, const enum open_call call)
{
	struct task_struct *task = current_task();
	struct gadget_header header = {};
	struct open_buffer *b;
	struct request request;
	struct file_path *resolved;
	__u32 zero = 0;
	__u64 length, file_length = 0;
	bool cut;

	if (failed_only && ret >= 0)
		return;
	if (!gadget_wanted(&header, 0, task))
		return;
	b = bpf_map_lookup_elem(&buffer, &zero);
	if (!b)
		return;
	if (!gadget_take(&b->users)) {
		gadget_count_lost(header.slot);
		return;
	}
	b->open.header = header;
	name_task(&b->open, task);
	b->open.ret = ret;

	request = open_request(task, call);
	b->open.flags = portable_open_flags(request.flags);
	b->open.mode = request.mode & 07777;
	length = request.path ? bpf_probe_read_user_str(b->path, PATH_MAX + 1, request.path) : 0;
	/* An error is a large number, too. */
	cut = length > PATH_MAX;
	if (length > PATH_MAX + 1)
		length = 0;
	if (quiet_noise && length && is_noise(b->path, request.flags)) {
		gadget_give_back(&b->users);
		return;
	}
	if (length)
		length--; /* its NUL is not sent */
	/* So it is. Verifiers up to that of 6.12 believe it only if it is the last thing that happens to the number. */
	barrier_var(length);
	if (length > PATH_MAX)
		length = PATH_MAX;
	b->open.path.offset = sizeof(struct open);
	b->open.path.length = length | (cut ? GADGET_TAIL_CUT : 0);
	b->open.file.offset = sizeof(struct open) + length;
	b->open.file.length = 0;
	resolved = paths && ret >= 0 ? file_path(current_file(ret), task) : NULL;
	if (resolved) {
		file_length = resolved->length;
		if (file_length > FILE_PATH_MAX)
			file_length = FILE_PATH_MAX;
		bpf_probe_read_kernel(b->path + length, file_length, resolved->names);
		b->open.file.length = file_length | (resolved->whole ? 0 : GADGET_TAIL_CUT);
	}
	gadget_send(&events, &b->open.header, sizeof(struct open) + length + file_length);
	gadget_give_back(&b->users);
}

#ifdef __NR_open /* arm64 has neither */
static __always_inline void open_path_done(long ret)
{
	open_done(ret, CALL_OPEN);
}

SYSCALL_END(open, open_path_done)

static __always_inline void creat_done(long ret)
{
	open_done(ret, CALL_CREAT);
}

SYSCALL_END(creat, creat_done)
#endif

static __always_inline void openat_done(long ret)
{
	open_done(ret, CALL_OPENAT);
}

SYSCALL_END(openat, openat_done)

static __always_inline void openat2_done(long ret)
{
	open_done(ret, CALL_OPENAT2);
}

SYSCALL_END(openat2, openat2_done)

static __always_inline void open_by_handle_at_done(long ret)
{
	open_done(ret, CALL_OPEN_BY_HANDLE_AT);
}

SYSCALL_END(open_by_handle_at, open_by_handle_at_done)

/* All of them, for kernels that refuse the others; every system call of the node pays. */
SEC("tp_btf/sys_exit")
int BPF_PROG(any_open_exited, struct pt_regs *regs, long ret)
{
	switch (syscall_number(current_task(), (void *)regs)) {
#ifdef __NR_open
	case __NR_open:
		open_path_done(ret);
		break;
	case __NR_creat:
		creat_done(ret);
		break;
#endif
	case __NR_openat:
		openat_done(ret);
		break;
	case __NR_openat2:
		openat2_done(ret);
		break;
	case __NR_open_by_handle_at:
		open_by_handle_at_done(ret);
		break;
	}
	return 0;
}

/*
 * ---- Opens that io_uring makes: no system call returns them. Path and flags are known when a request is submitted, and
 * the result when it is completed, perhaps by a thread of the kernel. ----
 */
#define URING_PATH_MAX 2048 /* of a longer one the rest is left out */

struct uring_open {
	struct open open;
	char path[URING_PATH_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u64); /* address of the request */
	__type(value, struct uring_open);
} uring_opens SEC(".maps");

static __always_inline struct filename *uring_filename(struct io_open *open)
{
	struct filename *filename = NULL;
	__u32 offset;

	if (bpf_core_field_exists(((struct io_open___v7_0 *)0)->filename))
		offset = bpf_core_field_offset(struct io_open___v7_0, filename);
	else
		offset = bpf_core_field_offset(struct io_open, filename);
	bpf_probe_read_kernel(&filename, sizeof(filename), (void *)open + offset);
	return filename;
}

SEC("tp_btf/io_uring_submit_req")
int BPF_PROG(uring_submitted, struct io_kiocb *req)
{
	__u8 opcode = BPF_CORE_READ(req, opcode);
	struct task_struct *task = current_task();
	struct gadget_header header = {};
	struct uring_open *asked;
	struct filename *filename;
	__u64 key = (__u64)req, length;
	struct open_buffer *b;
	struct io_open *open;
	__u32 zero = 0;

	if (opcode != IORING_OP_OPENAT && opcode != IORING_OP_OPENAT2)
		return 0;
	if (!gadget_wanted(&header, 0, task))
		return 0;
	b = bpf_map_lookup_elem(&buffer, &zero);
	if (!b)
		return 0;
	if (!gadget_take(&b->users)) {
		gadget_count_lost(header.slot);
		return 0;
	}
	b->open.header = header;
	name_task(&b->open, task);
	open = (void *)req + bpf_core_field_offset(struct io_kiocb, cmd);
	/* The kernel has added that itself. */
	b->open.flags = portable_open_flags(BPF_CORE_READ(open, how.flags) & ~(__u64)O_LARGEFILE);
	b->open.mode = BPF_CORE_READ(open, how.mode) & 07777;
	filename = uring_filename(open);
	length = bpf_probe_read_kernel_str(b->path, URING_PATH_MAX, BPF_CORE_READ(filename, name));
	if (length > URING_PATH_MAX)
		length = 0;
	b->open.path.offset = sizeof(struct open);
	/* Its NUL is not sent. Where there is none but the helper's own, something is missing. */
	b->open.path.length = length ? (length - 1) | (length == URING_PATH_MAX ? GADGET_TAIL_CUT : 0) : GADGET_TAIL_CUT;
	b->open.file.offset = sizeof(struct open);
	b->open.file.length = 0;
	asked = (void *)&b->open;
	if (bpf_map_update_elem(&uring_opens, &key, asked, BPF_ANY))
		gadget_count_unkept(header.slot);
	gadget_give_back(&b->users);
	return 0;
}

/* io_uring_complete(ring, request, …): what follows differs between kernels. */
SEC("tp_btf/io_uring_complete")
int uring_completed(__u64 *args)
{
	struct io_kiocb *req = (void *)args[1];
	struct uring_open *asked;
	__u64 key = args[1], length;
	int ret;

	asked = bpf_map_lookup_elem(&uring_opens, &key);
	if (!asked)
		return 0;
	ret = BPF_CORE_READ(req, cqe.res);
	if (!failed_only || ret < 0) {
		asked->open.header.time = bpf_ktime_get_boot_ns();
		asked->open.ret = ret;
		length = asked->open.path.length & GADGET_TAIL_MAX;
		barrier_var(length);
		if (length > URING_PATH_MAX)
			length = URING_PATH_MAX;
		gadget_send(&events, &asked->open.header, sizeof(struct open) + length);
	}
	bpf_map_delete_elem(&uring_opens, &key);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
