// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * flows: whom containers talk to, each peer and port once.
 *
 * Connections of TCP are seen where their sockets change state; associations of SCTP where a program asks for them and where it
 * accepts them; datagrams where they are handed to the kernel, and where a program takes them. Nothing is done for each packet,
 * and nothing in the path of those that only pass through the node.
 */
#include "compat.h"
#include "connection.h"
#include "datagram.h"
#include "file.h"
#include "flow.h"
#include "nested.h"

/* Whether a socket can send to an address of this family. */
static __always_inline bool is_named(const struct sock *sk, __u16 family)
{
	return family == AF_INET || (family == AF_INET6 && BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6);
}

/* ---- TCP ---- */

static __always_inline void state_changed(const struct sock *sk, int old, int new)
{
	struct flow flow = { .protocol = tcp };

	socket_changed(sk, old, new);
	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return;
	if (new == TCP_SYN_SENT) {
		/* In connect(2). Its own port is not chosen yet. */
		if (!gadget_socket_wanted(&flow.header, 0, sk) || !task_wanted(current_task()))
			return;
		set_current_task(&flow);
	} else if (old == TCP_SYN_RECV && (new == TCP_ESTABLISHED || new == TCP_FIN_WAIT1)) {
		if (!is_wanted_of_socket(&flow, sk))
			return;
	} else {
		return;
	}
	endpoint_of_socket(&flow.local, sk);
	endpoint_of_peer(&flow.peer, sk);
	if (is_inside(&flow))
		return;
	if (new == TCP_SYN_SENT)
		show(&flow, egress);
	/* Two that connect to each other at the same time go through that state, too. */
	else if (!is_shown(&flow, egress))
		show(&flow, ingress);
}

GADGET_NESTED(inet_sock_set_state, state_changes, sk, state_changed(sk, old, new), const struct sock *sk, int old, int new)

/* ---- SCTP ---- */

/* As the kernel names them to security modules. */
#define SCTP_SOCKOPT_CONNECTX 110
#define SCTP_SENDMSG_CONNECT 126

/* Whom the current task asks for an association. Of several addresses of a peer, the first. */
static __always_inline void associates(const struct sock *sk, const void *name, int size)
{
	struct flow flow = { .protocol = sctp };

	if (!is_internet_socket(sk, IPPROTO_SCTP))
		return;
	socket_used(sk);
	if (!gadget_socket_wanted(&flow.header, 0, sk) || !task_wanted(current_task()))
		return;
	if (!is_named(sk, endpoint_of_copied_sockaddr(&flow.peer, name, size)))
		return;
	endpoint_of_socket(&flow.local, sk);
	set_current_task(&flow);
	if (!is_inside(&flow))
		show(&flow, egress);
}

/*
 * The module that knows SCTP may not be loaded yet, and its functions are not for us: what it asks security modules is in the
 * kernel itself.
 */
SEC("fentry/security_socket_connect")
int BPF_PROG(association_begins, struct socket *socket, void *name, int size)
{
	associates(socket->sk, name, size);
	return 0;
}

/* With connectx, or with the first message. */
SEC("fentry/security_sctp_bind_connect")
int BPF_PROG(association_begins_by_name, struct sock *sk, int option, void *name, int size)
{
	if (option == SCTP_SOCKOPT_CONNECTX || option == SCTP_SENDMSG_CONNECT)
		associates(sk, name, size);
	return 0;
}

/* Where one that waited gets a descriptor's socket. */
SEC("fentry/security_sock_graft")
int BPF_PROG(association_accepted, struct sock *sk)
{
	struct flow flow = { .protocol = sctp };

	if (!is_internet_socket(sk, IPPROTO_SCTP))
		return 0;
	/* Nobody knows of its listener. */
	socket_used(sk);
	if (!gadget_socket_wanted(&flow.header, 0, sk) || !task_wanted(current_task()))
		return 0;
	endpoint_of_socket(&flow.local, sk);
	endpoint_of_peer(&flow.peer, sk);
	set_current_task(&flow);
	if (!is_inside(&flow))
		show(&flow, ingress);
	return 0;
}

/* 5.18 */
union security_list_options {
	void *sctp_assoc_established;
} __attribute__((preserve_access_index));

struct sctp_packet_start {
	__be16 ports[2];
	__be32 tag, checksum;
	__u8 chunk;
};

#define SOCK_SEQPACKET 5
#define SCTP_CHUNK_INIT 1

/*
 * A peer asks for an association, in an interrupt. Only for sockets that have many: nobody accepts theirs. Asked is the endpoint,
 * or the association that shall be; kernels that ask about the first chunk ask again about the one that proves that the peer is
 * where it says.
 */
SEC("fentry/security_sctp_assoc_request")
int BPF_PROG(association_requested, struct sctp_ep_common *asked, struct sk_buff *skb)
{
	const struct sock *sk = BPF_CORE_READ(asked, sk);
	struct sctp_packet_start start = {};
	struct flow flow = {};

	if (!is_internet_socket(sk, IPPROTO_SCTP) || BPF_CORE_READ(sk, sk_type) != SOCK_SEQPACKET)
		return 0;
	bpf_probe_read_kernel(&start, sizeof(start), transport_header(skb));
	if (start.chunk == SCTP_CHUNK_INIT && bpf_core_field_exists(union security_list_options, sctp_assoc_established))
		return 0;
	if (!is_wanted_of_socket(&flow, sk) || !endpoints_of_packet(&flow.peer, &flow.local, skb))
		return 0;
	flow.protocol = sctp;
	/* Of two that ask each other, both begin. */
	if (!is_inside(&flow) && !is_shown(&flow, egress))
		show(&flow, ingress);
	return 0;
}

/* ---- UDP ---- */

#define EPHEMERAL 32768 /* ports from here on are what kernels choose, if nobody has changed that */
#define SOCK_BINDPORT_LOCK 8

/* Whether the program has asked for the socket's port. */
static __always_inline bool has_chosen_port(const struct sock *sk)
{
	return sk && BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & SOCK_BINDPORT_LOCK;
}

/*
 * A datagram that a program sends or takes. Of an exchange who sends first has begun it, and what was shown says who did: the
 * rest of both ways is no flow of its own.
 *
 * What began before the run is judged by its ports. Who sends from a port that it asked for, and no kernel would choose, to one
 * that a kernel would, answers; who takes something from such a port at one that it did not ask for is answered.
 */
static __always_inline void show_datagram(struct flow *flow, const struct sock *sk, bool is_sent)
{
	__u16 local = flow->local.port, peer = flow->peer.port;

	if (is_sent)
		show(flow, local < EPHEMERAL && peer >= EPHEMERAL && has_chosen_port(sk) ? ingress : egress);
	else
		show(flow, local >= EPHEMERAL && peer < EPHEMERAL && !has_chosen_port(sk) ? egress : ingress);
}

static __always_inline bool is_new(const struct flow *flow)
{
	return flow->peer.port && !is_inside(flow) && !is_shown(flow, egress) && !is_shown(flow, ingress);
}

/* Whether somebody may want what the current task does; who wants it in the end is asked when it turns out to be new. */
static __always_inline bool may_be_wanted(struct flow *flow)
{
	flow->header.cgroup = current_cgroup(current_task());
	return cgroup_wanted(flow->header.cgroup);
}

/* By the current task. */
static __noinline void datagram_seen(struct flow *flow, const struct sock *sk, bool is_sent)
{
	if (!is_new(flow) || !gadget_wanted(&flow->header, 0, current_task()))
		return;
	set_current_task(flow);
	show_datagram(flow, sk, is_sent);
}

/* What a socket of UDP is to send, to whom it names or, without a name, to whom it is connected. */
static __always_inline void sends(struct sock *sk, struct msghdr *message)
{
	void *name = BPF_CORE_READ(message, msg_name);
	struct flow flow = {};

	if (!may_be_wanted(&flow))
		return;
	if (!name)
		endpoint_of_peer(&flow.peer, sk);
	else if (!is_named(sk, endpoint_of_copied_sockaddr(&flow.peer, name, BPF_CORE_READ(message, msg_namelen))))
		return;
	flow.protocol = BPF_CORE_READ(sk, sk_protocol);
	endpoint_of_socket(&flow.local, sk);
	datagram_seen(&flow, sk, true);
}

SEC("fentry/udp_sendmsg")
int BPF_PROG(udp_sends, struct sock *sk, struct msghdr *message)
{
	sends(sk, message);
	return 0;
}

SEC("fentry/udpv6_sendmsg")
int BPF_PROG(udpv6_sends, struct sock *sk, struct msghdr *message)
{
	sends(sk, message);
	return 0;
}

SEC("kprobe/udp_sendmsg")
int BPF_KPROBE(udp_sends_slowly, struct sock *sk, struct msghdr *message)
{
	sends(sk, message);
	return 0;
}

SEC("kprobe/udpv6_sendmsg")
int BPF_KPROBE(udpv6_sends_slowly, struct sock *sk, struct msghdr *message)
{
	sends(sk, message);
	return 0;
}

/* What sendmsg(2) and sendmmsg(2) get, as far as it is read. */
struct message {
	__u64 name;
	__u32 name_size;
};
#define MESSAGE_STRIDE 64 /* bytes from one to the next of many */
#define MESSAGES_MAX 8	  /* of one call that are looked at */

/* A system call's socket of UDP, with a flow of the current task's, if that is wanted. */
static __always_inline struct sock *sending_socket(struct flow *flow, struct pt_regs___kernel *regs)
{
	struct sock *sk;

	if (!may_be_wanted(flow))
		return NULL;
	sk = current_socket((__s32)syscall_argument(regs, 0));
	if (!sk || !is_internet(BPF_CORE_READ(sk, __sk_common.skc_family)) || !is_udp_socket(sk))
		return NULL;
	flow->protocol = BPF_CORE_READ(sk, sk_protocol);
	endpoint_of_socket(&flow->local, sk);
	return sk;
}

static __always_inline void was_sent(struct flow *flow, const struct sock *sk, const void *name, __u32 size)
{
	if (!name)
		endpoint_of_peer(&flow->peer, sk);
	else if (!is_named(sk, endpoint_of_sockaddr(&flow->peer, name, size)))
		return;
	datagram_seen(flow, sk, true);
}

/* sendto(socket, bytes, size, flags, name, size of name) */
static __always_inline void sendto_done(long ret)
{
	struct pt_regs___kernel *regs = syscall_regs_of(current_task());
	struct flow flow = {};
	struct sock *sk = sending_socket(&flow, regs);

	if (sk)
		was_sent(&flow, sk, (const void *)syscall_argument(regs, 4), syscall_argument(regs, 5));
}

/* sendmsg(socket, message, flags); sendmmsg(socket, messages, number of them, flags), which returns how many were sent. */
static __always_inline void messages_done(long count)
{
	struct pt_regs___kernel *regs = syscall_regs_of(current_task());
	struct flow flow = {};
	struct sock *sk = sending_socket(&flow, regs);
	struct message message;
	__u64 at;
	int i;

	if (!sk)
		return;
	at = syscall_argument(regs, 1);
	for (i = 0; i < MESSAGES_MAX && i < count; i++) {
		if (bpf_probe_read_user(&message, sizeof(message), (const void *)at))
			return;
		was_sent(&flow, sk, (const void *)message.name, message.name_size);
		at += MESSAGE_STRIDE;
	}
}

static __always_inline void sendmsg_done(long ret)
{
	messages_done(1);
}

static __always_inline void sendmmsg_done(long ret)
{
	/* The first is what failed. */
	messages_done(ret < 1 ? 1 : ret);
}

/* write(socket, …) and writev */
static __always_inline void write_done(long ret)
{
	struct flow flow = {};
	struct sock *sk = sending_socket(&flow, syscall_regs_of(current_task()));

	if (sk)
		was_sent(&flow, sk, NULL, 0);
}

SYSCALL_EXIT(sendto, sendto_done)
SYSCALL_EXIT(sendmsg, sendmsg_done)
SYSCALL_EXIT(sendmmsg, sendmmsg_done)
SYSCALL_EXIT(write, write_done)
SYSCALL_EXIT(writev, write_done)

/* All of them, for kernels that refuse the others; every system call of the node pays. */
SEC("tp_btf/sys_exit")
int BPF_PROG(any_send_exited, struct pt_regs *regs, long ret)
{
	switch (syscall_number(current_task(), (void *)regs)) {
	case __NR_sendto:
		sendto_done(ret);
		break;
	case __NR_sendmsg:
		sendmsg_done(ret);
		break;
	case __NR_sendmmsg:
		sendmmsg_done(ret);
		break;
	case __NR_write:
	case __NR_writev:
		write_done(ret);
		break;
	}
	return 0;
}

/* A datagram that the current task has taken. */
static __always_inline void taken(const struct sk_buff *skb)
{
	struct flow flow = {};

	if (!may_be_wanted(&flow))
		return;
	flow.protocol = endpoints_of_datagram(&flow.peer, &flow.local, skb);
	/* Its socket is not known any more. */
	datagram_seen(&flow, NULL, false);
}

/*
 * Where a datagram that was taken is freed: the function that gives it out sleeps in between, and programs at its end are left out
 * for who sleeps there when another is attached. The one that both ways of receiving call before is inlined into one of them
 * on some kernels.
 */
static __always_inline void done_with(const struct sk_buff *skb)
{
	if (is_datagram_that_waited(skb))
		taken(skb);
}

SEC("fentry/__consume_stateless_skb")
int BPF_PROG(datagram_done, struct sk_buff *skb)
{
	done_with(skb);
	return 0;
}

/* From 6.18 on, unless somebody else holds it; TCP calls it, too. */
SEC("fentry/skb_attempt_defer_free")
int BPF_PROG(datagram_deferred, struct sk_buff *skb)
{
	done_with(skb);
	return 0;
}

/* Since then the tracepoint is not reached, or later and elsewhere. This came with that. */
struct udp_prod_queue {
} __attribute__((preserve_access_index));

/* Much that is no datagram of UDP is freed there, too. */
static __always_inline void freed(struct sk_buff *skb)
{
	__be16 protocol = skb->protocol;

	if (bpf_core_type_exists(struct udp_prod_queue))
		REFUSE_PROGRAM();
	if (protocol == bpf_htons(ETH_P_IP) || protocol == bpf_htons(ETH_P_IPV6))
		done_with(skb);
}

GADGET_NESTED(consume_skb, datagram_freed, skb, freed(skb), struct sk_buff *skb)

/* What came to sockets on hosts of cgroup v1 alone, where nobody knows whose they are until somebody takes it. */
struct arrival {
	gadget_policy_peer peer;
	gadget_policy_peer local;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); /* address of the socket */
	__type(value, struct arrival);
} arrivals SEC(".maps");

/* In an interrupt, before anybody is woken: the last in the queue has just come. */
static __always_inline void readable(const struct sock *sk)
{
	__u16 protocol = sk->sk_protocol;
	struct flow flow = {};
	struct arrival arrival = {};
	struct sk_buff *skb;
	__u64 key = (__u64)sk;

	if ((protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE) || sk->sk_type != SOCK_DGRAM)
		return;
	if (gadget_controller == HIERARCHY_UNIFIED && !is_wanted_of_socket(&flow, sk))
		return;
	skb = BPF_CORE_READ(sk, sk_receive_queue.prev);
	if ((void *)skb == (void *)sk + bpf_core_field_offset(sk->sk_receive_queue))
		return;
	if (gadget_controller == HIERARCHY_UNIFIED) {
		flow.protocol = endpoints_of_datagram(&flow.peer, &flow.local, skb);
		if (is_new(&flow))
			show_datagram(&flow, sk, false);
	} else if (endpoints_of_datagram(&arrival.peer, &arrival.local, skb)) {
		bpf_map_update_elem(&arrivals, &key, &arrival, BPF_ANY);
	}
}

GADGET_NESTED(sk_data_ready, socket_readable, sk, readable(sk), const struct sock *sk)

SEC("tp_btf/sock_recv_length")
int BPF_PROG(socket_read, struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct arrival *arrival;
	struct flow flow = {};

	if (gadget_controller == HIERARCHY_UNIFIED)
		return 0;
	arrival = bpf_map_lookup_elem(&arrivals, &key);
	if (!arrival || !may_be_wanted(&flow))
		return 0;
	flow.protocol = sk->sk_protocol;
	flow.peer = arrival->peer;
	flow.local = arrival->local;
	bpf_map_delete_elem(&arrivals, &key);
	datagram_seen(&flow, sk, false);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
