/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which events a gadget sends: cgroup -> slot -> the instances that want it.
 *
 * A slot stands for a pod (or for a container outside pods, or a cgroup that a user named). tracker.bpf.c puts every
 * new cgroup into its pod's slot before a task can enter it; user space alone writes `masks`. Each running instance of
 * a gadget owns one bit. An event that nobody wants costs these look-ups.
 *
 * The maps belong to tracker.bpf.c; the agent gives them to every gadget.
 */
#pragma once

#include "compat.h"
#include "gadget.h"

#define SLOT_HOST 0   /* everything outside pods and containers */
#define SLOT_SHARED 1 /* pods that found no free slot or no room in `cgroups`: always sent, user space decides */
#define SLOT_FIRST 2

struct cgroup_entry {
	__u32 slot;
	__u16 level;  /* enum cgroup_level */
	__u16 is_new; /* a container's, whose program has not started yet: whoever runs there is its runtime */
};

enum cgroup_level {
	LEVEL_OTHER = 0,
	LEVEL_CONTAINER = 1, /* a container's directory, or inside it */
	LEVEL_POD = 2,       /* a pod's directory, or inside it */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, __u64);     /* cgroup id in the hierarchy that is followed */
	__type(value, struct cgroup_entry);
} cgroups SEC(".maps");

/*
 * The slots that were found last, by the end of the cgroup's id: a look into an array costs next to nothing, one into `cgroups` some
 * 30 ns. A note is one number, so that no two are mixed: the id, the round in which it was made, and the slot. Whatever user space
 * changes in `cgroups` begins a new round, in which no note from before counts. The kernel itself only adds cgroups that nobody is in
 * yet; of new containers, and of what may have found no room, there is no note.
 */
#define NOTES 1024
#define NOTE_SLOT_BITS 13
#define NOTE_ROUND_BITS 19
#define NOTE_SLOT(note) ((note) & ((1 << NOTE_SLOT_BITS) - 1))

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NOTES);
	__type(key, __u32);
	__type(value, __u64);
} cgroup_notes SEC(".maps");

/* The round, less than 2^NOTE_ROUND_BITS. Before user space begins again with the first it takes away all notes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} cgroup_round SEC(".maps");

/* Cgroups that found no room there: how many so far, and at which number of them user space last found all of them in. */
enum left_out {
	LEFT_OUT = 0,
	LEFT_OUT_MENDED = 1,
	LEFT_OUT_COUNT = 2,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LEFT_OUT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} left_out SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set by the agent: the number of slots */
	__type(key, __u32);
	__type(value, __u64);
} masks SEC(".maps");

/* Processes that a runtime moved into a container and that have not become its program yet (runc init), by tgid. */
struct entry_mark {
	__u32 runtime_mntns; /* mount namespace of the process that moved it */
	__u32 execs;	     /* programs that it has become in that namespace */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct entry_mark);
} entering SEC(".maps");

/* How many these are, and some more if any had to make room. Mostly there are none, and nobody needs to look for one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} entering_count SEC(".maps");

const volatile __u64 gadget_instance = 0; /* this instance's bit */

/*
 * The hierarchy that tells containers apart: the unified one, or, on a host where runtimes make no directories there,
 * that of a controller of cgroup v1.
 */
#define HIERARCHY_UNIFIED (~0u)
const volatile __u32 gadget_hierarchy = 0;			 /* its id; 0 is the unified one's */
const volatile __u32 gadget_controller = HIERARCHY_UNIFIED; /* the controller's enum cgroup_subsys_id */

/* The id of a task's cgroup there. */
static __always_inline __u64 task_cgroup(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *state = NULL;

	if (gadget_controller == HIERARCHY_UNIFIED)
		return BPF_CORE_READ(set, dfl_cgrp, kn, id);
	bpf_probe_read_kernel(&state, sizeof(state),
			      (void *)set + bpf_core_field_offset(set->subsys) + gadget_controller * sizeof(state));
	return BPF_CORE_READ(state, cgroup, kn, id);
}

/* The same of the current task. */
static __always_inline __u64 current_cgroup(struct task_struct *task)
{
	struct cgroup_subsys_state **state;

	if (!has_task_pt_regs())
		return task_cgroup(task);
	if (gadget_controller == HIERARCHY_UNIFIED)
		return task->cgroups->dfl_cgrp->kn->id;
	state = (void *)task->cgroups + bpf_core_field_offset(task->cgroups->subsys) + gadget_controller * sizeof(*state);
	return (*state)->cgroup->kn->id;
}

/* The cgroup that the kernel keeps with a socket; 0 if it keeps none. */
static __always_inline __u64 socket_cgroup(const struct sock *sk)
{
	struct cgroup *cgroup;

	if (gadget_controller != HIERARCHY_UNIFIED)
		return 0;
	if (bpf_core_field_exists(struct sock_cgroup_data___v5_14, val)) {
		/* A pointer, unless its lowest bits say that it is something else. */
		__u64 value = BPF_CORE_READ((const struct sock___v5_14 *)sk, sk_cgrp_data.val);

		cgroup = value & 3 ? NULL : (struct cgroup *)value;
	} else {
		cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	}
	return cgroup ? BPF_CORE_READ(cgroup, kn, id) : 0;
}

static __always_inline bool is_any_entering(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&entering_count, &zero);

	return count && *count;
}

static __always_inline bool is_entering(struct task_struct *task)
{
	__u32 tgid;

	if (!is_any_entering())
		return false;
	tgid = task_pid(task);
	return bpf_map_lookup_elem(&entering, &tgid);
}

/* The slot of a cgroup that has no entry: it is the host's, unless some others have none either. */
static __always_inline __u32 slot_without_entry(void)
{
	__u32 all = LEFT_OUT, mended = LEFT_OUT_MENDED;
	__u64 *count = bpf_map_lookup_elem(&left_out, &all), *found = bpf_map_lookup_elem(&left_out, &mended);

	return count && found && *count != *found ? SLOT_SHARED : SLOT_HOST;
}

/*
 * ---- Which tasks. gadget-agent/src/tasks.rs fills this in. A list that nobody gave costs nothing: what it would do is
 * never loaded. ----
 */
enum task_field {
	TASK_PID = 0,
	TASK_UID = 1,
	TASK_COMM = 2,
};

enum task_choice {
	TASK_ANY = 0,
	TASK_ONLY = 1, /* those that are listed */
	TASK_NOT = 2,  /* the others */
};

const volatile __u32 gadget_pids = TASK_ANY;
const volatile __u32 gadget_uids = TASK_ANY;
const volatile __u32 gadget_comms = TASK_ANY;

struct task_value {
	__u32 field;
	union {
		__u32 number;
		char comm[TASK_COMM_LEN];
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the agent */
	__type(key, struct task_value);
	__type(value, __u8);
} task_values SEC(".maps");

static __always_inline bool is_chosen(__u32 choice, struct task_value *value)
{
	return (choice == TASK_ONLY) == !!bpf_map_lookup_elem(&task_values, value);
}

static __always_inline bool pid_wanted(__u32 pid)
{
	struct task_value value = { .field = TASK_PID };

	value.number = pid;
	return is_chosen(gadget_pids, &value);
}

static __always_inline bool uid_wanted(__u32 uid)
{
	struct task_value value = { .field = TASK_UID };

	value.number = uid;
	return is_chosen(gadget_uids, &value);
}

static __always_inline bool comm_wanted(const char *comm)
{
	struct task_value value = { .field = TASK_COMM };
	int i;

	/* A key has nothing behind the name, where older kernels leave the rest of a former one. */
	for (i = 0; i < TASK_COMM_LEN && comm[i]; i++)
		value.comm[i] = comm[i];
	return is_chosen(gadget_comms, &value);
}

/* Whether a task that is known by these fits the lists. */
static __always_inline bool known_task_wanted(__u32 pid, __u32 uid, const char *comm)
{
	return (!gadget_pids || pid_wanted(pid)) && (!gadget_uids || uid_wanted(uid)) && (!gadget_comms || comm_wanted(comm));
}

/* Whether the current task does. */
static __always_inline bool task_wanted(struct task_struct *task)
{
	char comm[TASK_COMM_LEN] __attribute__((aligned(8)));

	if (gadget_pids && !pid_wanted(task_pid(task)))
		return false;
	if (gadget_uids && !uid_wanted(task_uid(task)))
		return false;
	if (gadget_comms) {
		read_task_comm(comm, task);
		return comm_wanted(comm);
	}
	return true;
}

/* What a note on a cgroup is without the slot; 0 if there is to be none. */
static __always_inline __u64 note_on(__u64 cgroup)
{
	__u32 zero = 0;
	__u64 *round = bpf_map_lookup_elem(&cgroup_round, &zero);

	/* Ids are numbers in turn. That of the 2^32nd cgroup has no room in a note. */
	if (!round || cgroup >> 32)
		return 0;
	return cgroup << 32 | *(volatile __u64 *)round << NOTE_SLOT_BITS;
}

/* The slot of a cgroup, and whether it is that of a container whose program has not started yet. */
static __always_inline __u32 slot_of(__u64 cgroup, bool *is_new)
{
	__u64 mark = note_on(cgroup), seen = 0, *note;
	__u32 end = cgroup % NOTES, slot;
	struct cgroup_entry *entry;

	*is_new = false;
	note = bpf_map_lookup_elem(&cgroup_notes, &end);
	if (note)
		seen = *(volatile __u64 *)note;
	slot = NOTE_SLOT(seen);
	if (mark && seen - slot == mark)
		return slot;
	fence();
	entry = bpf_map_lookup_elem(&cgroups, &cgroup);
	slot = entry ? entry->slot : slot_without_entry();
	*is_new = entry && entry->is_new;
	if (note && mark && !*is_new && (entry || slot == SLOT_HOST))
		*(volatile __u64 *)note = mark | slot;
	return slot;
}

static __always_inline bool slot_wanted(__u32 slot)
{
	__u64 *mask = bpf_map_lookup_elem(&masks, &slot);

	return mask && *mask & gadget_instance;
}

/* Whether somebody wants events of a cgroup, whatever its tasks are. */
static __always_inline bool cgroup_wanted(__u64 cgroup)
{
	bool is_new;

	return slot_wanted(slot_of(cgroup, &is_new));
}

/* Fills the header for what is of a slot, and of this cgroup there, if somebody wants it. 0 is none for certain. */
static __always_inline bool gadget_slot_wanted(struct gadget_header *header, __u16 stream, __u32 slot, __u64 cgroup)
{
	if (!slot_wanted(slot))
		return false;
	header->stream = stream;
	header->flags = 0;
	header->time = bpf_ktime_get_boot_ns();
	header->cgroup = cgroup;
	header->slot = slot;
	header->reserved = 0;
	return true;
}

static __always_inline bool fill_if_wanted(struct gadget_header *header, __u16 stream, __u64 cgroup, bool *is_new)
{
	__u32 slot = slot_of(cgroup, is_new);

	return gadget_slot_wanted(header, stream, slot, cgroup);
}

/* Fills the header for an event of a cgroup, if somebody wants it. */
static __always_inline bool gadget_cgroup_wanted(struct gadget_header *header, __u16 stream, __u64 cgroup)
{
	bool is_new;

	return fill_if_wanted(header, stream, cgroup, &is_new);
}

/* The same for an event of the current task. */
static __always_inline bool gadget_wanted(struct gadget_header *header, __u16 stream, struct task_struct *task)
{
	bool is_new;

	if (!fill_if_wanted(header, stream, current_cgroup(task), &is_new) || !task_wanted(task))
		return false;
	if (is_new || is_entering(task))
		header->flags |= GADGET_SETUP;
	return true;
}

/* Who a task is that an iterator meets, and the header, if somebody wants a record of it. */
#define listed_task_wanted(record, stream, task)                                                                        \
	({                                                                                                             \
		name_task(record, task);                                                                               \
		gadget_cgroup_wanted(&(record)->header, stream, task_cgroup(task)) &&                                  \
			known_task_wanted((record)->pid, (record)->uid, (record)->comm);                               \
	})
