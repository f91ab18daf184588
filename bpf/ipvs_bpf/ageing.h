/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Ageing by bpf_timer (Linux 5.15): each session has one, at its request. It is
 * not set anew with each packet; when it fires it looks at when the last was.
 */
#ifndef MESHACCEL_IPVS_AGEING_H
#define MESHACCEL_IPVS_AGEING_H

#include "sessions.h"

#define CLOCK_MONOTONIC 1
#define SHORTEST_WAIT (1 * NANOSECONDS)

/* The reply of a request or of a translation, while it is its own. */
static __always_inline struct ipvs_flow *reply_of(const struct ipvs_flow_key *key,
						  const struct ipvs_flow *flow)
{
	struct ipvs_flow_key reply_key;
	struct ipvs_flow *reply;

	if (flow->kind == IPVS_FLOW_TRANSLATION)
		reply_key = reply_to(&key->destination, key->destination_port, flow, key->protocol);
	else
		reply_key = reply_to(&flow->new_destination, flow->new_destination_port, flow,
				     key->protocol);
	reply = bpf_map_lookup_elem(&flows, &reply_key);
	return reply && is_reply_for(reply, key) ? reply : 0;
}

/* For how many nanoseconds a flow is still to be kept; 0: none. */
static __always_inline __u64 kept_for(const struct ipvs_control *settings,
				      const struct ipvs_flow_key *key, const struct ipvs_flow *flow)
{
	__u64 now = bpf_ktime_get_coarse_ns(), seen = flow->last_seen, limit;
	__u8 flags = flow->flags;

	if (flow->kind == IPVS_FLOW_LEGACY) {
		limit = settings->legacy_seconds * NANOSECONDS;
	} else if (flow->kind == IPVS_FLOW_RESERVED) {
		limit = settings->tcp_seconds * NANOSECONDS;
	} else {
		struct ipvs_flow *reply = reply_of(key, flow);

		if (reply) {
			flags |= reply->flags;
			seen = reply->last_seen > seen ? reply->last_seen : seen;
		}
		limit = idle_limit(settings, key->protocol, flags);
	}
	return seen + limit > now ? seen + limit - now : 0;
}

static int flow_has_aged(void *map, struct ipvs_flow_key *key, struct ipvs_flow *flow)
{
	struct ipvs_control *settings = bpf_map_lookup_elem(&control, &only);
	__u64 wait;

	if (!settings)
		return 0;
	wait = kept_for(settings, key, flow);
	if (wait) {
		bpf_timer_start(&flow->timer, wait > SHORTEST_WAIT ? wait : SHORTEST_WAIT, 0);
		return 0;
	}
	if (flow->kind == IPVS_FLOW_REQUEST)
		end_session(key, flow);
	else if (flow->kind == IPVS_FLOW_TRANSLATION)
		end_translation(key);
	else
		bpf_map_delete_elem(map, key);
	return 0;
}

/* The first look is after the shortest of the limits, for most connections are short. */
static __always_inline int begin_ageing(void)
{
	struct ipvs_control *settings = bpf_map_lookup_elem(&control, &only);
	struct note *note = own_note();
	struct ipvs_flow *flow;

	if (!settings || !note)
		return TC_ACT_UNSPEC;
	flow = bpf_map_lookup_elem(&flows, &note->aged);
	if (!flow || bpf_timer_init(&flow->timer, &flows, CLOCK_MONOTONIC) ||
	    bpf_timer_set_callback(&flow->timer, flow_has_aged))
		return TC_ACT_UNSPEC;
	bpf_timer_start(&flow->timer, settings->tcp_closed_seconds * NANOSECONDS, 0);
	return TC_ACT_UNSPEC;
}

#endif
