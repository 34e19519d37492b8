/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A recorder: the last records of each container, in memory that is written over, and read when somebody asks.
 *
 * The memory is pages. A container has some, in a queue, the oldest first, and each CPU on which it runs fills one of them: so no
 * CPU waits for another, and none shares a counter. A full page goes to the end of the queue. As long as there are pages that nobody
 * has, a container takes one of these next; then it writes over what is at the front of its queue. From there on the agent sees to
 * who has how many (gadget-agent/src/runtime/recorder.rs): it moves pages from one queue to another. A container that nobody knew
 * gets a spare queue here, at its first record, and the agent is told.
 *
 * A queue is used again when all others are: its number goes on, its tag is another. So what is left of the container before is
 * not taken for the next one's.
 */
#pragma once

#include "compat.h"
#include "filter.h"

#define RECORDER_PAGE 4096
#define RECORDER_NO_PAGE 0 /* pages count from 1 */

/* Of a queue's tag; what is above says how often it was used again, from 1: no tag is 0. */
#define RECORDER_NUMBER(tag) ((tag) & 0xffff)

struct recorder_page {
	__u32 round; /* goes up before it is written over, and again when that has begun: even if what is here belongs together */
	__u32 queue; /* whose records these are: a tag */
	__u32 used;  /* bytes of records that are whole */
	__u32 count; /* how many these are */
	__u64 first, last; /* times of the first and the last one */
	char records[RECORDER_PAGE - 32];
};

/* The agent sets how many pages and queues there are. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct recorder_page);
} recorder_pages SEC(".maps");

struct recorder_queue {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, __u16);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct recorder_queue);
} recorder_queues SEC(".maps");

/* Pages that no queue has. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, __u16);
} recorder_free SEC(".maps");

/* What a CPU fills of a queue's pages, and what it knows of the queue's records. */
struct recorder_place {
	__u32 queue; /* the tag that this is about; 0 if nothing has come of it here yet */
	__u32 page;
	__u32 taken;   /* pages so far that nobody had, */
	__u32 returns; /* and how often it had to begin one of the queue's anew */
	__u64 made;	       /* records that there have been, also if they had no room */
	__u64 overwritten_to; /* the time of the last of the queue's that it has written over */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct recorder_place);
} recorder_places SEC(".maps");

/* Which queue is whose. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64); /* cgroup */
	__type(value, __u32); /* tag */
} recorder_owners SEC(".maps");

/* The same by the queue's number. */
struct recorder_taker {
	__u64 cgroup; /* 0 if there is none */
	__u32 queue;  /* the tag */
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct recorder_taker);
} recorder_takers SEC(".maps");

/* The number of the queue that was found last for a cgroup whose id ends like this. To look into arrays costs next to nothing. */
#define RECORDER_HINTS 256
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RECORDER_HINTS);
	__type(key, __u32);
	__type(value, __u32);
} recorder_hints SEC(".maps");

/* Tags of queues that have pages and no owner. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, __u32);
} recorder_spares SEC(".maps");

/* Set while what is on the pages is read: then nothing is recorded. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} recorder_stopped SEC(".maps");

/* In the ring there are no events, only these: a cgroup has taken a spare queue, */
#define RECORDER_NOTICE 0xffff

struct recorder_notice {
	struct gadget_header header;
	__u32 queue;
	__u32 reserved;
};

/* or what runs in it has ended. */
#define RECORDER_END 0xfffe

struct recorder_end {
	struct gadget_header header;
	__u32 status; /* as wait(2) has it */
	__u32 out_of_memory;
};

static __always_inline void recorder_tell_end(void *ring, const struct gadget_header *header, __u32 status, bool out_of_memory)
{
	struct recorder_end end = { .header = *header, .status = status, .out_of_memory = out_of_memory };

	end.header.stream = RECORDER_END;
	end.header.size = sizeof(end);
	bpf_ringbuf_output(ring, &end, sizeof(end), BPF_RB_FORCE_WAKEUP);
}

/* The queue of a cgroup that had none; NULL if there is no spare one. */
static __noinline __u32 *recorder_new_owner(void *ring, const struct gadget_header *header)
{
	struct recorder_notice notice = { .header = *header };
	__u64 cgroup = header->cgroup;
	struct recorder_taker *taker;
	__u32 number;

	if (bpf_map_pop_elem(&recorder_spares, &notice.queue))
		return NULL;
	/* Before 6.4 the result has 32 bits. */
	if ((int)bpf_map_update_elem(&recorder_owners, &cgroup, &notice.queue, BPF_NOEXIST)) {
		bpf_map_push_elem(&recorder_spares, &notice.queue, 0);
	} else {
		number = RECORDER_NUMBER(notice.queue);
		taker = bpf_map_lookup_elem(&recorder_takers, &number);
		if (taker) {
			taker->queue = notice.queue;
			publish(&taker->cgroup, cgroup);
		}
		notice.header.stream = RECORDER_NOTICE;
		notice.header.size = sizeof(notice);
		bpf_ringbuf_output(ring, &notice, sizeof(notice), BPF_RB_FORCE_WAKEUP);
	}
	return bpf_map_lookup_elem(&recorder_owners, &cgroup);
}

/* The tag of a cgroup's queue; 0 if it has none. */
static __always_inline __u32 recorder_queue_of(void *ring, const struct gadget_header *header)
{
	__u32 end = header->cgroup % RECORDER_HINTS, number;
	__u32 *hint = bpf_map_lookup_elem(&recorder_hints, &end), *queue;
	struct recorder_taker *taker;

	if (!hint)
		return 0;
	number = *hint;
	taker = bpf_map_lookup_elem(&recorder_takers, &number);
	if (taker && taker->cgroup == header->cgroup)
		return taker->queue;
	queue = bpf_map_lookup_elem(&recorder_owners, &header->cgroup);
	if (!queue)
		queue = recorder_new_owner(ring, header);
	if (!queue)
		return 0;
	*hint = RECORDER_NUMBER(*queue);
	return *queue;
}

/* Where a record goes. */
struct recorder_slot {
	struct recorder_page *page;
	char *record; /* NULL if there is no room; that was counted */
};

/* Begins to note of a queue. What was noted of whoever had it before is over. */
static __always_inline void recorder_begin(struct recorder_place *place, __u32 queue)
{
	if (place->queue == queue)
		return;
	place->queue = queue;
	place->made = 0;
	place->overwritten_to = 0;
}

/* Notes from where on the queue's records are whole. */
static __always_inline void recorder_overwrite(struct recorder_place *place, __u64 last)
{
	if (place->overwritten_to < last)
		place->overwritten_to = last;
}

/* What is on a page is written over. */
static __always_inline void recorder_give_up(const struct recorder_page *page)
{
	__u32 queue = page->queue, number = RECORDER_NUMBER(queue);
	struct recorder_place *former;

	if (!page->count)
		return;
	former = bpf_map_lookup_elem(&recorder_places, &number);
	/* Later tags are larger: if others have the queue by now, nobody asks for these records any more. */
	if (!former || former->queue > queue)
		return;
	recorder_begin(former, queue);
	recorder_overwrite(former, page->last);
}

/* Has this CPU fill a free page, or the oldest of the queue, or if it has no other its own from the start. */
static __always_inline struct recorder_page *recorder_turn(struct recorder_place *place, __u32 queue, __u64 time)
{
	__u32 number = RECORDER_NUMBER(queue);
	void *pages = bpf_map_lookup_elem(&recorder_queues, &number);
	__u16 next, full = place->page;
	bool is_other = true;
	struct recorder_page *page;

	if (!pages)
		return NULL;
	if (!bpf_map_pop_elem(&recorder_free, &next)) {
		place->taken++;
	} else {
		place->returns++;
		is_other = !bpf_map_pop_elem(pages, &next);
	}
	if (is_other) {
		place->page = next;
		if (full != RECORDER_NO_PAGE)
			bpf_map_push_elem(pages, &full, 0);
	}
	page = bpf_map_lookup_elem(&recorder_pages, &place->page);
	if (!page || place->page == RECORDER_NO_PAGE)
		return NULL;
	recorder_give_up(page);
	publish(&page->round, page->round + 1);
	page->queue = queue;
	page->used = 0;
	page->count = 0;
	page->first = time;
	publish(&page->round, page->round + 1);
	return page;
}

/* A place for a record of so many bytes, a constant and a multiple of 8. The header is what it will begin with. */
static __always_inline struct recorder_slot recorder_reserve(void *ring, const struct gadget_header *header, const __u32 size)
{
	struct recorder_slot slot = {};
	struct recorder_place *place;
	__u32 *stopped, queue, number, used = 0;

	stopped = bpf_map_lookup_elem(&recorder_stopped, &used);
	if (!stopped || *stopped)
		return slot;
	queue = recorder_queue_of(ring, header);
	if (!queue)
		goto none;
	number = RECORDER_NUMBER(queue);
	place = bpf_map_lookup_elem(&recorder_places, &number);
	if (!place)
		goto none;
	slot.page = bpf_map_lookup_elem(&recorder_pages, &place->page);
	if (slot.page && place->page != RECORDER_NO_PAGE)
		used = slot.page->used;
	else
		slot.page = NULL;
	if (!slot.page || used > sizeof(slot.page->records) - size) {
		recorder_begin(place, queue);
		slot.page = recorder_turn(place, queue, header->time);
		used = 0;
	}
	place->made++;
	if (!slot.page) {
		/* All pages are other CPUs': one too few is as if it had been written over. */
		recorder_overwrite(place, header->time);
		return slot;
	}
	slot.record = slot.page->records + used;
	return slot;
none:
	gadget_count_lost(header->slot);
	return slot;
}

/* The record is written: from now on it counts. */
static __always_inline void recorder_done(const struct recorder_slot *slot, __u32 size, __u64 time)
{
	slot->page->last = time;
	slot->page->count++;
	publish(&slot->page->used, slot->page->used + size);
}
