/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a gadget is made of: a record that describes itself, and a ring that counts what it drops.
 *
 * A gadget's record is a struct that starts with `struct gadget_header`. Its BTF is its documentation: the reader
 * learns names, offsets and sizes from it, the meaning of a member from the typedefs below, and its description from
 * GADGET_DOC. `docs/writing-a-gadget.md` walks through one.
 */
#pragma once

#include "context.h"
#include "kernel.h"

/* ---- The meaning of a member. gadgets/src/schema.rs maps each name to a way of showing it. ---- */

typedef __u32 gadget_pid;      /* process id in the host's pid namespace */
typedef __u32 gadget_uid;      /* user id in the host's user namespace */
typedef __s32 gadget_errno;    /* a result: 0 or more for success, -errno for failure */
typedef __s64 gadget_result;   /* the same, of a system call that may return an address */
typedef __u64 gadget_bytes;    /* a count of bytes */
typedef __u64 gadget_age;      /* nanoseconds that have passed since then */
typedef __u32 gadget_duration; /* microseconds, rounded up; 0 if nobody knows */
typedef __u64 gadget_open_flags; /* flags of open(2), numbered as on x86-64 */
typedef __u32 gadget_mode;	 /* permissions of a file */
typedef __u32 gadget_capability; /* a capability's number */
typedef __u64 gadget_span;     /* nanoseconds that something took altogether */
typedef __u64 gadget_kernel_stack; /* the number of a stack: see stack.h */
typedef __u64 gadget_user_stack;   /* the same of a program's: see user_stack.h */

#define GADGET_STACK_NONE 0
#define GADGET_STACK_UNKEPT (~0ull) /* there was no room for it */

/* A system call's number; -1 if there is none, or it is one of 32 bits. */
#if defined(__TARGET_ARCH_x86)
typedef __s32 gadget_syscall_x86_64;
typedef __s32 gadget_syscall_x86;
#define gadget_syscall gadget_syscall_x86_64
#define gadget_compat_syscall gadget_syscall_x86
#elif defined(__TARGET_ARCH_arm64)
typedef __s32 gadget_syscall_aarch64;
typedef __s32 gadget_syscall_arm;
#define gadget_syscall gadget_syscall_aarch64
#define gadget_compat_syscall gadget_syscall_arm
#endif

/* An address of IP and a port. */
struct gadget_address_and_port {
	__u8 address[16]; /* in network order; IPv4 as IPv6 has it, ::ffff:a.b.c.d */
	__u16 port;	  /* host byte order */
};
typedef struct gadget_address_and_port gadget_endpoint;
typedef struct gadget_address_and_port gadget_peer; /* somebody's who has a name */
typedef struct gadget_address_and_port gadget_policy_peer; /* the same, with what a NetworkPolicy selects it by */

/*
 * A string or list that follows the struct, as long as it is. `offset` counts from the header's first byte. The top
 * bit of `length` says that the source was longer than what was kept.
 */
struct gadget_tail {
	__u16 offset;
	__u16 length;
};
#define GADGET_TAIL_CUT 0x8000
#define GADGET_TAIL_MAX 0x7fff

typedef struct gadget_tail gadget_string;  /* one string, without its NUL */
typedef struct gadget_tail gadget_strings; /* strings, each with its NUL */
typedef struct gadget_tail gadget_path;	   /* names of directories and of what is in them, innermost first, each with its NUL */

/* What a system call is given. */
struct gadget_call_arguments {
	__u64 values[6];	     /* registers */
	__s32 number;		     /* of the call, as programs of 64 bits number it; -1 if the registers mean nothing else */
	struct gadget_tail captured; /* what arguments point to: each a struct capture_piece of capture.h */
};
typedef struct gadget_call_arguments gadget_arguments;

/* An enum is shown by the names of its enumerators as they are in C; with this, each is a bit, or some. */
#define GADGET_FLAGS __attribute__((btf_decl_tag("flags")))

/* A member's description. It must be a literal; it ends up in the object's BTF. */
#define GADGET_DOC(text) __attribute__((btf_decl_tag("doc:" text)))

/* ---- The record's head. gadgets/src/record.rs reads it; both change together. ---- */

struct gadget_header {
	__u32 size;   /* bytes of the whole record, tails included */
	__u16 stream; /* the third argument of its GADGET_STREAM */
	__u16 flags;  /* GADGET_SETUP, GADGET_RECORDED_OWNER */
	__u64 time;   /* CLOCK_BOOTTIME, ns */
	__u64 cgroup; /* id in the hierarchy that is followed: see filter.h; 0 if the slot is all that is known */
	__u32 slot;   /* which slot let it through: see filter.h */
	__u32 reserved;
};

/* The event is a container runtime's own, on the way to the container's program. */
#define GADGET_SETUP 0x1
/* Whose the socket is was recorded when it was used, since the kernel does not keep it: see socket.h. */
#define GADGET_RECORDED_OWNER 0x2

/* ---- The ring. ---- */

/*
 * Declares a stream: the ring that carries it and the type of its records. clang leaves out of BTF a struct that is
 * only used through a pointer, so the macro also emits a variable of the type into a section that libbpf ignores and
 * never becomes a map. The ring's size is set by the agent before load.
 */
#define GADGET_STREAM(ring, record, id)                                                                                 \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                    \
		__uint(max_entries, 4 << 20);                                                                          \
	} ring SEC(".maps");                                                                                           \
	record gadget_stream_##id SEC(".gadget.streams") = {}

/* Records that found no room in the ring, per slot and CPU. Never reset: the reader keeps what it saw last. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1); /* set by the agent: one more than the slots; the last is the total */
	__type(key, __u32);
	__type(value, __u64);
} gadget_lost SEC(".maps");

const volatile __u32 gadget_lost_total = 0; /* the index of the total in gadget_lost */

/*
 * What the reader of the ring is doing. A wake-up is the dearest part of sending a record, so there is at most one per
 * sleep: the first record wakes a reader that is ASLEEP; a NAPPING one comes back by itself within milliseconds and is
 * only woken when much has gathered.
 */
enum gadget_reader_state {
	GADGET_READER_AWAKE = 0,
	GADGET_READER_NAPPING = 1,
	GADGET_READER_ASLEEP = 2,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} gadget_reader SEC(".maps");

const volatile __u64 gadget_ring_bytes = 4 << 20; /* the ring's size */

/* Whether much waits in the ring, by how many bytes it has. */
static __always_inline bool gadget_is_much(__u64 used)
{
	return used >= gadget_ring_bytes / 4;
}

/* Of what can wait the reader is told only when much has gathered. */
static __always_inline __u64 gadget_wakeup(__u64 used, bool can_wait)
{
	__u32 zero = 0;
	__u32 *state = bpf_map_lookup_elem(&gadget_reader, &zero);

	if (!state || *state == GADGET_READER_AWAKE)
		return BPF_RB_NO_WAKEUP;
	if ((can_wait || *state == GADGET_READER_NAPPING) && !gadget_is_much(used))
		return BPF_RB_NO_WAKEUP;
	*state = GADGET_READER_AWAKE;
	return BPF_RB_FORCE_WAKEUP;
}

/* Counts one for a slot, and in total. */
static __always_inline void gadget_count(void *counters, __u32 slot)
{
	__u32 total = gadget_lost_total;
	__u64 *count;

	/* Another program may come in between, even on the same CPU. */
	count = bpf_map_lookup_elem(counters, &slot);
	if (count)
		__sync_fetch_and_add(count, 1);
	count = bpf_map_lookup_elem(counters, &total);
	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void gadget_count_lost(__u32 slot)
{
	gadget_count(&gadget_lost, slot);
}

/*
 * ---- Shares of the ring. gadgets/src/shares.rs has the same rule for queues in user space. ----
 *
 * When much waits, a slot's part of it may be at most GADGET_SHARE times what is free (dynamic thresholds, as switches
 * share out their buffers). A slot that sends without end so leaves a fifth of that room free, two leave a ninth, and one
 * that sends little always finds some. Until much waits nobody needs to count.
 */
#define GADGET_SHARE 4

/* What a slot has in the ring: never less than was counted, and soon no more. By positions in the ring, which only grow. */
struct gadget_backlog {
	__u64 last;   /* where its last record went: once that is read, all is */
	__u64 recent; /* where its recent records begin: once the reader is there, the former ones are read */
	__u64 former_bytes, recent_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set by the agent: the number of slots */
	__type(key, __u32);
	__type(value, struct gadget_backlog);
} gadget_backlogs SEC(".maps");

/* Whether a slot may send so many bytes. If two CPUs ask for one slot at once, some may go uncounted. */
static __always_inline bool gadget_has_share(void *ring, __u64 used, __u32 slot, __u64 size)
{
	struct gadget_backlog *b;
	__u64 read, written;

	if (!gadget_is_much(used))
		return true;
	b = bpf_map_lookup_elem(&gadget_backlogs, &slot);
	if (!b || used + size > gadget_ring_bytes)
		return false;
	read = bpf_ringbuf_query(ring, BPF_RB_CONS_POS);
	written = bpf_ringbuf_query(ring, BPF_RB_PROD_POS);
	if (read > b->last)
		b->recent_bytes = 0;
	if (read >= b->recent) {
		b->former_bytes = b->recent_bytes;
		b->recent_bytes = 0;
		b->recent = written;
	}
	if (b->former_bytes + b->recent_bytes + size > (gadget_ring_bytes - used) * GADGET_SHARE)
		return false;
	b->recent_bytes += size;
	b->last = written;
	return true;
}

/*
 * Per-CPU memory, for records that are too large for the stack. A program cannot leave its CPU, but since 5.11 another one
 * can come in between there: on kernels that preempt (preempt=full), or in an interrupt. Who takes the memory gives it back;
 * who finds it taken has lost its event, and counts that.
 */
static __always_inline bool gadget_take(__u64 *users)
{
	/* 5.10 has no atomic exchange. Only who counts itself and nobody else goes on; two may give way to each other. */
	__sync_fetch_and_add(users, 1);
	if (*(volatile __u64 *)users == 1)
		return true;
	__sync_fetch_and_add(users, -1);
	return false;
}

static __always_inline void gadget_give_back(__u64 *users)
{
	__sync_fetch_and_add(users, -1);
}

static __always_inline bool gadget_send_some_time(void *ring, struct gadget_header *header, __u64 size, bool can_wait)
{
	__u64 used = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);

	header->size = size;
	if (gadget_has_share(ring, used, header->slot, size) && !bpf_ringbuf_output(ring, header, size, gadget_wakeup(used, can_wait)))
		return true;
	gadget_count_lost(header->slot);
	return false;
}

/*
 * Sends the first `header->size` bytes at `header`, or counts the loss. `size` repeats it, bounded for the verifier. Returns
 * whether it was sent.
 */
static __always_inline bool gadget_send(void *ring, struct gadget_header *header, __u64 size)
{
	return gadget_send_some_time(ring, header, size, false);
}
