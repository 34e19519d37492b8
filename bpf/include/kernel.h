/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's types, cut down to the members that we read.
 *
 * Every member is relocated by name against the running kernel's BTF (CO-RE), so order and size here mean nothing.
 * Each struct is written as the oldest kernel we support (5.10) has it; a member that moved since then gets a
 * flavour (`struct x___v5_11`) and a comment that names the version.
 */
#pragma once

#include <linux/types.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/bpf.h>
#include <asm/ptrace.h>
#include <asm/unistd.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#ifndef bool
#define bool _Bool
#define true 1
#define false 0
#endif

#define TASK_COMM_LEN 16
#define IFNAMSIZ 16
#define SOCKFS_MAGIC 0x534f434b

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct proc_ns_operations {
	const char *name;
};

struct ns_common {
	unsigned int inum;
	const struct proc_ns_operations *ops;
};

struct list_head {
	struct list_head *next;
	struct list_head *prev;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct user_namespace {
	struct ns_common ns;
};

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
	struct user_namespace *user_ns;
};

struct net;

struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct net *net_ns;
};

struct css_set;

struct mm_struct {
	unsigned long end_data;
	unsigned long start_stack;
	unsigned long arg_start;
	unsigned long arg_end;
	unsigned long env_end;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct super_block {
	unsigned long s_magic;
};

struct inode {
	struct super_block *i_sb;
	unsigned short i_mode;
	unsigned int i_nlink;
	unsigned long i_ino;
	__s64 i_size;
	void *i_private;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	unsigned int f_flags;
	__s64 f_pos;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	struct path root;
};

struct seccomp {
	int mode;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;	/* threads that have not begun to exit */
	int nr_threads;
	void *oom_mm; /* of who was chosen because there was no memory */
};

struct upid {
	int nr;
};

struct pid {
	unsigned int level;
	struct upid numbers[1]; /* its ids, from the host's namespace to its own */
};

struct sched_entity {
	__u64 sum_exec_runtime;
};

struct task_struct {
	struct sched_entity se;
	long state;
	void *stack;
	int pid;  /* the thread's id; what user space calls tid */
	int tgid; /* the process's id; what user space calls pid */
	int exit_code; /* as wait(2) has it */
	int exit_state; /* 0 until it ends */
	__u64 start_boottime; /* CLOCK_BOOTTIME, ns (5.5) */
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	struct pid *thread_pid;
	struct signal_struct *signal;
	struct list_head thread_node; /* in the list of the process's threads, of which the leader is the first */
	struct mm_struct *mm;
	const struct cred *cred;
	struct nsproxy *nsproxy;
	struct fs_struct *fs;
	struct files_struct *files;
	struct css_set *cgroups;
	struct seccomp seccomp;
	char comm[TASK_COMM_LEN];
};

struct task_struct___v5_14 {
	unsigned int __state;
};

struct linux_binprm {
	const char *filename;
};

struct kernfs_node {
	const char *name;
	__u64 id;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1]; /* by controller; there are more */
	struct cgroup *dfl_cgrp;	       /* in the unified hierarchy */
};

/* include/net/tcp_states.h: the same in all versions. */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_CLOSE = 7,
	TCP_LISTEN = 10,
	TCP_NEW_SYN_RECV = 12, /* a request: the other end has not answered yet */
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct net_device {
	char name[IFNAMSIZ];
	int ifindex;
	struct hlist_node index_hlist;
};

struct hlist_nulls_node {
	struct hlist_nulls_node *next; /* odd at the end */
};

struct net {
	struct ns_common ns;
	struct hlist_head *dev_index_head;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num; /* its own port, in host byte order */
	__u16 skc_family;
	volatile __u8 skc_state;
	__u8 skc_reuse : 4;
	__u8 skc_reuseport : 1;
	__u8 skc_ipv6only : 1;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	unsigned long skc_flags;
	struct sock *skc_listener; /* of a request */
	struct hlist_nulls_node skc_nulls_node;
};

struct sock_cgroup_data {
	struct cgroup *cgroup; /* 5.15 */
};

/* A packet. */
struct sk_buff {
	unsigned long dev_scratch; /* what a protocol notes where the device was */
	__be16 protocol;
	__u16 transport_header;
	__u16 network_header;
	unsigned char *head;
	unsigned int len;
	char cb[48]; /* whoever has it just now keeps here what it wants */
	struct sk_buff *next;
};

/* What Unix sockets keep there. */
struct unix_skb_parms {
	__u32 consumed; /* bytes that were read already */
};

struct sk_buff_head {
	struct sk_buff *next; /* the first; of an empty queue its own address */
	struct sk_buff *prev; /* the last; likewise */
	__u32 qlen;
};

typedef struct {
	atomic_t refs;
} refcount_t;

struct msghdr {
	void *msg_name;
	int msg_namelen;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue;
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	refcount_t sk_wmem_alloc;
	__u32 sk_ack_backlog; /* connections that wait to be accepted */
	__u32 sk_max_ack_backlog;
	struct socket *sk_socket;
	__u8 sk_userlocks : 4;
	__u16 sk_protocol;
	__u16 sk_type;
	int sk_err;
	kuid_t sk_uid;
	struct sock_cgroup_data sk_cgrp_data;
};

struct socket {
	struct sock *sk;
	struct file *file;
};

/* What is left of a connection, until nothing of it can come any more. */
struct inet_timewait_sock {
	struct sock_common __tw_common;
	volatile unsigned char tw_substate;
};

struct sockaddr_un {
	unsigned short sun_family;
	char sun_path[108];
};

struct unix_address {
	int len; /* of the name, its family included */
	struct sockaddr_un name[1];
};

struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
};

/* What an endpoint of SCTP and an association begin with. */
struct sctp_ep_common {
	struct sock *sk;
};

struct inet_sock {
	__be16 inet_sport; /* its own port, also when the socket has none any more */
	unsigned long inet_flags; /* 6.6 */
};

struct tcp_sock {
	__u64 bytes_sent;
	__u64 bytes_retrans;
	__u64 bytes_received;
	__u32 total_retrans;
	__u32 rcv_nxt; /* numbers of bytes: the next to come, */
	__u32 copied_seq; /* the next to be read, */
	__u32 write_seq; /* the next to be written, */
	__u32 snd_una; /* and the first that is not acknowledged */
};

struct udp_sock {
	int forward_deficit; /* bytes that were read and are still counted */
};

/* Numbered in include/net/inet_sock.h, in an enum without a name, which CO-RE cannot find. */
enum {
	INET_FLAGS_FREEBIND = 11,
	INET_FLAGS_TRANSPARENT = 15,
	INET_FLAGS_BIND_ADDRESS_NO_PORT = 18,
};

struct inet_sock___v6_5 {
	__u8 freebind : 1;
	__u8 transparent : 1;
	__u8 bind_address_no_port : 1;
};

/* Until 5.14 it is one number, which is also used for other things. */
struct sock_cgroup_data___v5_14 {
	__u64 val;
};

struct sock___v5_14 {
	struct sock_cgroup_data___v5_14 sk_cgrp_data;
};

struct filename {
	const char *name;
};

struct open_request_flags {
	__u64 flags;
	__u64 mode;
};

/* What a request to open keeps, from `cmd` on. */
struct io_open {
	struct filename *filename;
	struct open_request_flags how;
};

/* Of one pointer, with another way to use it. */
struct delayed_filename {
};

struct io_open___v7_0 {
	struct delayed_filename filename;
};

struct io_cmd_data {
};

struct io_cqe {
	__s32 res;
};

struct io_kiocb {
	struct io_cmd_data cmd; /* 6.0 */
	__u8 opcode;
	struct io_cqe cqe;
};

#pragma clang attribute pop
