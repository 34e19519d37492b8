// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * snapshot-socket: the sockets that processes have open.
 */
#include "filter.h"
#include "endpoint.h"
#include "file.h"

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
	gadget_endpoint local GADGET_DOC("where it is bound");
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

#define UNIX_PATH_MAX 108
#define AF_UNIX 1
/* Packets in a queue that are looked at. */
#define PACKETS_MAX 256

struct unix_record {
	struct unix_socket socket;
	char path[UNIX_PATH_MAX + 4];
};

/* Bytes in the queue of what has come. */
static __always_inline __u64 queued_bytes(struct sock *sk)
{
	struct sk_buff *end = (void *)sk + bpf_core_field_offset(sk->sk_receive_queue), *packet;
	__u64 bytes = 0;
	int i;

	packet = BPF_CORE_READ(sk, sk_receive_queue.next);
	for (i = 0; i < PACKETS_MAX; i++) {
		if (!packet || packet == end)
			break;
		bytes += BPF_CORE_READ(packet, len);
		packet = BPF_CORE_READ(packet, next);
	}
	return bytes;
}

/* What waits for those who take it, and for those who send. */
static __always_inline void read_queues(struct holder *holder, struct sock *sk, __u16 family, __u16 protocol)
{
	const struct tcp_sock *tcp_sock = (const void *)sk;
	const struct udp_sock *udp_sock = (const void *)sk;

	/* One is there as long as the socket is. */
	holder->send_queue = BPF_CORE_READ(sk, sk_wmem_alloc.refs.counter) - 1;
	if (holder->state == listen) {
		holder->recv_queue = family == AF_UNIX ? BPF_CORE_READ(sk, sk_receive_queue.qlen) : BPF_CORE_READ(sk, sk_ack_backlog);
		holder->send_queue = BPF_CORE_READ(sk, sk_max_ack_backlog);
	} else if (family == AF_UNIX) {
		holder->recv_queue = queued_bytes(sk);
	} else if (protocol == tcp) {
		holder->recv_queue = BPF_CORE_READ(tcp_sock, rcv_nxt) - BPF_CORE_READ(tcp_sock, copied_seq);
		holder->send_queue = BPF_CORE_READ(tcp_sock, write_seq) - BPF_CORE_READ(tcp_sock, snd_una);
		/* A peer's FIN counts, and is not read. */
		if ((__s32)holder->recv_queue < 0)
			holder->recv_queue = 0;
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

char LICENSE[] SEC("license") = "Dual BSD/GPL";
