// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * snapshot-socket: the sockets that processes have open, and connections that nobody has: not yet, or not any more.
 */
#include "connection_table.h"
#include "filter.h"
#include "endpoint.h"
#include "file.h"
#include "network.h"

/* Of IP by number; the others have none. */
enum socket_protocol {
	ip = 0,
	icmp = 1,
	tcp = 6,
	udp = 17,
	icmpv6 = 58,
	sctp = 132,
	udplite = 136,
	mptcp = 262,
};

enum unix_protocol {
	unix_stream = 1,
	unix_datagram = 2,
	unix_seqpacket = 5,
};

/* include/net/tcp_states.h; sockets of other protocols use some of them. */
enum socket_state {
	established = 1,
	syn_sent = 2,
	syn_recv = 3,
	fin_wait1 = 4,
	fin_wait2 = 5,
	time_wait = 6,
	unconnected = 7,
	close_wait = 8,
	last_ack = 9,
	listen = 10,
	closing = 11,
};

struct holder {
	struct gadget_header header;
	gadget_pid pid;
	gadget_uid uid;
	char comm[TASK_COMM_LEN];
	__u32 fd;
	enum socket_state state;
	gadget_bytes recv_queue;
	gadget_bytes send_queue;
	__u64 inode;
};

struct internet_socket {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process id");
	gadget_uid uid GADGET_DOC("user id");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the process");
	__u32 fd GADGET_DOC("descriptor");
	enum socket_state state GADGET_DOC("state of the connection; sockets without any are unconnected, established or listen");
	gadget_bytes recv_queue GADGET_DOC("bytes that the process has not read yet; of one that listens connections that it has not accepted");
	gadget_bytes send_queue GADGET_DOC("bytes that the peer has not acknowledged, or not taken; of one that listens how many connections may wait");
	__u64 inode GADGET_DOC("what tells it from other sockets");
	enum socket_protocol protocol GADGET_DOC("protocol");
	__u32 reserved;
	gadget_peer local GADGET_DOC("where it is bound");
	gadget_peer peer GADGET_DOC("what it is connected to");
};

GADGET_STREAM(events, struct internet_socket, 0);

struct unix_socket {
	struct gadget_header header;
	gadget_pid pid;
	gadget_uid uid;
	char comm[TASK_COMM_LEN];
	__u32 fd;
	enum socket_state state;
	gadget_bytes recv_queue;
	gadget_bytes send_queue;
	__u64 inode;
	enum unix_protocol protocol;
	gadget_string path GADGET_DOC("name of a socket of this host, as it was bound; @ stands before one that is in no directory");
	__u64 peer_inode GADGET_DOC("of a socket of this host: the inode of the socket that it is connected to");
};

struct unix_socket gadget_stream_1 SEC(".gadget.streams") = {};

/* A connection of TCP that waits to be accepted, or was closed: of no process. */
struct unheld_socket {
	struct gadget_header header;
	enum socket_state state;
	gadget_bytes recv_queue;
	gadget_bytes send_queue;
	enum socket_protocol protocol;
	__u32 reserved;
	gadget_peer local;
	gadget_peer peer;
};

struct unheld_socket gadget_stream_2 SEC(".gadget.streams") = {};

#define UNIX_PATH_MAX 108
#define AF_UNIX 1
/* Packets in a queue that are looked at. */
#define PACKETS_MAX 256

struct unix_record {
	struct unix_socket socket;
	char path[UNIX_PATH_MAX + 4];
};

/* Bytes in the queue of what has come, of a Unix socket. */
static __always_inline __u64 queued_bytes(struct sock *sk)
{
	__u32 length, consumed;
	struct unix_skb_parms *parms;
	struct sk_buff *end = (void *)sk + bpf_core_field_offset(sk->sk_receive_queue), *packet;
	__u64 bytes = 0;
	int i;

	packet = BPF_CORE_READ(sk, sk_receive_queue.next);
	for (i = 0; i < PACKETS_MAX; i++) {
		if (!packet || packet == end)
			break;
		parms = (void *)packet + bpf_core_field_offset(packet->cb);
		length = BPF_CORE_READ(packet, len);
		consumed = BPF_CORE_READ(parms, consumed);
		/* It may have become another's meanwhile. */
		bytes += consumed < length ? length - consumed : 0;
		packet = BPF_CORE_READ(packet, next);
	}
	return bytes;
}

/* What waits for those who take it, and for those who send. */
static __always_inline void read_tcp_queues(const struct sock *sk, gadget_bytes *recv, gadget_bytes *send)
{
	const struct tcp_sock *tcp_sock = (const void *)sk;

	*recv = BPF_CORE_READ(tcp_sock, rcv_nxt) - BPF_CORE_READ(tcp_sock, copied_seq);
	*send = BPF_CORE_READ(tcp_sock, write_seq) - BPF_CORE_READ(tcp_sock, snd_una);
	/* A peer's FIN counts, and is not read. */
	if ((__s32)*recv < 0)
		*recv = 0;
}

static __always_inline void read_queues(struct holder *holder, struct sock *sk, __u16 family, __u16 protocol)
{
	const struct udp_sock *udp_sock = (const void *)sk;

	/* One is there as long as the socket is. */
	holder->send_queue = BPF_CORE_READ(sk, sk_wmem_alloc.refs.counter) - 1;
	if (holder->state == listen) {
		holder->recv_queue = family == AF_UNIX ? BPF_CORE_READ(sk, sk_receive_queue.qlen) : BPF_CORE_READ(sk, sk_ack_backlog);
		holder->send_queue = BPF_CORE_READ(sk, sk_max_ack_backlog);
	} else if (family == AF_UNIX) {
		holder->recv_queue = queued_bytes(sk);
	} else if (protocol == tcp) {
		read_tcp_queues(sk, &holder->recv_queue, &holder->send_queue);
	} else {
		holder->recv_queue = BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter);
		if (protocol == udp || protocol == udplite)
			holder->recv_queue -= BPF_CORE_READ(udp_sock, forward_deficit);
	}
}

static __always_inline void show_internet(struct seq_file *seq, const struct holder *holder, struct sock *sk, __u16 protocol)
{
	struct internet_socket socket = {};

	__builtin_memcpy(&socket, holder, sizeof(*holder));
	socket.header.size = sizeof(socket);
	socket.protocol = protocol;
	endpoint_of_socket(&socket.local, sk);
	endpoint_of_peer(&socket.peer, sk);
	bpf_seq_write(seq, &socket, sizeof(socket));
}

static __always_inline void show_unix(struct seq_file *seq, const struct holder *holder, struct sock *sk)
{
	struct unix_sock *unix_sock = (void *)sk;
	struct unix_address *address = BPF_CORE_READ(unix_sock, addr);
	struct unix_record record = {};
	char *name = (void *)address + bpf_core_field_offset(address->name) + sizeof(__u16);
	__s64 length = 0;

	__builtin_memcpy(&record.socket, holder, sizeof(*holder));
	record.socket.header.stream = 1;
	record.socket.protocol = BPF_CORE_READ(sk, sk_type);
	record.socket.peer_inode = BPF_CORE_READ(unix_sock, peer, sk_socket, file, f_inode, i_ino);
	if (address)
		length = bpf_probe_read_kernel_str(record.path, sizeof(record.path), name) - 1;
	if (address && length <= 0) {
		/* It begins with a NUL, and may have more: its length is what counts. */
		length = BPF_CORE_READ(address, len) - sizeof(__u16);
		barrier_var(length);
		if (length < 1 || length > UNIX_PATH_MAX)
			return;
		bpf_probe_read_kernel(record.path, length, name);
		record.path[0] = '@';
	}
	barrier_var(length);
	if (length < 0 || length > UNIX_PATH_MAX)
		return;
	record.socket.path.offset = sizeof(record.socket);
	record.socket.path.length = length;
	record.socket.header.size = sizeof(record.socket) + length;
	bpf_seq_write(seq, &record, sizeof(record.socket) + length);
}

/* The table of the host's network namespace, which is mostly everybody's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct inet_hashinfo *);
} table SEC(".maps");

/* Who lists processes means nothing that has none. */
static __always_inline bool lists_processes(void)
{
	return gadget_pids == TASK_ONLY || gadget_uids == TASK_ONLY || gadget_comms == TASK_ONLY;
}

/* Comes first: it lists nothing, but finds out whose the connections are. */
SEC("iter/task")
int list_networks(struct bpf_iter__task *ctx)
{
	struct inet_hashinfo *own, **known;
	struct task_struct *task = ctx->task;
	__u32 zero = 0;
	struct net *net;
	bool is_new;

	if (!task || task->pid != task->tgid || lists_processes())
		return 0;
	net = BPF_CORE_READ(task, nsproxy, net_ns);
	known = bpf_map_lookup_elem(&table, &zero);
	if (!net || !known)
		return 0;
	is_new = network_found(net, task, !ctx->meta->seq_num);
	own = connection_table(net);
	if (!*known)
		*known = own;
	/* What is in a table of its own is not seen. */
	if (is_new && *known != own && slot_wanted(network_slot(net)))
		gadget_count_lost(network_slot(net));
	return 0;
}

SEC("iter/task_file")
int list_sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct holder holder = {};
	__u16 family, protocol;
	struct sock *sk;

	if (!task || !file || shares_files(task))
		return 0;
	sk = socket_of_file(file);
	if (!sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (!is_internet(family) && family != AF_UNIX)
		return 0;
	if (!listed_task_wanted(&holder, 0, task))
		return 0;
	protocol = BPF_CORE_READ(sk, sk_protocol);
	holder.fd = ctx->fd;
	holder.state = BPF_CORE_READ(sk, __sk_common.skc_state);
	holder.inode = BPF_CORE_READ(file, f_inode, i_ino);
	read_queues(&holder, sk, family, protocol);
	if (family == AF_UNIX)
		show_unix(ctx->meta->seq, &holder, sk);
	else
		show_internet(ctx->meta->seq, &holder, sk, protocol);
	return 0;
}

/* Whether somebody wants a connection that is of no process, whose owner is its creator or listener, or else the pod of its network. */
static __always_inline bool unheld_wanted(struct unheld_socket *socket, const struct sock *owner, struct net *net)
{
	__u64 cgroup = owner ? socket_cgroup(owner) : 0;
	__u32 slot = SLOT_HOST;
	bool is_new;

	if (cgroup)
		slot = slot_of(cgroup, &is_new);
	if (slot == SLOT_HOST) {
		cgroup = 0;
		slot = network_slot(net);
		/* Several pods have it. */
		if (slot == SLOT_SHARED) {
			gadget_count_lost(slot);
			return false;
		}
	}
	return gadget_slot_wanted(&socket->header, 2, slot, cgroup);
}

/* One that was found. Only who reads the list is at it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unheld_socket);
} found SEC(".maps");

static __always_inline struct unheld_socket *get_found(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&found, &zero);
}

/*
 * Whether somebody wants this socket, and no process has it: then it is what was found. A function of its own, not inlined and not
 * static, is verified once instead of once for each step.
 */
__noinline int find_unheld(__u64 address)
{
	struct sock *sk = (void *)address;
	const struct inet_timewait_sock *ended = (const void *)sk;
	struct unheld_socket *socket = get_found();
	const struct sock *owner = NULL;

	if (!socket || !is_internet(BPF_CORE_READ(sk, __sk_common.skc_family)))
		return false;
	socket->recv_queue = 0;
	socket->send_queue = 0;
	socket->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (socket->state == time_wait) {
		socket->state = BPF_CORE_READ(ended, tw_substate);
	} else if (socket->state == TCP_NEW_SYN_RECV) {
		socket->state = syn_recv;
		owner = BPF_CORE_READ(sk, __sk_common.skc_listener);
	} else {
		if (BPF_CORE_READ(sk, sk_socket))
			return false;
		owner = sk;
		read_tcp_queues(sk, &socket->recv_queue, &socket->send_queue);
	}
	if (!unheld_wanted(socket, owner, BPF_CORE_READ(sk, __sk_common.skc_net.net)))
		return false;
	socket->header.size = sizeof(*socket);
	socket->protocol = tcp;
	endpoint_of_socket(&socket->local, sk);
	endpoint_of_peer(&socket->peer, sk);
	return true;
}

SEC("iter/bpf_map_elem")
int list_table_parts(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *part = ctx->key, zero = 0, steps;
	struct inet_hashinfo **known = bpf_map_lookup_elem(&table, &zero);
	struct unheld_socket *socket = get_found();
	struct table_walk walk;
	struct sock *sk;

	if (!part || !known || !socket || lists_processes())
		return 0;
	walk = table_walk(*known, *part);
	for (steps = 0; steps < TABLE_PART_STEPS; steps++) {
		if (table_walk_ends(&walk)) {
			if (walk.has_strayed)
				gadget_count_lost(SLOT_SHARED);
			return 0;
		}
		sk = table_walk_step(&walk);
		if (sk && find_unheld((__u64)sk))
			bpf_seq_write(ctx->meta->seq, socket, sizeof(*socket));
	}
	gadget_count_lost(SLOT_SHARED);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
