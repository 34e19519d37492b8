// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * tcpstates: what becomes of TCP sockets. For socket.h: whose a socket is.
 */
#include "socket.h"
#include "nested.h"

struct change {
	struct gadget_header header;
	gadget_pid pid GADGET_DOC("process that runs meanwhile, which may be any");
	__u32 old GADGET_DOC("state that it leaves, as in include/net/tcp_states.h");
	__u32 new GADGET_DOC("state that it comes to");
	__u32 port GADGET_DOC("its own port; 0 when it has none");
};

GADGET_STREAM(events, struct change, 0);

static __always_inline void state_changed(const struct sock *sk, int old, int new)
{
	struct change change = {};

	socket_changed(sk, old, new);
	if (!gadget_socket_wanted(&change.header, 0, sk))
		return;
	change.pid = bpf_get_current_pid_tgid() >> 32;
	change.old = old;
	change.new = new;
	change.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	gadget_send(&events, &change.header, sizeof(change));
}

GADGET_NESTED(inet_sock_set_state, state_set, sk, state_changed(sk, old, new), const struct sock *sk, int old, int new)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
