/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Connections that a relay's servers accept: they wait for one of the other
 * side, are joined with it, and leave when their own server ends them.
 */
#ifndef MESHACCEL_RELAY_CONNECTION_H
#define MESHACCEL_RELAY_CONNECTION_H

#include "addresses.h"
#include "maps.h"

#include <linux/tcp.h>

#define RELAY_AF_INET 2

/*
 * The verifier wants every context member read at a constant offset. The empty
 * asm keeps the compiler from merging two reads into one at a computed offset.
 */
#define RELAY_CONTEXT(member)                        \
	({                                           \
		__u32 read_value = context->member;  \
		asm volatile("" : "+r"(read_value)); \
		read_value;                          \
	})

/* How often a waiting connection may turn out to have just been closed. */
#define RELAY_TRIES 4

enum relay_entry {
	RELAY_ENTRY_QUEUED = 0,
	RELAY_ENTRY_PEER_TAKEN = 1,
	RELAY_ENTRY_QUEUE_FULL = 2,
};

/*
 * Takes one out of the queue, wherever it stands; the lock is held. Where it
 * stands goes through memory and the rest moves up without a branch, since the
 * verifier would follow every place through every step.
 */
static __always_inline void relay_unqueue(struct sockops_relay_queue *queue, __u64 cookie)
{
	__u32 place;

	queue->place = SOCKOPS_RELAY_QUEUE;
	for (__u32 i = 0; i < SOCKOPS_RELAY_QUEUE; i++) {
		if (queue->waiting[i] == cookie) {
			queue->place = i;
			break;
		}
	}
	barrier();
	place = queue->place;
	if (place >= queue->count)
		return;
	for (__u32 i = 0; i < SOCKOPS_RELAY_QUEUE - 1; i++) {
		__u32 moves_up = (place - i - 1) >> 31;

		queue->waiting[i] = queue->waiting[(i + moves_up) % SOCKOPS_RELAY_QUEUE];
	}
	queue->count--;
}

/* Takes the first that waits on the other side, or else queues this one. */
static __noinline enum relay_entry relay_take_turn(struct sockops_relay_queue *queue,
						   const struct sockops_relay_end *end,
						   __u64 *cookie)
{
	enum relay_entry entry = RELAY_ENTRY_QUEUE_FULL;

	if (!queue || !end || !cookie)
		return entry;
	bpf_spin_lock(&queue->lock);
	if (queue->generation != end->generation) {
		queue->generation = end->generation;
		queue->count = 0;
	}
	if (queue->count && queue->side != end->side) {
		*cookie = queue->waiting[0];
		relay_unqueue(queue, *cookie);
		entry = RELAY_ENTRY_PEER_TAKEN;
	} else if (queue->count < SOCKOPS_RELAY_QUEUE) {
		queue->waiting[queue->count % SOCKOPS_RELAY_QUEUE] = *cookie;
		queue->count++;
		queue->side = end->side;
		entry = RELAY_ENTRY_QUEUED;
	}
	bpf_spin_unlock(&queue->lock);
	return entry;
}

/* Joins a connection with the first that waits for it, or lets it wait. */
static __always_inline void relay_join(struct sockops_relay_end *own, __u64 own_cookie,
				       struct sockops_relay_counters *count)
{
	__u32 index = own->relay;
	struct sockops_relay_queue *queue = bpf_map_lookup_elem(MAP(relay_queues), &index);
	struct sockops_relay_end *partner;

	if (!queue)
		return;
	for (int i = 0; i < RELAY_TRIES; i++) {
		__u64 cookie = own_cookie;
		enum relay_entry entry = relay_take_turn(queue, own, &cookie);

		if (entry == RELAY_ENTRY_QUEUE_FULL)
			count->skipped_queue_full++;
		if (entry != RELAY_ENTRY_PEER_TAKEN)
			return;
		partner = bpf_map_lookup_elem(MAP(relay_ends), &cookie);
		if (!partner || partner->generation != own->generation)
			continue;
		own->partner = cookie;
		partner->partner = own_cookie;
		count->connections_joined++;
		return;
	}
}

/* Which relay's server has accepted this connection; 0: none's. */
static __always_inline struct sockops_relay_place *relay_place(struct bpf_sock_ops *context)
{
	__u32 address[4] = {};

	if (context->family == RELAY_AF_INET) {
		address[2] = bpf_htonl(0xffff);
		address[3] = RELAY_CONTEXT(local_ip4);
	} else {
		address[0] = RELAY_CONTEXT(local_ip6[0]);
		address[1] = RELAY_CONTEXT(local_ip6[1]);
		address[2] = RELAY_CONTEXT(local_ip6[2]);
		address[3] = RELAY_CONTEXT(local_ip6[3]);
	}
	return relay_place_at(address, RELAY_CONTEXT(local_port));
}

/* Whether a connection just accepted takes part; if not, the counter says why. */
static __always_inline bool relay_eligible(struct tcp_sock *tcp,
					   const struct sockops_policy *policy,
					   struct sockops_relay_counters *count)
{
	if (relay_node_mode() != SOCKOPS_MODE_ON || policy->mode != SOCKOPS_MODE_ON) {
		count->skipped_mode++;
		return false;
	}
	if (tcp && IS_MULTIPATH(tcp)) {
		count->skipped_multipath++;
		return false;
	}
	return true;
}

/* Bytes of the stream that came with the packet that completed the handshake. */
static __always_inline __u32 relay_handshake_bytes(struct bpf_sock_ops *context)
{
	struct tcphdr *header = context->skb_data;
	__u32 length = context->skb_len;

	if (header + 1 > (struct tcphdr *)context->skb_data_end || length < header->doff * 4)
		return 0;
	return length - header->doff * 4;
}

/*
 * Of nested cgroups the innermost decides, and the kernel runs its program
 * first: the end it leaves, with or without a generation, keeps outer ones out.
 */
static __always_inline void relay_accepted(struct bpf_sock_ops *context)
{
	struct sockops_relay_place *place = relay_place(context);
	__u64 cookie = bpf_get_socket_cookie(context);
	struct sockops_relay_counters *count;
	struct bpf_sock *socket = context->sk;
	struct sockops_relay_end end = {}, *entered;
	struct sockops_policy *policy;
	struct tcp_sock *tcp;
	__u32 index;

	if (!place || !socket)
		return;
	index = end.relay = place->relay;
	end.side = place->side;
	count = bpf_map_lookup_elem(MAP(relay_counters), &index);
	end.policy = *(__u32 *)bpf_get_local_storage(MAP(cgroup_policies), 0);
	index = end.policy;
	policy = bpf_map_lookup_elem(MAP(policies), &index);
	if (!count || !policy || bpf_map_lookup_elem(MAP(relay_ends), &cookie))
		return;
	end.cgroup_id = policy->cgroup_id;
	tcp = TCP_OF_EVENT(context, socket);
	end.socket = (__u64)tcp;
	end.next_sequence = context->rcv_nxt;
	end.early_until = end.next_sequence + relay_handshake_bytes(context);
	if (relay_eligible(tcp, policy, count))
		end.generation = relay_generation(end.relay);
	if (bpf_map_update_elem(MAP(relay_ends), &cookie, &end, BPF_NOEXIST)) {
		count->skipped_table_full++;
		return;
	}
	bpf_sock_ops_cb_flags_set(context,
				  context->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	if (!end.generation)
		return;
	if (bpf_sock_hash_update(context, MAP(relay_sockets), &cookie, BPF_NOEXIST)) {
		count->skipped_table_full++;
		return;
	}
	count->connections[end.side % SOCKOPS_RELAY_SIDES]++;
	entered = bpf_map_lookup_elem(MAP(relay_ends), &cookie);
	if (entered)
		relay_join(entered, cookie, count);
}

/*
 * Its own server has ended it, or it was reset: whoever it was joined with is
 * its own server's again. What is known of it stays until it is closed, since
 * its client may go on sending.
 */
static __always_inline void relay_left(struct bpf_sock_ops *context)
{
	__u64 cookie = bpf_get_socket_cookie(context), partner_cookie;
	struct sockops_relay_end *end, *partner = 0;
	struct sockops_relay_counters *count;
	struct sockops_relay_queue *queue;
	__u32 index;

	end = bpf_map_lookup_elem(MAP(relay_ends), &cookie);
	if (!end || !end->generation)
		return;
	index = end->relay;
	partner_cookie = end->partner;
	queue = bpf_map_lookup_elem(MAP(relay_queues), &index);
	count = bpf_map_lookup_elem(MAP(relay_counters), &index);
	if (queue && !partner_cookie) {
		bpf_spin_lock(&queue->lock);
		relay_unqueue(queue, cookie);
		bpf_spin_unlock(&queue->lock);
	}
	if (partner_cookie)
		partner = bpf_map_lookup_elem(MAP(relay_ends), &partner_cookie);
	if (partner && partner->partner == cookie)
		partner->partner = 0;
	if (count && partner_cookie)
		count->connections_parted++;
	end->partner = 0;
	end->generation = 0;
}

/* The kernel takes the socket out of the hash. */
static __always_inline void relay_closed(struct bpf_sock_ops *context)
{
	__u64 cookie = bpf_get_socket_cookie(context);

	relay_left(context);
	bpf_map_delete_elem(MAP(relay_ends), &cookie);
}

#endif
