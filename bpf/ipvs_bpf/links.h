/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the flows of a session know of each other, told as packets go out.
 */
#ifndef MESHACCEL_IPVS_LINKS_H
#define MESHACCEL_IPVS_LINKS_H

#include "sessions.h"

/*
 * IPVS has chosen another backend for a session, for the one before is gone. Late
 * answers of that one still find their way, until what is left of it has aged.
 */
static __always_inline void leave_backend(const struct ipvs_control *settings,
					  const struct headers *found,
					  const struct ipvs_flow_key *key,
					  const struct ipvs_flow *request, __u64 now)
{
	struct ipvs_flow_key left_key = translation_of(key, request);
	struct ipvs_flow *left;

	if (!has_backend(request) ||
	    (request->new_destination_port == found->flow.destination_port &&
	     same_address(&request->new_destination, &found->flow.destination)))
		return;
	left = find_flow(&left_key);
	if (left && !have_age(settings, &left_key, left->begun, now))
		end_translation(&left_key);
}

/* The handshake's last packet, and all of UDP's, show that IPVS takes a session for established. */
static __always_inline void set_linked(struct ipvs_flow *flow, __u64 now)
{
	flow->slow_second = slow_second(now);
	__sync_fetch_and_or(&flow->flags, IPVS_FLAG_LINKED);
}

/* Tells a request what has become of it. Returns whether there is one. */
static __always_inline bool tell_request(const struct ipvs_control *settings,
					 const struct headers *found,
					 const struct ipvs_flow_key *key,
					 const struct ipvs_flow *translation, __u64 now)
{
	struct ipvs_flow *request = find_flow(key);

	if (!request || request->kind != IPVS_FLOW_REQUEST)
		return false;
	leave_backend(settings, found, key, request, now);
	request->new_source = translation->new_source;
	request->new_source_port = translation->new_source_port;
	request->new_destination = found->flow.destination;
	request->new_destination_port = found->flow.destination_port;
	if (!(found->tcp_flags & TCP_SYNCHRONIZE))
		set_linked(request, now);
	return true;
}

/* The reply to a packet that goes out by a source, while it is of that client. */
static __always_inline struct ipvs_flow *
find_reply(const struct headers *found, const struct ipvs_address *source, __be16 source_port)
{
	struct ipvs_flow_key key = reversed(&found->flow, IPVS_POINT_INGRESS);
	struct ipvs_flow *reply;

	key.destination = *source;
	key.destination_port = source_port;
	reply = find_flow(&key);
	return reply && is_reply_for(reply, &found->flow) ? reply : 0;
}

/*
 * Tells the request and the reply of each other, so that the fast path knows all
 * and the session ends as one.
 */
static __always_inline void link_session(const struct ipvs_control *settings,
					 const struct headers *found,
					 const struct ipvs_flow_key *key,
					 struct ipvs_flow *translation, __u64 now)
{
	struct ipvs_flow *reply =
		find_reply(found, &translation->new_source, translation->new_source_port);

	if (!reply || !tell_request(settings, found, key, translation, now))
		return;
	translation->new_destination = key->destination;
	translation->new_destination_port = key->destination_port;
	reply->new_source = key->destination;
	reply->new_source_port = key->destination_port;
	if (!(found->tcp_flags & TCP_SYNCHRONIZE))
		set_linked(reply, now);
}

/* That the client is done is for the reply to know: by it its port may be taken over. */
static __always_inline void tell_end(const struct headers *found, const struct ipvs_address *source,
				     __be16 source_port)
{
	struct ipvs_flow *reply;

	if (!(found->tcp_flags & (TCP_FINISH | TCP_RESET)))
		return;
	reply = find_reply(found, source, source_port);
	if (reply)
		note_end(reply, found->tcp_flags, IPVS_FLAG_CLIENT_FINISHED);
}

/* Has the fast path go on, or begin: IPVS has let this packet pass. False when the session has gone. */
static __always_inline bool confirm_session(const struct headers *found, const struct note *note,
					    __u64 now)
{
	struct ipvs_flow *request = find_flow(&note->request);
	struct ipvs_flow *reply = find_reply(found, &note->source, note->source_port);

	if (!request || request->kind != IPVS_FLOW_REQUEST || !reply)
		return false;
	set_linked(request, now);
	set_linked(reply, now);
	return true;
}

#endif
