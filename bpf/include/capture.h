/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the arguments of a system call point to, copied where it returns.
 *
 * What there is to copy is a shape, of which the agent writes one for each call into a map: it has them from what the kernel says of
 * its own calls (gadgets/src/capture.rs, which has the same kinds and limits). A call with nothing to copy costs a look into that map.
 */
#pragma once

#include "compat.h"
#include "gadget.h"

#define CAPTURE_CALLS 512  /* numbers of calls that can have a shape */
#define CAPTURE_PIECES 4   /* pieces of a call */
#define CAPTURE_LENGTH 255 /* bytes of a piece */
#define CAPTURE_HEAD 4	   /* struct capture_piece */
/* Two of the longest fit, with a text's NUL, in a multiple of 8. One that begins after these is left out. */
#define CAPTURE_ROOM 520
#define CAPTURE_LAST (CAPTURE_ROOM - CAPTURE_HEAD - CAPTURE_LENGTH - 1)

/* Where the bytes of a piece are, and how many there are. */
enum capture_kind {
	CAPTURE_NOTHING = 0,
	CAPTURE_TEXT = 1,	 /* up to a NUL */
	CAPTURE_BYTES_IN = 2,	 /* as many as another argument says */
	CAPTURE_BYTES_OUT = 3,	 /* as many as the call returned */
	CAPTURE_BYTES_SIZED = 4, /* as many as is said where another argument points to */
	CAPTURE_ADDRESS_IN = 5,	 /* of a socket: as many as another argument says */
	CAPTURE_ADDRESS_OUT = 6, /* as many as is said where another argument points to */
	CAPTURE_VALUE_IN = 7,	 /* always the same number */
	CAPTURE_VALUE_OUT = 8,	 /* the same, if the call did not fail */
	CAPTURE_VECTOR_IN = 9,	 /* the first buffer of an iovec, of which another argument says how many there are */
	CAPTURE_VECTOR_OUT = 10, /* the same, as far as the call has filled it */
	CAPTURE_MESSAGE_IN = 11, /* the first buffer of a msghdr */
	CAPTURE_MESSAGE_OUT = 12,
	CAPTURE_PROGRAM = 13,		/* text: the file to execute */
	CAPTURE_PROGRAM_ARGUMENTS = 14, /* texts, each with its NUL: of a program that was started */
};

/* In the kind of a piece: a program was started, and the registers are its own. */
#define CAPTURE_STARTED 0x80

struct capture {
	__u8 kind;
	__u8 argument; /* which points to it */
	__u8 size;     /* the other argument */
	__u8 most;     /* bytes to copy at most */
};

struct capture_shape {
	struct capture pieces[CAPTURE_PIECES]; /* CAPTURE_NOTHING ends them */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CAPTURE_CALLS);
	__type(key, __u32);
	__type(value, struct capture_shape);
} capture_shapes SEC(".maps");

/* How a piece is sent. The top bit of `length` says that there was more. */
struct capture_piece {
	__u8 argument;
	__u8 kind;
	__u16 length;
	char bytes[];
};

struct capture_vector {
	__u64 base, length;
};

/* As user space has it, on 64 bits. */
struct capture_message {
	__u64 name, name_length;
	__u64 vectors, vector_count;
};

/* The shape of a call; NULL if nothing is to be copied. */
static __always_inline const struct capture_shape *capture_shape(__u32 number)
{
	struct capture_shape *shape = bpf_map_lookup_elem(&capture_shapes, &number);

	return shape && shape->pieces[0].kind != CAPTURE_NOTHING ? shape : NULL;
}

/* Where the bytes of a piece are; 0 if there are none. A text has no length yet. */
static __always_inline __u64 capture_source(const struct capture *what, const __u64 *values, long ret, __u64 *length)
{
	__u64 address = values[what->argument & 7], other = values[what->size & 7];
	struct capture_message message;
	struct capture_vector vector;
	struct mm_struct *mm;
	__u32 size = 0;

	switch (what->kind) {
	case CAPTURE_TEXT:
		return address;
	case CAPTURE_BYTES_IN:
		*length = other;
		return address;
	case CAPTURE_BYTES_OUT:
		*length = ret;
		return ret >= 0 ? address : 0;
	case CAPTURE_ADDRESS_IN:
		*length = (__u32)other;
		return address;
	case CAPTURE_BYTES_SIZED:
	case CAPTURE_ADDRESS_OUT:
		if (ret < 0 || bpf_probe_read_user(&size, sizeof(size), (void *)other))
			return 0;
		*length = size;
		return address;
	case CAPTURE_VALUE_IN:
		*length = what->most;
		return address;
	case CAPTURE_VALUE_OUT:
		*length = what->most;
		return ret >= 0 ? address : 0;
	case CAPTURE_MESSAGE_IN:
	case CAPTURE_MESSAGE_OUT:
		if (bpf_probe_read_user(&message, sizeof(message), (void *)address))
			return 0;
		address = message.vectors;
		other = message.vector_count;
		/* fallthrough */
	case CAPTURE_VECTOR_IN:
	case CAPTURE_VECTOR_OUT:
		if (!other || bpf_probe_read_user(&vector, sizeof(vector), (void *)address))
			return 0;
		*length = vector.length;
		if (what->kind == CAPTURE_VECTOR_IN || what->kind == CAPTURE_MESSAGE_IN)
			return vector.base;
		if (ret > 0 && vector.length > (__u64)ret)
			*length = ret;
		return ret > 0 ? vector.base : 0;
	case CAPTURE_PROGRAM:
		if (ret)
			return address;
		/* What the program that called was is gone. The kernel puts the name of the file behind the environment. */
		mm = TASK_MEMBER(struct task_struct, current_task(), mm);
		return BPF_CORE_READ(mm, env_end);
	case CAPTURE_PROGRAM_ARGUMENTS:
		if (ret)
			return 0;
		mm = TASK_MEMBER(struct task_struct, current_task(), mm);
		address = BPF_CORE_READ(mm, arg_start);
		*length = BPF_CORE_READ(mm, arg_end) - address;
		return address;
	}
	return 0;
}

/* Adds a piece to the `used` bytes in `room`, if it can be had. */
static __always_inline void capture_one(const struct capture *what, const __u64 *values, const __s64 *result, char *room, __u16 *used)
{
	__u64 length = 0, most, address;
	/*
	 * This and what follows is read anew for each piece: so it is the same to the verifier however it came about, and it need not
	 * follow each way through all pieces.
	 */
	long ret = *(volatile __s64 *)result;
	struct capture_piece *piece;
	bool cut = false;
	char next = 0;
	__u32 begin;
	__u8 kind;
	long read;

	address = capture_source(what, values, ret, &length);
	if (!address)
		return;
	begin = *(volatile __u16 *)used;
	if (begin > CAPTURE_LAST)
		return;
	kind = *(volatile __u8 *)&what->kind;
	most = *(volatile __u8 *)&what->most;
	piece = (void *)(room + begin);
	if (kind == CAPTURE_TEXT || kind == CAPTURE_PROGRAM) {
		read = bpf_probe_read_user_str(piece->bytes, most + 1, (void *)address);
		if (read < 0)
			return;
		/* With the NUL; of an empty text older kernels (seen: 6.1) say 0. */
		length = read ? read - 1 : 0;
		if (length >= most) {
			length = most;
			cut = !bpf_probe_read_user(&next, sizeof(next), (void *)(address + most)) && next;
		}
	} else {
		cut = length > most;
		if (cut)
			length = most;
		/* It is no more than that, which older verifiers do not see. */
		barrier_var(length);
		length &= CAPTURE_LENGTH;
		if (bpf_probe_read_user(piece->bytes, length, (void *)address))
			return;
	}
	piece->argument = what->argument;
	piece->kind = kind | (kind >= CAPTURE_PROGRAM && !*(volatile __s64 *)result ? CAPTURE_STARTED : 0);
	piece->length = length | (cut ? GADGET_TAIL_CUT : 0);
	*used = begin + CAPTURE_HEAD + (*(volatile __u16 *)&piece->length & CAPTURE_LENGTH);
}

/*
 * Copies what a shape names into `room`: CAPTURE_ROOM bytes behind a record, and 8 more. `values` are the registers. What it took is
 * in `used`, and returned as a multiple of 8.
 */
static __always_inline __u32 capture(const struct capture_shape *shape, const __u64 *values, const __s64 *ret, char *room, __u16 *used)
{
	__u32 end;
	int i;

	*used = 0;
	for (i = 0; i < CAPTURE_PIECES; i++) {
		if (shape->pieces[i].kind == CAPTURE_NOTHING)
			break;
		capture_one(&shape->pieces[i], values, ret, room, used);
	}
	end = *(volatile __u16 *)used;
	/* It always is. Nobody sees what was there before. */
	if (end <= CAPTURE_ROOM)
		*(__u64 *)(room + end) = 0;
	return (end + 7) & ~7;
}
