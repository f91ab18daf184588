/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Release: sockets that are switched off go back to plain TCP, without loss.
 */
#ifndef MESHACCEL_SOCKOPS_RELEASE_H
#define MESHACCEL_SOCKOPS_RELEASE_H

#include "maps.h"

static __always_inline bool is_switched_off(__u32 index)
{
	struct sockops_policy *policy = bpf_map_lookup_elem(MAP(policies), &index);

	return !policy || policy->mode == SOCKOPS_MODE_OFF;
}

/*
 * Gives sockets whose policy (or whose peer's policy) is off back to plain
 * TCP. Runs only after the switch has settled, so no redirect is under way; a
 * socket that still holds redirected bytes is left for a later pass, since
 * taking it out of the hash would lose them.
 */
static __always_inline __u32 release_one(struct sock *socket, const struct sockops_control *node)
{
	struct sockops_socket_state *state;

	state = bpf_sk_storage_get(MAP(socket_states), socket, 0, 0);
	if (!state || state->status == SOCKOPS_STATUS_PLAIN)
		return 0;
	if (node->mode != SOCKOPS_MODE_OFF && !is_switched_off(state->policy) &&
	    !(state->peer_socket && is_switched_off(state->peer_policy)))
		return SOCKOPS_RELEASE_KEPT;
	if (!ingress_queue_empty(state->socket))
		return SOCKOPS_RELEASE_QUEUE_NOT_EMPTY;
	forget(state, SOCKOPS_REASON_RELEASED);
	return SOCKOPS_RELEASE_DONE;
}

#endif
