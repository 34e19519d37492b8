// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * tcptop: what goes over each connection of TCP, by intervals.
 *
 * The kernel counts the bytes of every connection anyway. At each interval an iterator goes over the connections and sends
 * what has come since the last time; the rest is sent when a connection ends. So a packet costs nothing.
 *
 * Which connections there are is kept with the sockets themselves (socket storage, from tracing programs, with atomics: 5.12):
 * no limit, and nothing stays behind. Before, in a map.
 */
#include "socket.h"
#include "connection.h"
#include "file.h"
#include "nested.h"
#include "state.h"

struct row {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process that connected, or that listens; of connections from before, one that holds it");
	gadget_uid uid GADGET_DOC("user id of the process");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of its thread");
	gadget_endpoint local GADGET_DOC("its own address and port");
	gadget_peer peer GADGET_DOC("address and port at the other end");
	gadget_bytes sent GADGET_DOC("bytes that were sent in the interval, each counted once");
	gadget_bytes received GADGET_DOC("bytes that were received in the interval");
	__u32 retransmits GADGET_DOC("segments that were sent again in the interval");
};

GADGET_STREAM(events, struct row, 0);

/* A connection, or a socket that listens. */
struct connection {
	struct traffic shown;
	struct traffic total; /* once it has ended */
	__u32 pid;
	__u32 uid;
	char comm[TASK_COMM_LEN];
	__u64 state; /* enum connection_state */
	__u64 users; /* gadget_take, where there are no atomics with a result */
};

enum connection_state {
	SAMPLED = 1, /* now */
	ENDED = 2,
};

/* With BPF_F_CLONE what is accepted begins as a copy of its listener's. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct connection);
} kept SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64); /* address of the socket */
	__type(value, struct connection);
} listed SEC(".maps");

static __always_inline bool is_tcp(const struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP && is_internet(BPF_CORE_READ(sk, __sk_common.skc_family));
}

/* Fills in what has come since the last time. Returns whether there is something that somebody wants. */
static __always_inline bool read_row(struct row *row, const struct sock *sk, const struct connection *connection,
				     const struct traffic *now)
{
	/* The kernel raises its counters one after the other, and so they may seem to fall. */
	if (now->sent > connection->shown.sent)
		row->sent = now->sent - connection->shown.sent;
	if (now->received > connection->shown.received)
		row->received = now->received - connection->shown.received;
	if (now->retransmits > connection->shown.retransmits)
		row->retransmits = now->retransmits - connection->shown.retransmits;
	if (!row->sent && !row->received && !row->retransmits)
		return false;
	if (!gadget_socket_wanted(&row->header, 0, sk))
		return false;
	if (!known_task_wanted(connection->pid, connection->uid, connection->comm))
		return false;
	row->pid = connection->pid;
	row->uid = connection->uid;
	__builtin_memcpy(row->comm, connection->comm, sizeof(row->comm));
	read_endpoints(sk, &row->local, &row->peer);
	return true;
}

static __always_inline void mark_shown(struct connection *connection, const struct traffic *now)
{
	if (now->sent > connection->shown.sent)
		connection->shown.sent = now->sent;
	if (now->received > connection->shown.received)
		connection->shown.received = now->received;
	if (now->retransmits > connection->shown.retransmits)
		connection->shown.retransmits = now->retransmits;
}

static __always_inline void send_rest(const struct sock *sk, const struct connection *connection)
{
	struct row row = {};

	if (read_row(&row, sk, connection, &connection->total))
		gadget_send(&events, &row.header, sizeof(row));
}

/* ---- At each interval ---- */

/* Returns whether there was room. */
static __always_inline bool write_row(struct seq_file *seq, struct row *row)
{
	row->header.size = sizeof(*row);
	return !bpf_seq_write(seq, row, sizeof(*row));
}

static __always_inline void sample(struct seq_file *seq, const struct sock *sk, struct connection *connection, struct traffic now)
{
	struct row row = {};

	/* What found no room is asked for again; and whoever begins to watch later does not want what was before. */
	if (!read_row(&row, sk, connection, &now) || write_row(seq, &row))
		mark_shown(connection, &now);
}

/*
 * A connection may end while it is sampled. Whoever of the two is the last then sends the rest, when nobody changes `shown` any
 * more. Atomics with a result (5.12) say who that is.
 */
SEC("iter/bpf_sk_storage_map")
int sample_kept(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct connection *connection = ctx->value;
	struct sock *sk = ctx->sk;
	struct tcp_sock *tcp;

	if (!sk || !connection || sk->__sk_common.skc_state == TCP_LISTEN)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || __sync_fetch_and_or(&connection->state, SAMPLED) & ENDED)
		return 0;
	sample(ctx->meta->seq, sk, connection, read_typed_traffic(sk, tcp));
	if (__sync_fetch_and_and(&connection->state, ~(__u64)SAMPLED) & ENDED)
		send_rest(sk, connection);
	return 0;
}

static __always_inline void kept_ends(const struct sock *sk, struct connection *connection)
{
	connection->total = read_traffic(sk);
	if (!(__sync_fetch_and_or(&connection->state, ENDED) & SAMPLED))
		send_rest(sk, connection);
}

/*
 * Without these: who ends it says so and then takes it, and who samples it gives it back and then looks whether it has ended. So
 * at least one of them comes to send the rest, and only one succeeds in deleting the connection.
 */
static __always_inline bool has_ended(const struct connection *connection)
{
	return *(const volatile __u64 *)&connection->state == ENDED;
}

static __always_inline void listed_has_ended(const struct sock *sk, const struct connection *connection)
{
	__u64 key = (__u64)sk;
	struct row row = {};
	bool is_wanted;

	/* There may be a new socket at the same address. */
	if (bpf_map_lookup_elem(&listed, &key) != connection || !has_ended(connection))
		return;
	/* Once it is deleted its memory may be another's. */
	is_wanted = read_row(&row, sk, connection, &connection->total);
	if (!bpf_map_delete_elem(&listed, &key) && is_wanted)
		gadget_send(&events, &row.header, sizeof(row));
}

SEC("iter/bpf_map_elem")
int sample_listed(struct bpf_iter__bpf_map_elem *ctx)
{
	struct connection *connection = ctx->value;
	__u64 *key = ctx->key;
	const struct sock *sk;

	if (!key || !connection)
		return 0;
	sk = (const struct sock *)*key;
	if (gadget_take(&connection->users)) {
		sample(ctx->meta->seq, sk, connection, read_traffic(sk));
		gadget_give_back(&connection->users);
	}
	if (has_ended(connection))
		listed_has_ended(sk, connection);
	return 0;
}

static __always_inline void listed_ends(const struct sock *sk, struct connection *connection)
{
	connection->total = read_traffic(sk);
	*(volatile __u64 *)&connection->state = ENDED;
	/* It is not given back. */
	if (gadget_take(&connection->users))
		listed_has_ended(sk, connection);
}

/* ---- When a socket changes its state ---- */

static __always_inline bool begins(int new)
{
	return new == TCP_SYN_SENT || new == TCP_LISTEN || new == TCP_ESTABLISHED;
}

/* In the task that connects or listens; of what is accepted the listener's is known already, or nothing is. */
static __always_inline void connection_begins(struct connection *connection, int new)
{
	struct task_struct *task;

	if (new == TCP_ESTABLISHED)
		return;
	task = current_task();
	name_task(connection, task);
}

static __always_inline void count_unkept(const struct sock *sk)
{
	struct gadget_header header = {};

	if (gadget_socket_wanted(&header, 0, sk))
		gadget_count_unkept(header.slot);
}

static __always_inline void state_changed_kept(struct sock *sk, int old, int new)
{
	struct connection *connection;

	if (!is_tcp(sk))
		return;
	socket_changed(sk, old, new);
	if (begins(new)) {
		connection = bpf_sk_storage_get(&kept, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (connection)
			connection_begins(connection, new);
		else if (new == TCP_ESTABLISHED) /* else it is tried again */
			count_unkept(sk);
	} else if (new == TCP_CLOSE) {
		connection = bpf_sk_storage_get(&kept, sk, NULL, 0);
		if (!connection)
			return;
		if (old != TCP_LISTEN)
			kept_ends(sk, connection);
		bpf_sk_storage_delete(&kept, sk);
	}
}

GADGET_NESTED(inet_sock_set_state, state_changes_kept, sk, state_changed_kept(sk, old, new), struct sock *sk, int old, int new)

static __always_inline void state_changed_listed(struct sock *sk, int old, int new)
{
	struct connection *connection, fresh = {};
	__u64 key = (__u64)sk;
	bool is_former;

	if (!is_tcp(sk))
		return;
	socket_changed(sk, old, new);
	connection = bpf_map_lookup_elem(&listed, &key);
	/* It had a socket at the same address, and who samples it is about to delete it. */
	is_former = connection && has_ended(connection);
	if (begins(new) && new != TCP_LISTEN) {
		if (connection && !is_former && old == TCP_SYN_SENT)
			return;
		connection_begins(&fresh, new);
		if ((is_former || bpf_map_update_elem(&listed, &key, &fresh, BPF_ANY)) && new == TCP_ESTABLISHED)
			count_unkept(sk);
	} else if (new == TCP_CLOSE && connection && !is_former) {
		listed_ends(sk, connection);
	}
}

GADGET_NESTED(inet_sock_set_state, state_changes_listed, sk, state_changed_listed(sk, old, new), struct sock *sk, int old, int new)

/* ---- What is there already, once: of the sockets that a task holds. Nobody is there yet who wants some and not others. ---- */

static __always_inline bool is_there(const struct sock *sk)
{
	return sk && is_tcp(sk) && BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_CLOSE;
}

static __always_inline void connection_found(struct connection *connection, const struct sock *sk, struct task_struct *task)
{
	connection->pid = BPF_CORE_READ(task, tgid);
	connection->uid = BPF_CORE_READ(task, cred, uid.val);
	BPF_CORE_READ_STR_INTO(&connection->comm, task, comm);
	connection->shown = read_traffic(sk);
}

SEC("iter/task_file")
int find_kept(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct connection found = {};
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	sk = socket ? socket->sk : NULL;
	if (!is_there(sk) || bpf_sk_storage_get(&kept, sk, NULL, 0))
		return 0;
	socket_found(sk, task_cgroup(task));
	connection_found(&found, sk, task);
	if (!bpf_sk_storage_get(&kept, sk, &found, BPF_SK_STORAGE_GET_F_CREATE))
		gadget_count_unkept(SLOT_SHARED);
	return 0;
}

SEC("iter/task_file")
int find_listed(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct connection found = {};
	struct sock *sk;
	__u64 key;

	if (!task)
		return 0;
	sk = socket_of_file(ctx->file);
	if (!is_there(sk))
		return 0;
	socket_found(sk, task_cgroup(task));
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN)
		return 0;
	key = (__u64)sk;
	connection_found(&found, sk, task);
	if (!bpf_map_lookup_elem(&listed, &key) && bpf_map_update_elem(&listed, &key, &found, BPF_ANY))
		gadget_count_unkept(SLOT_SHARED);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
