/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A packet that goes out to a backend: IPVS has chosen it. A masqueraded client's
 * gets our address.
 */
#ifndef MESHACCEL_IPVS_EGRESS_H
#define MESHACCEL_IPVS_EGRESS_H

#include "beginning.h"

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
