/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Connection events: two ends find each other, bystanders are let go.
 */
#ifndef MESHACCEL_SOCKOPS_CONNECTION_H
#define MESHACCEL_SOCKOPS_CONNECTION_H

#include "denial.h"
#include "pairing.h"
#include "stream.h"
#include "threads.h"

#define EEXIST 17
#define E2BIG 7

static __always_inline bool port_matches(const struct connection_view *view,
					 const struct sockops_policy *policy)
{
	return !policy->port_range_count ||
	       either_port_in(policy->port_ranges, policy->port_range_count, view->local_port,
			      view->remote_port);
}

static __always_inline void set_client(struct sockops_end *end, const struct connection_view *view,
				       bool local_is_client)
{
	const __u32 *client = local_is_client ? view->local_address : view->remote_address;

	for (__u32 i = 0; i < 4; i++)
		end->client_address[i] = client[i];
	end->client_port = local_is_client ? view->local_port : view->remote_port;
}

static __always_inline bool same_client(const struct sockops_end *one,
					const struct sockops_end *other)
{
	return one->client_port == other->client_port &&
	       one->client_address[0] == other->client_address[0] &&
	       one->client_address[1] == other->client_address[1] &&
	       one->client_address[2] == other->client_address[2] &&
	       one->client_address[3] == other->client_address[3];
}

static __always_inline bool refuse(struct sockops_socket_state *state, __u32 reason, __u64 *counter)
{
	state->reason = reason;
	(*counter)++;
	return false;
}

/*
 * Enters the socket into the hash, then publishes its end: a peer that finds
 * the end must find the socket. Returns whether the socket is now tracked.
 */
static __always_inline bool track(struct bpf_sock_ops *context, struct sockops_socket_state *state,
				  struct sockops_end *end, struct sockops_counters *count)
{
	struct sockops_handshake own = state->handshake;
	__u64 key = state->cookie;
	long error;

	error = bpf_sock_hash_update(context, MAP(sockets), &key, BPF_NOEXIST);
	if (error == -E2BIG)
		return refuse(state, SOCKOPS_REASON_TABLE_FULL, &count->skipped_table_full);
	if (error)
		return refuse(state, SOCKOPS_REASON_OTHER, &count->skipped_other);
	end->slot = state->slot = take_slot(context, true, key);
	error = bpf_map_update_elem(MAP(ends), &own, end, BPF_NOEXIST);
	if (error) {
		bpf_map_delete_elem(MAP(sockets), &key);
		give_up_slot(state->slot);
		state->slot = 0;
		if (error == -EEXIST)
			return refuse(state, SOCKOPS_REASON_DUPLICATE, &count->skipped_duplicate);
		return refuse(state, SOCKOPS_REASON_TABLE_FULL, &count->skipped_table_full);
	}
	count->sockets_inserted++;
	return true;
}

/*
 * Of nested opted-in cgroups the innermost decides: the kernel runs its
 * program first, and the state it leaves tells the outer ones to stay out.
 */
static __always_inline struct sockops_socket_state *
first_to_decide(struct bpf_sock *socket, const struct sockops_handshake *own,
		struct sockops_counters *count)
{
	struct sockops_socket_state *state;

	state = bpf_sk_storage_get(MAP(socket_states), socket, 0, 0);
	if (state)
		return same_handshake(&state->handshake, own) ? 0 : state;
	state = bpf_sk_storage_get(MAP(socket_states), socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		count->skipped_other++;
	return state;
}

/* The policy that the cgroup of the running program has, and its counters. */
struct membership {
	__u32 index;
	struct sockops_policy *policy;
	struct sockops_counters *count;
};

static __always_inline bool find_membership(struct membership *member)
{
	__u32 *attached = bpf_get_local_storage(MAP(cgroup_policies), 0);

	member->index = *attached;
	member->policy = bpf_map_lookup_elem(MAP(policies), &member->index);
	member->count = bpf_map_lookup_elem(MAP(counters), &member->index);
	return member->policy && member->count;
}

/* The client's published end, if a live one of this node waits for this handshake. */
static __always_inline struct sockops_end *waiting_peer(const struct sockops_handshake *own)
{
	struct sockops_handshake other = swapped(own);
	struct sockops_end *peer = bpf_map_lookup_elem(MAP(ends), &other);

	return peer && cookie_at(peer->socket) == peer->cookie ? peer : 0;
}

/* Whether this socket may be accelerated, but for its peer. */
static __always_inline bool eligible(struct tcp_sock *tcp, struct sockops_socket_state *state,
				     const struct connection_view *view,
				     const struct membership *member)
{
	if (member->policy->mode != SOCKOPS_MODE_ON)
		return refuse(state, SOCKOPS_REASON_MODE, &member->count->skipped_mode);
	if (IS_MULTIPATH(tcp))
		return refuse(state, SOCKOPS_REASON_MULTIPATH, &member->count->skipped_multipath);
	if (any_denied() && view_denied(view))
		return refuse(state, SOCKOPS_REASON_DENIED, &member->count->skipped_denied);
	return true;
}

/* Settles the port filter between the passive end and the peer that waits for it. */
static __always_inline bool agree(struct sockops_socket_state *state, const struct sockops_end *end,
				  const struct sockops_end *peer, struct sockops_counters *count)
{
	/* Either end may name the port: REDIRECT shows each another. */
	if (!end->port_matched && !peer->port_matched)
		return refuse(state, SOCKOPS_REASON_PORT, &count->skipped_port);
	if (!same_client(end, peer))
		count->connections_translated++;
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

	state = bpf_sk_storage_get(MAP(socket_states), socket, 0, 0);
	if (state && !same_handshake(&state->handshake, own))
		forget(state, SOCKOPS_REASON_NONE);
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
	struct connection_view view;
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
	tcp = TCP_OF_EVENT(context, socket);
	state = first_to_decide(socket, &own, member.count);
	if (!tcp || !state)
		return;
	__builtin_memset(state, 0, sizeof(*state));
	state->handshake = own;
	state->policy = member.index;
	state->socket = (__u64)tcp;
	state->cookie = bpf_get_socket_cookie(context);
	view_context(&view, context);
	if (!eligible(tcp, state, &view, &member))
		return;
	end.socket = state->socket;
	end.cookie = state->cookie;
	end.policy = member.index;
	end.port_matched = port_matches(&view, member.policy);
	set_client(&end, &view, active);
	if (peer && !agree(state, &end, peer, member.count))
		return;
	/* Before the end is published: the client's side takes both ends back once it has seen it. */
	if (peer)
		pair(state, peer);
	else
		state->status = SOCKOPS_STATUS_WAITING;
	if (!track(context, state, &end, member.count)) {
		state->status = SOCKOPS_STATUS_PLAIN;
		return;
	}
	if (peer)
		member.count->connections_paired++;
	state->has_callbacks = !bpf_sock_ops_cb_flags_set(
		context, context->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG |
				 BPF_SOCK_OPS_RTT_CB_FLAG);
}

static __always_inline void stop_callbacks(struct bpf_sock_ops *context, __u32 flags)
{
	bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags & ~flags);
}

static __always_inline struct sockops_counters *
counters_of(const struct sockops_socket_state *state)
{
	__u32 index = state->policy;

	return bpf_map_lookup_elem(MAP(counters), &index);
}

/* Gives a socket back to TCP whose peer is not on this node. */
static __always_inline void evict(struct bpf_sock_ops *context, struct sockops_socket_state *state)
{
	struct sockops_counters *count = counters_of(state);

	stop_callbacks(context, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
	forget(state, SOCKOPS_REASON_NO_PEER);
	if (count)
		count->sockets_evicted++;
}

/*
 * Whether no thread is on its way from this socket's peer, or from this socket,
 * with a message to redirect, and none was redirected that waits unread. The
 * socket's own threads may sleep, since a redirect does not.
 */
static __always_inline bool at_rest(const struct sockops_socket_state *state)
{
	struct sk_psock *own = psock_of(state->socket), *peer = psock_of(state->peer_socket);

	if (peer && threads_inside(peer))
		return false;
	if (own && threads_inside(own) && threads_inside(own) != sleeping_threads(state->socket))
		return false;
	return ingress_queue_empty(state->socket);
}

/*
 * Takes the peer out as well if it has read all, since one that only reads has
 * no acknowledgements to leave by. This end alone redirected to it, and is at
 * rest. The peer's threads may be in a call: they keep what they hold, and find
 * TCP's bytes. Returns whether it did.
 */
static __always_inline bool take_peer_out(const struct sockops_socket_state *state)
{
	__u64 peer = state->peer_socket, key = state->peer_cookie;

	if (!peer || cookie_at(peer) != key || !ingress_queue_empty(peer))
		return false;
	if (bpf_map_delete_elem(MAP(sockets), &key))
		return false;
	give_up_slot(state->peer_slot);
	return true;
}

/*
 * Gives a socket back that shall be on TCP alone. It is told to the peer first,
 * at one acknowledgement, and done at a later one that finds both ends at rest:
 * then no redirect is under way, and none can start.
 */
static __always_inline void hand_back(struct bpf_sock_ops *context,
				      struct sockops_socket_state *state)
{
	struct sockops_counters *count;

	if (!(context->bpf_sock_ops_cb_flags & LEAVING_CALLBACK_FLAG)) {
		bpf_sock_ops_cb_flags_set(context,
					  context->bpf_sock_ops_cb_flags | LEAVING_CALLBACK_FLAG);
		return;
	}
	if (!at_rest(state))
		return;
	/* The flag that tells the peer stays. */
	stop_callbacks(context, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
	forget(state, state->reason);
	count = counters_of(state);
	if (count)
		count->sockets_handed_back += 1 + take_peer_out(state);
}

/* Its peer took it out, or it is closed: what it had is another's by now. */
static __always_inline void taken_out(struct sockops_socket_state *state)
{
	state->slot = 0;
	forget(state, SOCKOPS_REASON_PEER_LEFT);
}

/*
 * An acknowledgement of data that went by TCP. A peer on this node was
 * established before it could acknowledge, so a client's end that is still
 * alone now always will be.
 */
static __always_inline void round_trip(struct bpf_sock_ops *context)
{
	struct bpf_sock *socket = context->sk;
	struct sockops_socket_state *state;

	if (!socket)
		return;
	state = bpf_sk_storage_get(MAP(socket_states), socket, 0, 0);
	if (!state || state->status == SOCKOPS_STATUS_PLAIN)
		stop_callbacks(context, BPF_SOCK_OPS_RTT_CB_FLAG);
	else if (!psock_of(state->socket))
		taken_out(state);
	else if (state->status == SOCKOPS_STATUS_LEAVING)
		hand_back(context, state);
	else if (state->status == SOCKOPS_STATUS_WAITING && !find_peer(state))
		evict(context, state);
}

static __always_inline void closed(struct bpf_sock_ops *context)
{
	struct sockops_socket_state *state;
	struct sockops_handshake own;
	struct bpf_sock *socket = context->sk;

	if (!socket)
		return;
	state = bpf_sk_storage_get(MAP(socket_states), socket, 0, 0);
	if (!state || state->status == SOCKOPS_STATUS_PLAIN)
		return;
	/* The kernel takes it out of the hash itself, once what is unread was read. */
	own = state->handshake;
	bpf_map_delete_elem(MAP(ends), &own);
}

#endif
