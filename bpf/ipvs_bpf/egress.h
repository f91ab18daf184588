/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A packet that goes out to a backend: IPVS has chosen it. The first of a session
 * makes its translation and its reply; a masqueraded client's get our address.
 */
#ifndef MESHACCEL_IPVS_EGRESS_H
#define MESHACCEL_IPVS_EGRESS_H

#include "marks.h"
#include "ports.h"
#include "rewrite.h"

static __always_inline const struct ipvs_address *source_of(const struct ipvs_device *device,
							    const bool ipv6)
{
	return ipv6 ? &device->source_ipv6 : &device->source_ipv4;
}

static __always_inline const struct ipvs_device *device_of(struct __sk_buff *packet,
							   const bool ipv6)
{
	__u32 index = READ_MEMBER(packet, ifindex);
	const struct ipvs_device *device = bpf_map_lookup_elem(&devices, &index);

	return device && source_of(device, ipv6)->word[3] ? device : 0;
}

/* A pod that is its own backend would take its own address for a reply to itself. */
static __always_inline bool is_hairpin(const struct headers *found)
{
	return same_address(&found->flow.source, &found->flow.destination);
}

/* Has a request's next packets be conntrack's. */
static __always_inline void leave_to_conntrack(const struct ipvs_flow_key *key)
{
	struct ipvs_flow *request = key ? find_flow(key) : 0;

	if (request && request->kind == IPVS_FLOW_REQUEST)
		request->kind = IPVS_FLOW_LEGACY;
}

/*
 * A session could not be made. Its next packets, the same again, are conntrack's:
 * this one is lost, since IPVS has chosen a backend that would not know the way back.
 */
static __always_inline int give_up(const struct ipvs_flow_key *key)
{
	leave_to_conntrack(key);
	return TC_ACT_SHOT;
}

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
	flow->flags |= IPVS_FLAG_LINKED;
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

static __always_inline int send(struct __sk_buff *packet, const struct ipvs_control *settings,
				const struct headers *found, const struct ipvs_address *source,
				__be16 source_port, const bool ipv6)
{
	struct ends after = ends_of(&found->flow);

	set_mark_done(packet, settings);
	if (source_port == found->flow.source_port && same_address(source, &found->flow.source))
		return TC_ACT_UNSPEC;
	after.source = *source;
	after.ports.source = source_port;
	if (rewrite(packet, found, &after, true, false, ipv6))
		return TC_ACT_UNSPEC;
	COUNT(dropped_rewrite_failed);
	return TC_ACT_SHOT;
}

/*
 * Makes the reply of a new session, and with it fixes what the backend takes for
 * the client. `made` is the translation, which knows the service if anybody does.
 */
static __always_inline bool make_reply(struct __sk_buff *packet,
				       const struct ipvs_control *settings,
				       const struct headers *found, struct ipvs_flow *made,
				       bool masqueraded, __u64 now, const bool ipv6)
{
	struct ipvs_flow_key key = reversed(&found->flow, IPVS_POINT_INGRESS);
	struct ipvs_flow reply = {
		.begun = now,
		.last_seen = now,
		.new_source = made->new_destination,
		.new_destination = found->flow.source,
		.new_source_port = made->new_destination_port,
		.new_destination_port = found->flow.source_port,
		.kind = IPVS_FLOW_REPLY,
		.flags = masqueraded ? IPVS_FLAG_MASQUERADED : 0,
	};
	const struct ipvs_device *device;

	if (made->new_destination_port && !(found->tcp_flags & TCP_SYNCHRONIZE))
		set_linked(&reply, now);
	if (!masqueraded)
		return !write_flow(&key, &reply, BPF_ANY);
	device = device_of(packet, ipv6);
	if (!device) {
		COUNT(dropped_no_address);
		return false;
	}
	key.destination = *source_of(device, ipv6);
	made->new_source = key.destination;
	made->new_source_port = take_port(settings, device, &key, &reply, now);
	made->flags = IPVS_FLAG_MASQUERADED;
	return made->new_source_port;
}

/* Whether a backend takes two translations of a client for the same. */
static __always_inline bool is_same_client(const struct ipvs_flow *one,
					   const struct ipvs_flow *other)
{
	return one->new_source_port == other->new_source_port &&
	       same_address(&one->new_source, &other->new_source);
}

/*
 * Two packets of a client may come at once, on two CPUs, as a resolver's two
 * questions do. The translation is that of the faster one, and both go by it.
 */
static __always_inline int join_session(struct __sk_buff *packet,
					const struct ipvs_control *settings,
					const struct headers *found,
					const struct ipvs_flow_key *request,
					const struct ipvs_flow *made, __u64 now, const bool ipv6)
{
	struct ipvs_flow *translation = find_flow(&found->flow);

	if (!translation || !is_same_client(made, translation)) {
		struct ipvs_flow_key reply =
			reply_to(&found->flow.destination, found->flow.destination_port, made,
				 found->flow.protocol);

		delete_flow(&reply);
	}
	if (!translation)
		return give_up(request);
	if (request)
		link_session(settings, found, request, translation, now);
	return send(packet, settings, found, &translation->new_source, translation->new_source_port,
		    ipv6);
}

static __always_inline int begin_session(struct __sk_buff *packet,
					 const struct ipvs_control *settings,
					 const struct headers *found,
					 const struct ipvs_flow_key *request, bool masqueraded,
					 __u64 now, const bool ipv6)
{
	struct ipvs_flow made = {
		.begun = now,
		.last_seen = now,
		.new_source = found->flow.source,
		.new_source_port = found->flow.source_port,
		.kind = IPVS_FLOW_TRANSLATION,
	};

	if (request) {
		made.new_destination = request->destination;
		made.new_destination_port = request->destination_port;
	}
	if (!make_reply(packet, settings, found, &made, masqueraded, now, ipv6))
		return give_up(request);
	if (write_flow(&found->flow, &made, BPF_NOEXIST))
		return join_session(packet, settings, found, request, &made, now, ipv6);
	if (masqueraded)
		COUNT(masqueraded);
	/* Noted on no CPU: it came another way. Its flows then age by themselves. */
	if (!(request && tell_request(settings, found, request, &made, now)) &&
	    !have_age(settings, &found->flow, made.begun, now)) {
		end_translation(&found->flow);
		return give_up(request);
	}
	return send(packet, settings, found, &made.new_source, made.new_source_port, ipv6);
}

/* Whether a translation that is there is of a session that is over, so that a new one may begin. */
static __always_inline bool is_left_over(const struct headers *found,
					 const struct ipvs_flow *translation)
{
	struct ipvs_flow *reply =
		find_reply(found, &translation->new_source, translation->new_source_port);

	return !reply || is_ending(translation->flags | reply->flags);
}

/*
 * Whether a translation is of another live session: of the same client's port to
 * the same backend by another service, which the backend could not tell apart.
 */
static __always_inline bool is_others(const struct ipvs_flow *translation,
				      const struct ipvs_flow_key *request)
{
	return request && translation->new_destination_port &&
	       (translation->new_destination_port != request->destination_port ||
		!same_address(&translation->new_destination, &request->destination));
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

/* Whether the request has told all that there is to know: it goes where the one before it went. */
static __always_inline bool is_told(const struct headers *found, const struct note *note)
{
	return note->backend_port == found->flow.destination_port &&
	       same_address(&note->backend, &found->flow.destination) &&
	       !(found->tcp_flags & TCP_SYNCHRONIZE) &&
	       (note->flags & IPVS_FLAG_LINKED ||
		confirm_session(found, note, bpf_ktime_get_coarse_ns()));
}

/* A request that its ingress has not told all of. */
static __always_inline int send_untold(struct __sk_buff *packet,
				       const struct ipvs_control *settings,
				       const struct headers *found,
				       const struct ipvs_flow_key *request, bool masqueraded,
				       const bool ipv6)
{
	struct ipvs_flow *translation = find_flow(&found->flow);
	__u64 now = bpf_ktime_get_coarse_ns();

	if (is_hairpin(found)) {
		masqueraded = true;
		if (!translation)
			COUNT(hairpins);
	}
	if (translation && found->flow.protocol == IPPROTO_TCP && is_begin(found)) {
		if (is_left_over(found, translation)) {
			end_translation(&found->flow);
			translation = 0;
		} else if (is_others(translation, request)) {
			COUNT(sessions_clashed);
			return give_up(request);
		}
	}
	if (!translation && !is_begin(found)) {
		/* It began by a device that had no program yet: the backend knows the client itself. */
		leave_to_conntrack(request);
		set_mark_done(packet, settings);
		return TC_ACT_UNSPEC;
	}
	if (!translation)
		return begin_session(packet, settings, found, request, masqueraded, now, ipv6);
	translation->last_seen = now;
	tell_end(found, &translation->new_source, translation->new_source_port);
	if (request)
		link_session(settings, found, request, translation, now);
	return send(packet, settings, found, &translation->new_source, translation->new_source_port,
		    ipv6);
}

static __always_inline int send_flow(struct __sk_buff *packet, const struct ipvs_control *settings,
				     const struct headers *found, bool masqueraded, const bool ipv6)
{
	const struct note *note = noted(&found->flow);

	if (!note)
		return send_untold(packet, settings, found, 0, masqueraded, ipv6);
	if (!is_told(found, note))
		return send_untold(packet, settings, found, &note->request, masqueraded, ipv6);
	tell_end(found, &note->source, note->source_port);
	return send(packet, settings, found, &note->source, note->source_port, ipv6);
}

/* The first fragment has taken its port to the backend; those behind it take the address. */
static __always_inline int send_fragment(struct __sk_buff *packet,
					 const struct ipvs_control *settings,
					 const struct headers *found, bool masqueraded,
					 const bool ipv6)
{
	const struct ipvs_device *device = device_of(packet, ipv6);
	struct ends after = ends_of(&found->flow);

	set_mark_done(packet, settings);
	if (!masqueraded && !is_hairpin(found))
		return TC_ACT_UNSPEC;
	if (!device) {
		COUNT(dropped_no_address);
		return TC_ACT_SHOT;
	}
	COUNT(fragments_outward);
	after.source = *source_of(device, ipv6);
	if (rewrite(packet, found, &after, false, false, ipv6))
		return TC_ACT_UNSPEC;
	COUNT(dropped_rewrite_failed);
	return TC_ACT_SHOT;
}

/* About a reply: the backend knows its destination by our address. Ours too, of the director's own. */
static __always_inline int send_error(struct __sk_buff *packet, const struct ipvs_control *settings,
				      const struct headers *found, const bool ipv6)
{
	struct ipvs_flow_key key = reversed(&found->flow, IPVS_POINT_EGRESS);
	struct ipvs_flow *translation = find_flow(&key);
	struct ends after = ends_of(&found->flow);

	if (!translation || !(translation->flags & IPVS_FLAG_MASQUERADED))
		return TC_ACT_UNSPEC;
	after.destination = translation->new_source;
	after.ports.destination = translation->new_source_port;
	COUNT(errors_outward);
	set_mark_done(packet, settings);
	if (rewrite_about(packet, found, &after, ipv6))
		return TC_ACT_UNSPEC;
	COUNT(dropped_rewrite_failed);
	return TC_ACT_SHOT;
}

/* Keeps a port that conntrack has given away from sessions of ours. */
static __always_inline int reserve_port(struct __sk_buff *packet,
					const struct ipvs_control *settings,
					const struct headers *found,
					const struct ipvs_flow_key *reply_key, const bool ipv6)
{
	const struct ipvs_device *device = device_of(packet, ipv6);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct ipvs_flow reserved = {.begun = now, .last_seen = now, .kind = IPVS_FLOW_RESERVED};
	__u32 port = bpf_ntohs(found->flow.source_port);

	if (!device || !same_address(source_of(device, ipv6), &found->flow.source) ||
	    port < device->first_port || port > device->last_port)
		return TC_ACT_UNSPEC;
	if (write_flow(reply_key, &reserved, BPF_NOEXIST))
		return TC_ACT_UNSPEC;
	if (have_age(settings, reply_key, reserved.begun, now))
		COUNT(ports_reserved);
	else
		delete_flow(reply_key);
	return TC_ACT_UNSPEC;
}

/*
 * Of conntrack, not ours: a connection that begins with the addresses and ports
 * of a session must not find its replies taken for that session's. Datagrams are
 * not looked at, for each of them may be the first.
 */
static __always_inline int pass_native(struct __sk_buff *packet,
				       const struct ipvs_control *settings,
				       const struct headers *found, const bool ipv6)
{
	struct ipvs_flow_key key = reversed(&found->flow, IPVS_POINT_INGRESS);
	struct ipvs_flow *reply;

	if (found->flow.protocol != IPPROTO_TCP || !is_begin(found))
		return TC_ACT_UNSPEC;
	reply = find_flow(&key);
	if (!reply)
		return reserve_port(packet, settings, found, &key, ipv6);
	if (reply->kind != IPVS_FLOW_REPLY)
		return TC_ACT_UNSPEC;
	if (!is_reply_for(reply, &found->flow) &&
	    !is_dead(settings, found->flow.protocol, reply, bpf_ktime_get_coarse_ns(), true)) {
		COUNT(sessions_clashed);
		return TC_ACT_UNSPEC;
	}
	end_session_of_reply(&key, reply);
	delete_flow(&key);
	COUNT(sessions_replaced);
	return TC_ACT_UNSPEC;
}

static __always_inline int send_out(struct __sk_buff *packet, const struct ipvs_control *settings,
				    __u32 network, const bool ipv6)
{
	__u32 mark = READ_MEMBER(packet, mark) & mark_mask(settings);
	bool masqueraded = mark == mark_mask(settings);
	struct headers found;

	switch (parse(packet, &found, network, IPVS_POINT_EGRESS, ipv6)) {
	case CONTENT_FLOW:
		return mark ? send_flow(packet, settings, &found, masqueraded, ipv6)
			    : pass_native(packet, settings, &found, ipv6);
	case CONTENT_FRAGMENT:
		return mark ? send_fragment(packet, settings, &found, masqueraded, ipv6)
			    : TC_ACT_UNSPEC;
	case CONTENT_ERROR:
		return send_error(packet, settings, &found, ipv6);
	default:
		return TC_ACT_UNSPEC;
	}
}

#endif
