/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's table of the connections of TCP, of all network namespaces together: also of those that nobody has accepted yet, and
 * of those that were closed. An iterator over `table_parts` walks through one part of it for each element.
 */
#pragma once

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct hlist_nulls_head {
	struct hlist_nulls_node *first;
};

struct inet_ehash_bucket {
	struct hlist_nulls_head chain;
};

struct inet_hashinfo {
	struct inet_ehash_bucket *ehash;
	unsigned int ehash_mask;
};

struct inet_timewait_death_row {
	struct inet_hashinfo *hashinfo;
};

struct netns_ipv4 {
	struct inet_timewait_death_row tcp_death_row;
};

struct net___table {
	struct netns_ipv4 ipv4;
};

/* 5.17 to 6.0 */
struct netns_ipv4___v5_17 {
	struct inet_timewait_death_row *tcp_death_row;
};

struct net___v5_17 {
	struct netns_ipv4___v5_17 ipv4;
};

#pragma clang attribute pop

/* A table has mostly 2^19 chains at most (thash_entries): parts of 16, with two or so connections in each chain. */
#define TABLE_PARTS 32768
#define TABLE_PART_STEPS 300 /* chains and connections in a part that are looked at: their records find room in what an iterator may write at once */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TABLE_PARTS);
	__type(key, __u32);
	__type(value, __u8);
} table_parts SEC(".maps");

/* The table of a network namespace: nearly always that of all (tcp_child_ehash_entries, 6.1). */
static __always_inline struct inet_hashinfo *connection_table(struct net *net)
{
	struct net___v5_17 *older = (void *)net;
	struct net___table *network = (void *)net;

	if (bpf_core_field_exists(older->ipv4.tcp_death_row))
		return BPF_CORE_READ(older, ipv4.tcp_death_row, hashinfo);
	return BPF_CORE_READ(network, ipv4.tcp_death_row.hashinfo);
}

/* Where the walk through a part is. */
struct table_walk {
	struct inet_ehash_bucket *chain, *end; /* the next chain, and the first of the next part */
	__u64 number;	 /* of the chain in which it is, and whose end has it, too */
	struct hlist_nulls_node *node; /* the next connection in that, or an odd number: an end */
	bool has_strayed; /* a connection was put into another chain while it was looked at: some of the former may have been missed */
};

static __always_inline struct hlist_nulls_node *end_of_chain(__u64 number)
{
	return (void *)(number << 1 | 1);
}

static __always_inline struct table_walk table_walk(const struct inet_hashinfo *table, __u32 part)
{
	__u64 chains = (__u64)BPF_CORE_READ(table, ehash_mask) + 1, each = (chains + TABLE_PARTS - 1) / TABLE_PARTS;
	__u64 from = part * each, to = from + each;
	struct inet_ehash_bucket *first = BPF_CORE_READ(table, ehash);
	struct table_walk walk = { .number = from - 1, .node = end_of_chain(from - 1) };

	walk.end = first + (to < chains ? to : chains);
	walk.chain = from < chains ? first + from : walk.end;
	return walk;
}

static __always_inline bool table_walk_ends(const struct table_walk *walk)
{
	return (unsigned long)walk->node & 1 && walk->chain >= walk->end;
}

/* One step: a connection, or NULL between chains. */
static __always_inline struct sock *table_walk_step(struct table_walk *walk)
{
	struct hlist_nulls_node *node = walk->node;
	struct inet_ehash_bucket *chain;
	struct sock *sk = NULL;

	if ((unsigned long)node & 1) {
		if (node != end_of_chain(walk->number++))
			walk->has_strayed = true;
		chain = walk->chain++;
		walk->node = BPF_CORE_READ(chain, chain.first);
		return NULL;
	}
	walk->node = BPF_CORE_READ(node, next);
	return (void *)node - bpf_core_field_offset(sk->__sk_common.skc_nulls_node);
}
