/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Pairing: the two ends of a connection find each other by their handshake.
 */
#ifndef MESHACCEL_SOCKOPS_PAIRING_H
#define MESHACCEL_SOCKOPS_PAIRING_H

#include "maps.h"

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

static __always_inline void pair(struct sockops_socket_state *state, const struct sockops_end *peer)
{
	state->peer_socket = peer->socket;
	state->peer_cookie = peer->cookie;
	state->peer_policy = peer->policy;
	state->peer_slot = peer->slot;
	state->status = SOCKOPS_STATUS_PAIRED;
}

/*
 * The client's side: has the server's end shown up? Then both know each other
 * and neither stays published.
 */
static __always_inline bool find_peer(struct sockops_socket_state *state)
{
	struct sockops_handshake own = state->handshake;
	struct sockops_handshake other = swapped(&own);
	struct sockops_end *peer = bpf_map_lookup_elem(MAP(ends), &other);

	if (!peer)
		return false;
	pair(state, peer);
	bpf_map_delete_elem(MAP(ends), &own);
	bpf_map_delete_elem(MAP(ends), &other);
	return true;
}

#endif
