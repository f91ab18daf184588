/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Connection events: two ends find each other, bystanders are let go.
 */
#ifndef MESHACCEL_SOCKOPS_CONNECTION_H
#define MESHACCEL_SOCKOPS_CONNECTION_H

#include "maps.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#define AF_INET 2
#define EEXIST 17
#define E2BIG 7

static __always_inline bool port_in(const struct sockops_policy *policy, __u32 port)
{
	for (__u32 i = 0; i < SOCKOPS_PORT_RANGES; i++) {
		if (i >= policy->port_range_count)
			return false;
		if (port >= policy->port_ranges[i].first && port <= policy->port_ranges[i].last)
			return true;
	}
	return false;
}

static __always_inline bool port_matches(struct bpf_sock_ops *context,
					 const struct sockops_policy *policy)
{
	if (policy->port_range_count == 0)
		return true;
	return port_in(policy, context->local_port) ||
	       port_in(policy, bpf_ntohl(context->remote_port));
}

static __always_inline void set_client(struct sockops_socket_key *key, struct bpf_sock_ops *context,
				       bool local_is_client)
{
	if (local_is_client)
		key->client_port = CONTEXT(local_port);
	else
		key->client_port = bpf_ntohl(CONTEXT(remote_port));
	if (context->family == AF_INET) {
		key->client_address[0] = 0;
		key->client_address[1] = 0;
		key->client_address[2] = bpf_htonl(0xffff);
		if (local_is_client)
			key->client_address[3] = CONTEXT(local_ip4);
		else
			key->client_address[3] = CONTEXT(remote_ip4);
	} else if (local_is_client) {
		key->client_address[0] = CONTEXT(local_ip6[0]);
		key->client_address[1] = CONTEXT(local_ip6[1]);
		key->client_address[2] = CONTEXT(local_ip6[2]);
		key->client_address[3] = CONTEXT(local_ip6[3]);
	} else {
		key->client_address[0] = CONTEXT(remote_ip6[0]);
		key->client_address[1] = CONTEXT(remote_ip6[1]);
		key->client_address[2] = CONTEXT(remote_ip6[2]);
		key->client_address[3] = CONTEXT(remote_ip6[3]);
	}
}

static __always_inline bool same_client(const struct sockops_socket_key *key,
					const struct sockops_end *end)
{
	return key->client_port == end->client_port &&
	       key->client_address[0] == end->client_address[0] &&
	       key->client_address[1] == end->client_address[1] &&
	       key->client_address[2] == end->client_address[2] &&
	       key->client_address[3] == end->client_address[3];
}

static __always_inline void take_client(struct sockops_socket_key *key,
					const struct sockops_end *end)
{
	key->client_port = end->client_port;
	key->client_address[0] = end->client_address[0];
	key->client_address[1] = end->client_address[1];
	key->client_address[2] = end->client_address[2];
	key->client_address[3] = end->client_address[3];
}

static __always_inline __u64 cookie_at(__u64 socket)
{
	return BPF_CORE_READ((struct sock *)socket, __sk_common.skc_cookie.counter);
}

/*
 * Enters the socket into the hash, then publishes its end: a peer that finds
 * the end must find the socket. Returns whether the socket is now tracked.
 */
static __always_inline bool track(struct bpf_sock_ops *context, struct sockops_socket_state *state,
				  struct sockops_end *end, struct sockops_counters *count)
{
	struct sockops_socket_key key = state->key;
	long error;

	error = bpf_sock_hash_update(context, &sockets, &key, BPF_NOEXIST);
	if (error) {
		if (error == -EEXIST)
			count->skipped_duplicate++;
		else if (error == -E2BIG)
			count->skipped_table_full++;
		else
			count->skipped_other++;
		return false;
	}
	error = bpf_map_update_elem(&ends, &key.handshake, end, BPF_NOEXIST);
	if (error) {
		bpf_map_delete_elem(&sockets, &key);
		if (error == -EEXIST)
			count->skipped_duplicate++;
		else
			count->skipped_table_full++;
		return false;
	}
	count->sockets_inserted++;
	return true;
}

/*
 * Of nested opted-in cgroups the innermost decides: the kernel runs its
 * program first, and the state it leaves tells the outer ones to stay out.
 */
static __always_inline struct sockops_socket_state *
first_to_decide(struct bpf_sock *socket, const struct sockops_handshake *own)
{
	struct sockops_socket_state *state;

	state = bpf_sk_storage_get(&socket_states, socket, 0, 0);
	if (state)
		return same_handshake(&state->key.handshake, own) ? 0 : state;
	return bpf_sk_storage_get(&socket_states, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

/* The policy that the cgroup of the running program has, and its counters. */
struct membership {
	__u32 index;
	struct sockops_policy *policy;
	struct sockops_counters *count;
};

static __always_inline bool find_membership(struct membership *member)
{
	__u32 *attached = bpf_get_local_storage(&cgroup_policies, 0);

	member->index = *attached;
	member->policy = bpf_map_lookup_elem(&policies, &member->index);
	member->count = bpf_map_lookup_elem(&counters, &member->index);
	return member->policy && member->count;
}

/* The client's published end, if a live one of this node waits for this handshake. */
static __always_inline struct sockops_end *waiting_peer(const struct sockops_handshake *own)
{
	struct sockops_handshake other = swapped(own);
	struct sockops_end *peer = bpf_map_lookup_elem(&ends, &other);

	return peer && cookie_at(peer->socket) == peer->cookie ? peer : 0;
}

/* Whether this socket may be accelerated, but for its peer. */
static __always_inline bool eligible(struct tcp_sock *tcp, const struct membership *member)
{
	if (member->policy->mode != SOCKOPS_MODE_ON) {
		member->count->skipped_mode++;
		return false;
	}
	if (bpf_core_field_exists(tcp->is_mptcp) && BPF_CORE_READ_BITFIELD(tcp, is_mptcp)) {
		member->count->skipped_multipath++;
		return false;
	}
	return true;
}

/* Settles port filter and key between the passive end and the peer that waits for it. */
static __always_inline bool agree(struct sockops_socket_state *state, struct sockops_end *end,
				  const struct sockops_end *peer, struct sockops_counters *count)
{
	/* Either end may name the port: REDIRECT shows each another. */
	if (!end->port_matched && !peer->port_matched) {
		count->skipped_port++;
		return false;
	}
	if (!same_client(&state->key, peer)) {
		count->connections_translated++;
		take_client(&state->key, peer);
	}
	end->paired = 1;
	return true;
}

/*
 * A socket that is connected a second time (connect() to AF_UNSPEC between) is
 * still in the hash under its first connection, with what was not read of it.
 * TCP throws such bytes away; so does taking the socket out.
 */
static __always_inline void drop_former_connection(struct bpf_sock *socket,
						   const struct sockops_handshake *own)
{
	struct sockops_socket_state *state;
	struct sockops_socket_key key;

	state = bpf_sk_storage_get(&socket_states, socket, 0, 0);
	if (!state || same_handshake(&state->key.handshake, own))
		return;
	key = state->key;
	bpf_map_delete_elem(&sockets, &key);
}

static __always_inline void established(struct bpf_sock_ops *context, bool active)
{
	struct sockops_handshake own = {
		.receive_sequence = context->rcv_nxt,
		.send_sequence = context->snd_nxt,
	};
	struct sockops_control *node = node_control();
	struct sockops_end end = {}, *peer = 0;
	struct bpf_sock *socket = context->sk;
	struct sockops_socket_state *state;
	struct membership member = {};
	struct tcp_sock *tcp;

	if (!socket || !node)
		return;
	if (active)
		drop_former_connection(socket, &own);
	if (node->mode != SOCKOPS_MODE_ON || !find_membership(&member))
		return;
	/* Before anything is allocated: most passive ends of a node have remote peers. */
	if (!active) {
		peer = waiting_peer(&own);
		if (!peer) {
			member.count->skipped_no_waiting_peer++;
			return;
		}
	}
	tcp = bpf_skc_to_tcp_sock(socket);
	state = first_to_decide(socket, &own);
	if (!tcp || !state)
		return;
	__builtin_memset(state, 0, sizeof(*state));
	state->key.handshake = own;
	state->policy = member.index;
	set_client(&state->key, context, active);
	if (!eligible(tcp, &member))
		return;
	end.socket = (__u64)tcp;
	end.cookie = bpf_get_socket_cookie(context);
	end.policy = member.index;
	end.port_matched = port_matches(context, member.policy);
	if (peer && !agree(state, &end, peer, member.count))
		return;
	end.client_port = state->key.client_port;
	__builtin_memcpy(end.client_address, state->key.client_address, sizeof(end.client_address));
	state->peer_key = state->key;
	state->peer_key.handshake = swapped(&own);
	state->tracked = track(context, state, &end, member.count);
	if (!state->tracked)
		return;
	if (peer) {
		peer->paired = 1;
		member.count->connections_paired++;
	}
	bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags |
						   BPF_SOCK_OPS_STATE_CB_FLAG |
						   (active ? BPF_SOCK_OPS_RTT_CB_FLAG : 0));
}

static __always_inline void stop_callbacks(struct bpf_sock_ops *context, __u32 flags)
{
	bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags & ~flags);
}

/*
 * The first acknowledgement of data that went by TCP. A peer on this node was
 * established before it could acknowledge, so an end that is still unpaired
 * now never will be: give it back to plain TCP.
 */
static __always_inline void first_round_trip(struct bpf_sock_ops *context)
{
	struct sockops_socket_state *state;
	struct sockops_counters *count;
	struct sockops_socket_key key;
	struct bpf_sock *socket = context->sk;
	struct sockops_end *end;
	__u32 index;

	if (!socket)
		return;
	stop_callbacks(context, BPF_SOCK_OPS_RTT_CB_FLAG);
	state = bpf_sk_storage_get(&socket_states, socket, 0, 0);
	if (!state || !state->tracked)
		return;
	key = state->key;
	end = bpf_map_lookup_elem(&ends, &key.handshake);
	if (end && end->paired)
		return;
	stop_callbacks(context, BPF_SOCK_OPS_STATE_CB_FLAG);
	forget(state);
	bpf_map_delete_elem(&sockets, &key);
	index = state->policy;
	count = bpf_map_lookup_elem(&counters, &index);
	if (count)
		count->sockets_evicted++;
}

static __always_inline void closed(struct bpf_sock_ops *context)
{
	struct sockops_socket_state *state;
	struct bpf_sock *socket = context->sk;

	if (!socket)
		return;
	state = bpf_sk_storage_get(&socket_states, socket, 0, 0);
	if (state && state->tracked)
		forget(state);
}

#endif
