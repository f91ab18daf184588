/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps of sockops, and what all of its programs do with them.
 */
#ifndef MESHACCEL_SOCKOPS_MAPS_H
#define MESHACCEL_SOCKOPS_MAPS_H

#include "slots.h"
#include "socket_states.h"
#include "switches.h"

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
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SOCKOPS_POLICIES);
	__type(key, __u32);
	__type(value, struct sockops_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, SOCKETS_DEFAULT);
	__type(key, __u64);
	__type(value, __u64);
} sockets SEC(".maps");

/*
 * Where two ends meet: an end is published here until its peer has found it.
 * Not an LRU: evicting an end would make the RTT callback take a socket whose
 * peer already redirects to it for a bystander, and lose what is queued.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKETS_DEFAULT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sockops_handshake);
	__type(value, struct sockops_end);
} ends SEC(".maps");

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

/*
 * Whether one of two ports is in one of the ranges. By the signs of differences
 * and without a branch: the verifier would follow every way through 16 rounds.
 */
static __always_inline bool either_port_in(const struct sockops_port_range *ranges, __u32 count,
					   __s64 one, __s64 other)
{
	__s64 inside = 0;

	for (__s64 i = 0; i < SOCKOPS_PORT_RANGES; i++) {
		__s64 first = ranges[i].first, last = ranges[i].last, unused = (__s64)count - 1 - i;

		inside |= ~(unused | (one - first) | (last - one));
		inside |= ~(unused | (other - first) | (last - other));
	}
	return inside < 0;
}

static __always_inline __u64 cookie_at(__u64 socket)
{
	return BPF_CORE_READ((struct sock *)socket, __sk_common.skc_cookie.counter);
}

/* A kernel pointer in sk_user_data carries flags in its low bits. */
#define USER_DATA_FLAGS 7UL

/* The kernel's part of a socket that is in the hash; 0 when it is in none. */
static __always_inline struct sk_psock *psock_of(__u64 socket)
{
	__u64 user_data = (__u64)BPF_CORE_READ((struct sock *)socket, sk_user_data);

	return (struct sk_psock *)(user_data & ~USER_DATA_FLAGS);
}

static __always_inline bool ingress_queue_empty(__u64 socket)
{
	struct sk_psock *psock = psock_of(socket);
	void *head = (void *)psock + bpf_core_field_offset(struct sk_psock, ingress_msg);

	return !psock || BPF_CORE_READ(psock, ingress_msg.next) == head;
}

/* Takes a socket out of the table: it is by TCP alone from now on. */
static __always_inline void forget(struct sockops_socket_state *state, __u32 reason)
{
	struct sockops_handshake own = state->handshake;
	__u64 key = state->cookie;

	state->status = SOCKOPS_STATUS_PLAIN;
	state->reason = reason;
	bpf_map_delete_elem(MAP(ends), &own);
	bpf_map_delete_elem(MAP(sockets), &key);
	give_up_slot(state->slot);
	state->slot = 0;
}

#endif
