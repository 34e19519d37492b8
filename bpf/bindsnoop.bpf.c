// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * bindsnoop: every socket of IP that is bound, and every attempt that failed.
 *
 * Seen where the system call returns: by then the socket has its port, also where the kernel was to choose one.
 */
#include "filter.h"
#include "compat.h"
#include "endpoint.h"
#include "file.h"

const volatile bool failed_only = false;

/* Named as people name them; others are shown by their number. */
enum protocol {
	none = 0, /* what was to be bound is no socket of IP */
	icmp = 1,
	tcp = 6,
	udp = 17,
	dccp = 33,
	ipv6_icmp = 58,
	sctp = 132,
	udplite = 136,
	raw = 255,
	mptcp = 262,
};

enum bind_option {
	reuseaddr = 0x01,
	reuseport = 0x02,
	freebind = 0x04,
	transparent = 0x08,
	bind_address_no_port = 0x10,
	v6only = 0x20,
};

struct bind {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process id");
	gadget_uid uid GADGET_DOC("user id of the process");
	gadget_errno ret GADGET_DOC("0 if the socket was bound, else why not");
	char comm[TASK_COMM_LEN] GADGET_DOC("name of the thread");
	__s32 fd GADGET_DOC("the socket's descriptor");
	enum protocol protocol GADGET_DOC("protocol of the socket");
	gadget_endpoint address GADGET_DOC("where it is bound now, with the port that it got; of a failure, what was asked for");
	char device[IFNAMSIZ] GADGET_DOC("network device that the socket is bound to");
	enum bind_option options GADGET_FLAGS GADGET_DOC("options of the socket");
};

GADGET_STREAM(events, struct bind, 0);

/* The bits of inet_sock that 6.6 gathered into one word. */
static __always_inline __u32 inet_options(const struct sock *sk)
{
	const struct inet_sock *inet = (const void *)sk;
	__u32 options = 0;

	if (bpf_core_field_exists(inet->inet_flags)) {
		__u64 flags = BPF_CORE_READ(inet, inet_flags);

		if (flags & 1ull << INET_FLAGS_FREEBIND)
			options |= freebind;
		if (flags & 1ull << INET_FLAGS_TRANSPARENT)
			options |= transparent;
		if (flags & 1ull << INET_FLAGS_BIND_ADDRESS_NO_PORT)
			options |= bind_address_no_port;
	} else {
		const struct inet_sock___v6_5 *old = (const void *)sk;

		if (BPF_CORE_READ_BITFIELD_PROBED(old, freebind))
			options |= freebind;
		if (BPF_CORE_READ_BITFIELD_PROBED(old, transparent))
			options |= transparent;
		if (BPF_CORE_READ_BITFIELD_PROBED(old, bind_address_no_port))
			options |= bind_address_no_port;
	}
	return options;
}

static __always_inline __u32 bind_options(const struct sock *sk)
{
	const struct sock_common *common = &sk->__sk_common;
	__u32 options = inet_options(sk);

	if (BPF_CORE_READ_BITFIELD_PROBED(common, skc_reuse))
		options |= reuseaddr;
	if (BPF_CORE_READ_BITFIELD_PROBED(common, skc_reuseport))
		options |= reuseport;
	if (BPF_CORE_READ_BITFIELD_PROBED(common, skc_ipv6only))
		options |= v6only;
	return options;
}

#define DEVICES_AT_ONE_HASH 8
#define DEVICE_HASHES 256 /* NETDEV_HASHENTRIES */

static __always_inline void read_device(char *name, const struct sock *sk)
{
	int i, index = BPF_CORE_READ(sk, __sk_common.skc_bound_dev_if);
	struct hlist_head *devices;
	struct net_device *device;
	struct hlist_node *node;

	if (!index)
		return;
	devices = BPF_CORE_READ(sk, __sk_common.skc_net.net, dev_index_head);
	node = BPF_CORE_READ(devices + (index & (DEVICE_HASHES - 1)), first);
	for (i = 0; i < DEVICES_AT_ONE_HASH && node; i++) {
		device = (void *)node - bpf_core_field_offset(struct net_device, index_hlist);
		if (BPF_CORE_READ(device, ifindex) == index) {
			bpf_core_read_str(name, IFNAMSIZ, &device->name);
			return;
		}
		node = BPF_CORE_READ(node, next);
	}
}

/* bind(socket, address, size of address) */
static __always_inline void bind_done(long ret)
{
	struct task_struct *task = current_task();
	struct pt_regs___kernel *regs;
	struct bind bind = {};
	struct sock *sk;
	__u16 family;

	if (failed_only && ret >= 0)
		return;
	if (!gadget_wanted(&bind.header, 0, task))
		return;
	regs = syscall_regs_of(task);
	bind.fd = syscall_argument(regs, 0);
	sk = current_socket(bind.fd);
	family = endpoint_of_sockaddr(&bind.address, (const void *)syscall_argument(regs, 1), syscall_argument(regs, 2));
	if (sk)
		family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (!is_internet(family))
		return;
	name_task(&bind, task);
	bind.ret = ret;
	if (sk) {
		bind.protocol = BPF_CORE_READ(sk, sk_protocol);
		bind.options = bind_options(sk);
		read_device(bind.device, sk);
		if (!ret)
			endpoint_of_socket(&bind.address, sk);
	}
	gadget_send(&events, &bind.header, sizeof(bind));
}

SYSCALL_END(bind, bind_done)

/* For kernels that refuse the others; every system call of the node pays. */
SEC("tp_btf/sys_exit")
int BPF_PROG(any_bind_exited, struct pt_regs *regs, long ret)
{
	if (syscall_number(current_task(), (void *)regs) == __NR_bind)
		bind_done(ret);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
