/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Ageing by one bpf_timer (Linux 5.15), for a timer each would be most of what a
 * new session takes. Whatever ends by itself stands in a queue, and is looked at
 * every tcp_closed_seconds and one: all wait for the same time, so the next to be
 * looked at is the first.
 */
#ifndef MESHACCEL_IPVS_AGEING_H
#define MESHACCEL_IPVS_AGEING_H

#include "sessions.h"

#define CLOCK_MONOTONIC 1
#define TURN (NANOSECONDS / 4)
/* What interrupts the processor is short: at most so many flows, and more of them right after it. */
#define FLOWS_A_TURN 64
#define TURN_WHILE_BUSY (NANOSECONDS / 1000)

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
	reply = find_flow(&reply_key);
	return reply && is_reply_for(reply, key) ? reply : 0;
}

/* Whether a flow is still to be kept. */
static __always_inline bool is_kept(const struct ipvs_control *settings,
				    const struct ipvs_flow_key *key, const struct ipvs_flow *flow,
				    __u64 now)
{
	__u64 seen = flow->last_seen, limit;
	__u32 flags = flow->flags;

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
	return seen + limit > now;
}

/* Whether a session's request ages for a translation: one that was linked, and not left since. */
static __always_inline bool has_owner(const struct ipvs_flow_key *key, const struct ipvs_flow *flow)
{
	struct ipvs_flow_key request_key = *key;
	struct ipvs_flow *request;

	request_key.destination = flow->new_destination;
	request_key.destination_port = flow->new_destination_port;
	request_key.point = IPVS_POINT_INGRESS;
	request = find_flow(&request_key);
	return request && request->kind == IPVS_FLOW_REQUEST &&
	       request->new_destination_port == key->destination_port &&
	       same_address(&request->new_destination, &key->destination);
}

static __always_inline void end_flow(const struct ipvs_flow_key *key, const struct ipvs_flow *flow)
{
	if (flow->kind == IPVS_FLOW_REQUEST)
		end_session(key, flow);
	else if (flow->kind == IPVS_FLOW_TRANSLATION)
		end_translation(key);
	else
		delete_flow(key);
}

/* Looks at a flow, if it is still the one that was meant: it ends, or will be looked at again. */
static __always_inline void look_at(const struct ipvs_control *settings, struct ipvs_ageing *look,
				    __u64 now)
{
	struct ipvs_flow *flow = find_flow(&look->key);

	if (!flow || flow->begun != look->begun)
		return;
	if (flow->kind == IPVS_FLOW_TRANSLATION && has_owner(&look->key, flow))
		return;
	if (!is_kept(settings, &look->key, flow, now) ||
	    !have_age(settings, &look->key, look->begun, now))
		end_flow(&look->key, flow);
}

/*
 * Looks at the next flow that is due; returns whether there was one. Not static,
 * so that the verifier looks at it once, and not for each flow of a turn.
 */
__noinline int age_next(void)
{
	struct ipvs_control *settings = bpf_map_lookup_elem(&control, &only);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct ipvs_ageing look = {};

	if (!settings || bpf_map_peek_elem(&ageing, &look) || look.due > now)
		return 0;
	if (bpf_map_pop_elem(&ageing, &look))
		return 0;
	look_at(settings, &look, now);
	return 1;
}

static int take_turn(void *map, __u32 *key, struct ipvs_clock *own)
{
	__u64 wait = TURN;

	(void)map;
	(void)key;
	for (__u32 i = 0; i < FLOWS_A_TURN; i++) {
		if (!age_next())
			break;
		if (i == FLOWS_A_TURN - 1)
			wait = TURN_WHILE_BUSY;
	}
	bpf_timer_start(&own->timer, wait, 0);
	return 0;
}

/* Has the clock run, by this version's program: one that runs by an older version's changes over. */
static __always_inline int start_clock(void)
{
	struct ipvs_clock *own = bpf_map_lookup_elem(&clock, &only);

	if (!own)
		return TC_ACT_SHOT;
	/* Not the first time: it is there. */
	bpf_timer_init(&own->timer, &clock, CLOCK_MONOTONIC);
	if (bpf_timer_set_callback(&own->timer, take_turn) || bpf_timer_start(&own->timer, TURN, 0))
		return TC_ACT_SHOT;
	own->runs = 1;
	return TC_ACT_OK;
}

#endif
