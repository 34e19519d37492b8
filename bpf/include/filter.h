/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which events a gadget sends: cgroup -> slot -> the instances that want it.
 *
 * A slot stands for a pod (or for a container outside pods, or a cgroup that a user named). tracker.bpf.c puts every
 * new cgroup into its pod's slot before a task can enter it; user space alone writes `masks`. Each running instance of
 * a gadget owns one bit. An event that nobody wants costs these two look-ups.
 *
 * The maps belong to tracker.bpf.c; the agent gives them to every gadget.
 */
#pragma once

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

/* The process that has ended last on this CPU, if it was such a one then: its mark is gone when gadgets see its end. 0 if it was not. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ended_entering SEC(".maps");

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

static __always_inline __u64 current_cgroup(void)
{
	if (gadget_controller == HIERARCHY_UNIFIED)
		return bpf_get_current_cgroup_id();
	return task_cgroup((struct task_struct *)bpf_get_current_task());
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

	__builtin_memcpy(value.comm, comm, sizeof(value.comm));
	return is_chosen(gadget_comms, &value);
}

/* Whether a task that is known by these fits the lists. */
static __always_inline bool known_task_wanted(__u32 pid, __u32 uid, const char *comm)
{
	return (!gadget_pids || pid_wanted(pid)) && (!gadget_uids || uid_wanted(uid)) && (!gadget_comms || comm_wanted(comm));
}

/* Whether the current task does. */
static __always_inline bool task_wanted(void)
{
	char comm[TASK_COMM_LEN] = {};

	if (gadget_pids && !pid_wanted(bpf_get_current_pid_tgid() >> 32))
		return false;
	if (gadget_uids && !uid_wanted(bpf_get_current_uid_gid()))
		return false;
	if (gadget_comms) {
		bpf_get_current_comm(comm, sizeof(comm));
		return comm_wanted(comm);
	}
	return true;
}

static __always_inline bool slot_wanted(__u32 slot)
{
	__u64 *mask = bpf_map_lookup_elem(&masks, &slot);

	return mask && *mask & gadget_instance;
}

/* Whether somebody wants events of a cgroup, whatever its tasks are. */
static __always_inline bool cgroup_wanted(__u64 cgroup)
{
	struct cgroup_entry *entry = bpf_map_lookup_elem(&cgroups, &cgroup);

	return slot_wanted(entry ? entry->slot : slot_without_entry());
}

static __always_inline bool entry_wanted(struct gadget_header *header, __u16 stream, __u64 cgroup,
					 const struct cgroup_entry *entry)
{
	__u32 slot = entry ? entry->slot : slot_without_entry();

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

/* Fills the header for an event of a cgroup, if somebody wants it. */
static __always_inline bool gadget_cgroup_wanted(struct gadget_header *header, __u16 stream, __u64 cgroup)
{
	return entry_wanted(header, stream, cgroup, bpf_map_lookup_elem(&cgroups, &cgroup));
}

/* The same for an event of the current task. */
static __always_inline bool gadget_wanted(struct gadget_header *header, __u16 stream)
{
	__u64 cgroup = current_cgroup();
	struct cgroup_entry *entry = bpf_map_lookup_elem(&cgroups, &cgroup);
	__u32 tgid;

	if (!entry_wanted(header, stream, cgroup, entry) || !task_wanted())
		return false;
	tgid = bpf_get_current_pid_tgid() >> 32;
	if ((entry && entry->is_new) || bpf_map_lookup_elem(&entering, &tgid))
		header->flags |= GADGET_SETUP;
	return true;
}

/* Whether the current task, which ends, is one that was on its way into a container. For programs at sched_process_exit. */
static __always_inline bool has_ended_entering(void)
{
	__u32 zero = 0, *ended = bpf_map_lookup_elem(&ended_entering, &zero);

	return ended && *ended == bpf_get_current_pid_tgid() >> 32;
}
