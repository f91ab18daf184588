/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps of sockops, and what all of its programs do with them.
 */
#ifndef MESHACCEL_SOCKOPS_MAPS_H
#define MESHACCEL_SOCKOPS_MAPS_H

#include "meshaccel/kernel.h"
#include "meshaccel/sockops.h"

#include <bpf/bpf_helpers.h>

#define CONNECTIONS_DEFAULT 32768
/*
 * The verifier wants every context member read at a constant offset. The empty
 * asm keeps the compiler from merging two reads into one at a computed offset.
 */
#define CONTEXT(member)                              \
	({                                           \
		__u32 read_value = context->member;  \
		asm volatile("" : "+r"(read_value)); \
		read_value;                          \
	})

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockops_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKOPS_POLICIES);
	__type(key, __u32);
	__type(value, struct sockops_policy);
} policies SEC(".maps");

/* Keyed by the cgroup the program is attached to: its policy's index. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, __u32);
} cgroup_policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SOCKOPS_POLICIES);
	__type(key, __u32);
	__type(value, struct sockops_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2 * CONNECTIONS_DEFAULT);
	__type(key, struct sockops_socket_key);
	__type(value, __u64);
} sockets SEC(".maps");

/*
 * Not an LRU: evicting the end of a live pair would make the RTT callback take
 * a socket with queued data for a bystander and lose that data.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * CONNECTIONS_DEFAULT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sockops_handshake);
	__type(value, struct sockops_end);
} ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sockops_socket_state);
} socket_states SEC(".maps");

/*
 * The kernel hands a replaced sk_msg program to new sockets only. Live ones
 * keep meshaccel_message for good, so the logic stands behind this table.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} message_logic SEC(".maps");

static __always_inline struct sockops_control *node_control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline struct sockops_handshake swapped(const struct sockops_handshake *own)
{
	struct sockops_handshake peer = {
		.receive_sequence = own->send_sequence,
		.send_sequence = own->receive_sequence,
	};

	return peer;
}

static __always_inline bool same_handshake(const struct sockops_handshake *a,
					   const struct sockops_handshake *b)
{
	return a->receive_sequence == b->receive_sequence && a->send_sequence == b->send_sequence;
}

/* Takes a socket's end back: nobody pairs with it or redirects to it any more. */
static __always_inline void forget(struct sockops_socket_state *state)
{
	struct sockops_handshake own = state->key.handshake;

	state->tracked = 0;
	bpf_map_delete_elem(&ends, &own);
}

#endif
