// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * tracker: puts every new cgroup into its pod's slot, and tells user space.
 *
 * cgroup_mkdir fires inside mkdir(2), before the directory can be entered, so a container is in its slot before its
 * first instruction. It runs in nobody's way: the container's start does not wait for user space.
 */
#include "filter.h"

#define NAME_MAX 128

/* Slots that nobody uses. User space puts them in; their masks are all ones, so a new pod's events flow at once. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1); /* set by the agent: the number of slots */
	__type(value, __u32);
} free_slots SEC(".maps");

/*
 * Names of directories that are to go to a slot though nothing else says so: those of cgroups that a user named, should
 * they be made anew. The name alone is no proof; user space takes out what has the name and is elsewhere.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, char[NAME_MAX]);
	__type(value, __u32);
} names SEC(".maps");

enum tracker_event_kind {
	CGROUP_MADE = 0,
	CGROUP_REMOVED = 1,
};

#define PATH_MAX 4096

struct tracker_event {
	__u32 kind;
	__u32 slot;
	__u64 cgroup;
	__u64 parent;
	__u32 level; /* enum cgroup_level */
	__u32 fresh; /* the slot was taken for this cgroup: nobody else is in it */
	char path[PATH_MAX]; /* from the hierarchy's root; as long as it is */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} tracker_events SEC(".maps");

/* Too large for the stack. */
struct tracker_buffer {
	struct tracker_event event;
	char name[NAME_MAX];
	__u32 run, longest_run;
	bool has_pod;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tracker_buffer);
} buffer SEC(".maps");

/* What went wrong, by enum tracker_trouble. Never reset. */
enum tracker_trouble {
	TROUBLE_EVENTS_FULL = 0,  /* user space missed an event: it walks the hierarchy again */
	TROUBLE_NO_SLOT = 1,     /* a pod went to SLOT_SHARED */
	TROUBLE_COUNT = 2,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TROUBLE_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} troubles SEC(".maps");

static __always_inline void count(void *counters, __u32 which)
{
	__u64 *count = bpf_map_lookup_elem(counters, &which);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Ids repeat across hierarchies: only one is followed. */
static __always_inline bool is_followed(struct cgroup *cgroup)
{
	return (__u32)cgroup->root->hierarchy_id == gadget_hierarchy;
}

#define ID_MIN 32 /* hex digits: a static pod's hash; pod UIDs have 36 with dashes, container ids 64 */

static __always_inline struct tracker_buffer *get_buffer(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&buffer, &zero);
}

/*
 * Looks at a character of the name in the buffer. Returns whether there may be another. A function of its own, not inlined
 * and not static, is verified once instead of once for every character there may be.
 */
__noinline int scan_character(__u32 i)
{
	struct tracker_buffer *b = get_buffer();
	char c;

	if (!b || i >= NAME_MAX)
		return false;
	c = b->name[i];
	if (!c)
		return false;
	if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-' || c == '_')
		b->run++;
	else
		b->run = 0;
	if (b->run > b->longest_run)
		b->longest_run = b->run;
	/* podman's containers are called libpod-ID. */
	if (c == 'd' && i >= 2 && b->name[i - 1] == 'o' && b->name[i - 2] == 'p' && !(i >= 3 && b->name[i - 3] == 'b'))
		b->has_pod = true;
	return true;
}

/* Whether a directory's name is a pod's (it has "pod" and an id), a container's (it has an id), or another's. */
static __always_inline __u32 level_of_name(struct tracker_buffer *b, const char *name)
{
	int i;

	__builtin_memset(b->name, 0, sizeof(b->name));
	b->run = 0;
	b->longest_run = 0;
	b->has_pod = false;
	bpf_probe_read_kernel_str(b->name, sizeof(b->name), name);
	for (i = 0; i < NAME_MAX; i++)
		if (!scan_character(i))
			break;
	if (b->longest_run < ID_MIN)
		return LEVEL_OTHER;
	return b->has_pod ? LEVEL_POD : LEVEL_CONTAINER;
}

/*
 * A cgroup inside a pod belongs to the pod; a container's outside pods to the container, unless it is a pod of a node
 * that runs in a container; anything else to whatever its parent belongs to (a cgroup that a user named, or nothing), or to what its name says.
 */
static __always_inline bool place(struct tracker_buffer *b, struct cgroup *cgroup, __u64 parent_id,
				  struct cgroup_entry *entry)
{
	struct cgroup_entry *parent = bpf_map_lookup_elem(&cgroups, &parent_id);
	__u32 level, *slot;

	b->event.fresh = false;
	if (parent && parent->level == LEVEL_POD) {
		*entry = *parent;
		return true;
	}
	level = level_of_name(b, cgroup->kn->name);
	if (level > (parent ? parent->level : LEVEL_OTHER)) {
		entry->level = level;
		if (bpf_map_pop_elem(&free_slots, &entry->slot)) {
			entry->slot = SLOT_SHARED;
			count(&troubles, TROUBLE_NO_SLOT);
		} else {
			b->event.fresh = true;
		}
		/* What is made inside inherits it. */
		entry->is_new = true;
		return true;
	}
	if (parent) {
		*entry = *parent;
		return true;
	}
	slot = bpf_map_lookup_elem(&names, b->name);
	if (slot)
		entry->slot = *slot;
	else
		/* The parent may be one that found no room: user space knows. */
		entry->slot = slot_without_entry();
	return slot || entry->slot != SLOT_HOST;
}

static __always_inline void tell(struct tracker_event *event, __u32 kind, __u64 cgroup, __u64 parent, __u32 slot,
				 const char *path)
{
	__u64 length;

	event->kind = kind;
	event->slot = slot;
	event->cgroup = cgroup;
	event->parent = parent;
	length = bpf_probe_read_kernel_str(event->path, sizeof(event->path), path);
	/* An error is a large number, too. The verifiers of 5.10 and 6.1 follow one unsigned comparison. */
	barrier_var(length);
	if (length > PATH_MAX)
		length = 0;
	if (bpf_ringbuf_output(&tracker_events, event, __builtin_offsetof(struct tracker_event, path) + length, 0))
		count(&troubles, TROUBLE_EVENTS_FULL);
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_made, struct cgroup *cgroup, const char *path)
{
	struct cgroup_entry entry = {};
	__u64 id, parent_id = 0;
	struct cgroup_subsys_state *parent;
	struct tracker_buffer *b;

	b = get_buffer();
	if (!b || !is_followed(cgroup))
		return 0;
	id = cgroup->kn->id;
	parent = cgroup->self.parent;
	if (parent)
		parent_id = parent->cgroup->kn->id;
	if (!place(b, cgroup, parent_id, &entry))
		return 0;
	if (bpf_map_update_elem(&cgroups, &id, &entry, BPF_ANY))
		count(&left_out, LEFT_OUT);
	b->event.level = entry.level;
	tell(&b->event, CGROUP_MADE, id, parent_id, entry.slot, path);
	return 0;
}

/* The entry stays: late events still want it. User space removes it after a while. */
SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_removed, struct cgroup *cgroup, const char *path)
{
	struct cgroup_entry *entry;
	struct tracker_buffer *b;
	__u64 id;

	b = get_buffer();
	if (!b || !is_followed(cgroup))
		return 0;
	id = cgroup->kn->id;
	entry = bpf_map_lookup_elem(&cgroups, &id);
	if (entry)
		tell(&b->event, CGROUP_REMOVED, id, 0, entry->slot, path);
	return 0;
}

/*
 * ---- Processes on their way into a container: moved in by the runtime, and not yet its program. ----
 *
 * Until its program starts, all that happens in a new container is its runtime's. In one that runs already it is what
 * somebody outside moves in that becomes a program of the container's later (kubectl exec).
 *
 * runc moves its child, which before or after that becomes "runc init", and that a copy of itself in memory, both still
 * in the host's mount namespace; the container's program is what it executes in the container's. A process that was
 * moved by hand stays in its mover's namespace: it loses the mark at its third exec.
 */
#define RUNTIME_EXECS 2

static __always_inline __u32 mount_namespace(struct task_struct *task)
{
	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

static __always_inline void clear_new(__u64 cgroup)
{
	struct cgroup_entry *entry = bpf_map_lookup_elem(&cgroups, &cgroup);

	if (entry)
		entry->is_new = false;
}

static __always_inline bool is_in_slot(__u64 cgroup, __u32 slot)
{
	struct cgroup_entry *entry = bpf_map_lookup_elem(&cgroups, &cgroup);

	return entry && entry->slot == slot;
}

static __always_inline void count_entering(__s64 more)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&entering_count, &zero);

	if (count)
		__sync_fetch_and_add(count, more);
}

/* Before 6.4 what these helpers return has 32 bits. */
static __always_inline void mark(__u32 tgid, const struct entry_mark *as)
{
	/* Whoever finds none does not look for one. */
	count_entering(1);
	if (!(int)bpf_map_update_elem(&entering, &tgid, as, BPF_NOEXIST))
		return;
	count_entering(-1);
	bpf_map_update_elem(&entering, &tgid, as, BPF_EXIST);
}

static __always_inline void unmark(__u32 tgid)
{
	if (!(int)bpf_map_delete_elem(&entering, &tgid))
		count_entering(-1);
}

/* Marks a process that the current task puts into a cgroup, if that is a container's. */
static __always_inline void mark_entering(__u32 tgid, __u64 cgroup)
{
	struct cgroup_entry *entry = bpf_map_lookup_elem(&cgroups, &cgroup);
	struct task_struct *mover = current_task();
	struct entry_mark as = {};

	if (!entry || entry->level == LEVEL_OTHER)
		return;
	/*
	 * A runtime is never inside: nothing that a container does may hide what it does next. Nor does it move itself.
	 */
	if (tgid == task_pid(mover) || is_in_slot(current_cgroup(mover), entry->slot)) {
		entry->is_new = false;
		return;
	}
	as.runtime_mntns = mount_namespace(mover);
	mark(tgid, &as);
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(task_moved, struct cgroup *cgroup, const char *path, struct task_struct *task, bool threadgroup)
{
	if (is_followed(cgroup))
		mark_entering(task->tgid, cgroup->kn->id);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(task_forked, struct task_struct *parent, struct task_struct *child)
{
	__u32 from = parent->tgid, to = child->tgid;
	struct entry_mark *parents, copy;
	__u64 cgroup;

	if (from == to)
		return 0;
	parents = bpf_map_lookup_elem(&entering, &from);
	if (parents) {
		copy = *parents;
		mark(to, &copy);
		return 0;
	}
	/* Whoever had the same id may have left a mark. */
	if (is_any_entering())
		unmark(to);
	/* clone3 with CLONE_INTO_CGROUP moves nobody: the child is born there. */
	cgroup = task_cgroup(child);
	if (cgroup != current_cgroup(current_task()))
		mark_entering(to, cgroup);
	return 0;
}

/*
 * Whether a process that nobody has marked is a runtime's: it may have been moved so lately that the mark is yet to come.
 * The container's own is in a mount namespace that is not its runtime's.
 */
static __always_inline bool is_runtimes(struct task_struct *task, __u32 slot)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);

	return mount_namespace(task) == mount_namespace(parent) && !is_in_slot(task_cgroup(parent), slot);
}

/* Attached before any gadget, so it runs before theirs: the program's own first event is not marked. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(task_became_program, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	__u32 tgid = task->tgid;
	struct entry_mark *as = bpf_map_lookup_elem(&entering, &tgid);
	struct cgroup_entry *entry;
	__u64 cgroup;

	if (as && as->execs < RUNTIME_EXECS && as->runtime_mntns == mount_namespace(task)) {
		as->execs++;
		return 0;
	}
	if (as)
		unmark(tgid);
	cgroup = task_cgroup(task);
	entry = bpf_map_lookup_elem(&cgroups, &cgroup);
	if (entry && entry->is_new && (as || !is_runtimes(task, entry->slot)))
		entry->is_new = false;
	return 0;
}

/* What its container does once it ends is not its runtime's any more. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(task_ended, struct task_struct *task)
{
	__u32 tgid = task->tgid;

	if (task->pid == task->tgid && bpf_map_lookup_elem(&entering, &tgid))
		clear_new(task_cgroup(task));
	return 0;
}

/* One that ends is seen at its end, and a moment longer on its processor: it keeps the mark until nothing of it is left. */
SEC("tp_btf/sched_process_free")
int BPF_PROG(task_freed, struct task_struct *task)
{
	if (task->pid == task->tgid)
		unmark(task->tgid);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
