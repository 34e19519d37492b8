// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * tcptracer: connections of TCP that are made, accepted and closed, and attempts that failed.
 *
 * What becomes of a connection is seen where its socket changes its state, often in an interrupt; who accepts one, where it is
 * handed over or the system call returns; what fails before anything is sent, where that does.
 */
#include "socket.h"
#include "compat.h"
#include "connection.h"
#include "file.h"
#include "nested.h"
#include "state.h"

/* If none is set, all are. */
const volatile bool show_connect = false;
const volatile bool show_accept = false;
const volatile bool show_close = false;
const volatile bool show_failed = false;

enum operation {
	connect = 0,
	accept = 1,
	close = 2,
};

struct opened {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process that connects or accepts; at the end of a connection, the one that did");
	gadget_uid uid GADGET_DOC("user id of the process");
	gadget_errno ret GADGET_DOC("0 if it is connected, else why not; ECANCELED if the program did not wait for an answer");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the thread");
	enum operation operation GADGET_DOC("connect, accept or close");
	gadget_endpoint local GADGET_DOC("its own address and port");
	gadget_peer peer GADGET_DOC("address and port at the other end");
	gadget_duration duration GADGET_DOC("how long it took to connect; at its end, how long the connection lasted");
};

GADGET_STREAM(events, struct opened, 0);

struct closed {
	struct gadget_header header;
	gadget_pid pid;
	gadget_uid uid;
	char comm[TASK_COMM_LEN];
	enum operation operation;
	gadget_endpoint local;
	gadget_peer peer;
	gadget_duration duration;
	gadget_bytes sent GADGET_DOC("bytes that were sent, each counted once");
	gadget_bytes received GADGET_DOC("bytes that were received");
	__u32 retransmits GADGET_DOC("segments that were sent again");
};

/* The same ring; GADGET_STREAM would make another. */
struct closed gadget_stream_1 SEC(".gadget.streams") = {};

/* Who connected or accepted, and when, while the connection lasts. */
struct opener {
	__u64 began;
	gadget_pid pid;
	gadget_uid uid;
	char comm[TASK_COMM_LEN];
	__u32 is_wanted; /* it fits the lists of tasks */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64); /* address of the socket */
	__type(value, struct opener);
} openers SEC(".maps");

/* Failures that were shown, and that connect(2) may yet return. */
struct refusal {
	gadget_pid pid;
	__s32 ret;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct refusal);
} refusals SEC(".maps");

#define ECANCELED 125
#define EINTR 4
#define EISCONN 106
#define EALREADY 114
#define EINPROGRESS 115
#define ERESTARTSYS 512 /* and what is above: the call begins anew */

static __always_inline bool is_shown(bool wanted)
{
	return wanted || !(show_connect || show_accept || show_close || show_failed);
}

static __always_inline void read_opener(struct opener *opener)
{
	struct task_struct *task = current_task();

	opener->began = bpf_ktime_get_boot_ns();
	name_task(opener, task);
	opener->is_wanted = task_wanted(task);
}

static __always_inline void send_opened(struct opened *opened, const struct opener *opener, enum operation operation, int ret)
{
	opened->pid = opener->pid;
	opened->uid = opener->uid;
	__builtin_memcpy(opened->comm, opener->comm, sizeof(opened->comm));
	opened->operation = operation;
	opened->ret = ret;
	gadget_send(&events, &opened->header, sizeof(*opened));
}

/* In connect(2). Its own port is not chosen yet. */
static __always_inline void connection_begins(const struct sock *sk)
{
	struct gadget_header header = {};
	struct opener opener = {};
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&refusals, &key);
	if (!gadget_socket_wanted(&header, 0, sk))
		return;
	read_opener(&opener);
	if (bpf_map_update_elem(&openers, &key, &opener, BPF_ANY))
		gadget_count_unkept(header.slot);
}

static __always_inline bool is_in_connect(const struct opener *opener)
{
	struct task_struct *task = current_task();

	return task_pid(task) == opener->pid && syscall_number(task, syscall_regs_of(task)) == __NR_connect;
}

static __always_inline void connection_answered(const struct sock *sk, bool is_made)
{
	struct opener *opener, copy = {};
	struct opened opened = {};
	struct refusal refusal = {};
	__u64 key = (__u64)sk;
	int ret = 0;

	opener = bpf_map_lookup_elem(&openers, &key);
	if (opener)
		copy = *opener;
	if (!is_made) {
		bpf_map_delete_elem(&openers, &key);
		ret = -BPF_CORE_READ(sk, sk_err);
		/* Without an error the program has given up, or connect(2) itself fails, and is seen at its end. */
		if (!ret && is_in_connect(&copy))
			return;
		if (!ret)
			ret = -ECANCELED;
		refusal.pid = copy.pid;
		refusal.ret = ret;
		bpf_map_update_elem(&refusals, &key, &refusal, BPF_ANY);
	}
	if (!opener || !copy.is_wanted || !is_shown(show_connect || (ret && show_failed)))
		return;
	if (!gadget_socket_wanted(&opened.header, 0, sk))
		return;
	opened.duration = opened.header.time - copy.began;
	read_endpoints(sk, &opened.local, &opened.peer);
	send_opened(&opened, &copy, connect, ret);
}

static __always_inline void connection_ends(const struct sock *sk)
{
	struct opener *opener, copy = {};
	struct closed closed = {};
	struct traffic traffic;
	__u64 key = (__u64)sk;
	bool is_known;

	opener = bpf_map_lookup_elem(&openers, &key);
	is_known = opener;
	if (opener) {
		copy = *opener;
		bpf_map_delete_elem(&openers, &key);
	}
	if (!is_shown(show_close))
		return;
	/* Of one that was there before nobody knows whose it is. */
	if (is_known ? !copy.is_wanted : gadget_pids || gadget_uids || gadget_comms)
		return;
	if (!gadget_socket_wanted(&closed.header, 1, sk))
		return;
	closed.pid = copy.pid;
	closed.uid = copy.uid;
	__builtin_memcpy(closed.comm, copy.comm, sizeof(closed.comm));
	closed.operation = close;
	closed.duration = is_known ? closed.header.time - copy.began : 0;
	read_endpoints(sk, &closed.local, &closed.peer);
	traffic = read_traffic(sk);
	closed.sent = traffic.sent;
	closed.received = traffic.received;
	closed.retransmits = traffic.retransmits;
	gadget_send(&events, &closed.header, sizeof(closed));
}

static __always_inline void state_changed(const struct sock *sk, int old, int new)
{
	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return;
	socket_changed(sk, old, new);
	if (new == TCP_SYN_SENT)
		connection_begins(sk);
	else if (old == TCP_SYN_SENT)
		connection_answered(sk, new != TCP_CLOSE);
	else if (new == TCP_CLOSE && old != TCP_LISTEN && old != TCP_SYN_RECV)
		connection_ends(sk);
}

GADGET_NESTED(inet_sock_set_state, state_changes, sk, state_changed(sk, old, new), const struct sock *sk, int old, int new)

/* By the current task. */
static __always_inline void accepted(const struct sock *sk)
{
	struct opener opener = {};
	struct opened opened = {};
	__u64 key = (__u64)sk;

	if (!is_internet_socket(sk, IPPROTO_TCP))
		return;
	socket_taken(sk);
	if (!gadget_socket_wanted(&opened.header, 0, sk))
		return;
	read_opener(&opener);
	/* One that is over by now has been seen to end. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_CLOSE)
		if (bpf_map_update_elem(&openers, &key, &opener, BPF_ANY))
			gadget_count_unkept(opened.header.slot);
	if (!opener.is_wanted || !is_shown(show_accept))
		return;
	read_endpoints(sk, &opened.local, &opened.peer);
	send_opened(&opened, &opener, accept, 0);
}

/*
 * Where a connection that waited gets a descriptor's socket. Whoever accepts has mostly slept in there since before the run, or
 * since before somebody else attached something: then the kernel leaves out what hangs on the end of a function.
 */
SEC("fentry/security_sock_graft")
int BPF_PROG(socket_grafted, struct sock *sk)
{
	accepted(sk);
	return 0;
}

/* accept(listener, …) and accept4 */
static __always_inline void accept_done(long ret)
{
	if (ret >= 0)
		accepted(current_socket(ret));
}

/* connect(socket, address, size of address): what failed before anything was sent. */
static __always_inline void connect_done(long ret)
{
	struct pt_regs___kernel *regs;
	struct opener opener = {};
	struct opened opened = {};
	struct refusal *refusal;
	struct sock *sk;
	__u64 key;

	if (ret >= 0 || ret == -EINPROGRESS || ret == -EALREADY || ret == -EISCONN || ret == -EINTR || ret <= -ERESTARTSYS)
		return;
	regs = syscall_regs_of(current_task());
	sk = current_socket((__s32)syscall_argument(regs, 0));
	if (!is_internet_socket(sk, IPPROTO_TCP))
		return;
	key = (__u64)sk;
	refusal = bpf_map_lookup_elem(&refusals, &key);
	if (refusal && refusal->pid == bpf_get_current_pid_tgid() >> 32 && refusal->ret == ret) {
		bpf_map_delete_elem(&refusals, &key);
		return;
	}
	if (!is_shown(show_connect || show_failed))
		return;
	socket_used(sk);
	if (!gadget_socket_wanted(&opened.header, 0, sk))
		return;
	read_opener(&opener);
	if (!opener.is_wanted)
		return;
	read_endpoints(sk, &opened.local, &opened.peer);
	endpoint_of_sockaddr(&opened.peer, (const void *)syscall_argument(regs, 1), syscall_argument(regs, 2));
	send_opened(&opened, &opener, connect, ret);
}

SYSCALL_EXIT(accept, accept_done)
SYSCALL_EXIT(accept4, accept_done)
SYSCALL_END(connect, connect_done)

/* All of them, for kernels that refuse the others; every system call of the node pays. */
SEC("tp_btf/sys_exit")
int BPF_PROG(any_call_exited, struct pt_regs *regs, long ret)
{
	switch (syscall_number(current_task(), (void *)regs)) {
	case __NR_accept:
	case __NR_accept4:
		accept_done(ret);
		break;
	case __NR_connect:
		connect_done(ret);
		break;
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
