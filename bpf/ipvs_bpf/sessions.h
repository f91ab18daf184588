/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Sessions: what their flows are to each other, how long they last, how they end.
 *
 * A session is known by its request (client -> service). From that, once it is
 * linked, follow its translation (client -> backend, at egress) and its reply
 * (backend -> what the backend took for the client).
 */
#ifndef MESHACCEL_IPVS_SESSIONS_H
#define MESHACCEL_IPVS_SESSIONS_H

#include "headers.h"

#define NANOSECONDS 1000000000ULL
/* A dead session's port may be taken over so soon when no other was found. */
#define LAST_RESORT_SECONDS 1
/* A connection that lasts no longer is over when it is looked at for the first time: most are. */
#define SHORT_SECONDS 1

static __always_inline __u32 slow_second(__u64 now)
{
	return now >> 30;
}

/* The translation of a linked request. */
static __always_inline struct ipvs_flow_key translation_of(const struct ipvs_flow_key *request,
							   const struct ipvs_flow *flow)
{
	return (struct ipvs_flow_key){
		.source = request->source,
		.destination = flow->new_destination,
		.source_port = request->source_port,
		.destination_port = flow->new_destination_port,
		.protocol = request->protocol,
		.point = IPVS_POINT_EGRESS,
	};
}

/* The reply to what a request or a translation has become. */
static __always_inline struct ipvs_flow_key reply_to(const struct ipvs_address *backend,
						     __be16 backend_port,
						     const struct ipvs_flow *flow, __u8 protocol)
{
	return (struct ipvs_flow_key){
		.source = *backend,
		.destination = flow->new_source,
		.source_port = backend_port,
		.destination_port = flow->new_source_port,
		.protocol = protocol,
		.point = IPVS_POINT_INGRESS,
	};
}

/* The request of a linked reply. */
static __always_inline struct ipvs_flow_key request_of(const struct ipvs_flow_key *reply,
						       const struct ipvs_flow *flow)
{
	return (struct ipvs_flow_key){
		.source = flow->new_destination,
		.destination = flow->new_source,
		.source_port = flow->new_destination_port,
		.destination_port = flow->new_source_port,
		.protocol = reply->protocol,
		.point = IPVS_POINT_INGRESS,
	};
}

/* Whether a reply is this client's: its address and port may have been given to another meanwhile. */
static __always_inline bool is_reply_for(const struct ipvs_flow *reply,
					 const struct ipvs_flow_key *of_client)
{
	return reply->kind == IPVS_FLOW_REPLY &&
	       reply->new_destination_port == of_client->source_port &&
	       same_address(&reply->new_destination, &of_client->source);
}

static __always_inline bool is_closed(__u32 flags)
{
	__u32 finished = IPVS_FLAG_CLIENT_FINISHED | IPVS_FLAG_BACKEND_FINISHED;

	return flags & IPVS_FLAG_RESET || (flags & finished) == finished;
}

static __always_inline bool is_ending(__u32 flags)
{
	return flags & (IPVS_FLAG_CLIENT_FINISHED | IPVS_FLAG_BACKEND_FINISHED | IPVS_FLAG_RESET);
}

/* For how many nanoseconds a quiet session is kept, by what was seen of it. */
static __always_inline __u64 idle_limit(const struct ipvs_control *settings, __u8 protocol,
					__u32 flags)
{
	__u64 seconds = settings->tcp_seconds;

	if (protocol == IPPROTO_UDP)
		seconds = settings->udp_seconds;
	else if (is_closed(flags))
		seconds = settings->tcp_closed_seconds;
	else if (is_ending(flags) || !(flags & IPVS_FLAG_LINKED))
		seconds = settings->tcp_closing_seconds;
	return seconds * NANOSECONDS;
}

static __always_inline void note_end(struct ipvs_flow *flow, __u8 tcp_flags, __u32 finished)
{
	if (tcp_flags & TCP_RESET)
		__sync_fetch_and_or(&flow->flags, IPVS_FLAG_RESET);
	else if (tcp_flags & TCP_FINISH)
		__sync_fetch_and_or(&flow->flags, finished);
}

/* Deletes a translation, and the reply that is still its own. */
static __always_inline void end_translation(const struct ipvs_flow_key *key)
{
	struct ipvs_flow *translation = find_flow(key);
	struct ipvs_flow_key reply_key;
	struct ipvs_flow *reply;

	if (!translation)
		return;
	reply_key = reply_to(&key->destination, key->destination_port, translation, key->protocol);
	reply = find_flow(&reply_key);
	if (reply && is_reply_for(reply, key))
		delete_flow(&reply_key);
	delete_flow(key);
}

/* Whether a request has got as far as its backend. */
static __always_inline bool has_backend(const struct ipvs_flow *request)
{
	return request->new_destination_port;
}

/* Ends a session, all of it. */
static __always_inline void end_session(const struct ipvs_flow_key *key,
					const struct ipvs_flow *request)
{
	if (has_backend(request)) {
		struct ipvs_flow_key translation = translation_of(key, request);

		end_translation(&translation);
	}
	delete_flow(key);
	COUNT(sessions_ended);
}

/* Ends the session of a reply, but for the reply itself: that is the caller's to delete, or to reuse. */
static __always_inline void end_session_of_reply(const struct ipvs_flow_key *key,
						 const struct ipvs_flow *reply)
{
	struct ipvs_flow_key request = request_of(key, reply);
	struct ipvs_flow_key translation = request;

	translation.destination = key->source;
	translation.destination_port = key->source_port;
	translation.point = IPVS_POINT_EGRESS;
	delete_flow(&translation);
	/* Not linked: there was no request to be found. */
	if (!reply->new_source_port)
		return;
	delete_flow(&request);
	COUNT(sessions_ended);
}

/*
 * Has a flow that has just begun end by itself. False when there is no room to
 * remember that, and the flow must not stay.
 */
static __always_inline bool have_age(const struct ipvs_control *settings,
				     const struct ipvs_flow_key *key, __u64 begun, __u64 now)
{
	struct ipvs_clock *own = bpf_map_lookup_elem(&clock, &only);
	struct ipvs_ageing look = {
		.key = *key,
		.begun = begun,
		.due = now + (settings->tcp_closed_seconds + SHORT_SECONDS) * NANOSECONDS,
	};

	return !own || !own->runs || !bpf_map_push_elem(&ageing, &look, 0);
}

/* Keeps a request for this packet's egress, which sees client and backend only. */
static __always_inline void note_request(const struct ipvs_flow_key *key,
					 const struct ipvs_flow *request)
{
	struct note *note = bpf_map_lookup_elem(&notes, &only);

	if (!note)
		return;
	note->request = *key;
	note->backend = request->new_destination;
	note->source = request->new_source;
	note->backend_port = request->new_destination_port;
	note->source_port = request->new_source_port;
	note->flags = request->flags;
	note->has_request = true;
}

/* What this CPU has noted of a packet at egress, if it has; it is used up. */
static __always_inline const struct note *noted(const struct ipvs_flow_key *translation)
{
	struct note *note = bpf_map_lookup_elem(&notes, &only);

	if (!note || !note->has_request)
		return 0;
	note->has_request = false;
	if (note->request.source_port != translation->source_port ||
	    note->request.protocol != translation->protocol ||
	    !same_address(&note->request.source, &translation->source))
		return 0;
	return note;
}

#endif
