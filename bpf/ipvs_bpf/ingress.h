/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A packet that comes in: is it of a session, or does it begin one? Then it is
 * marked, so that conntrack leaves it alone; a reply gets the client back as its
 * destination.
 */
#ifndef MESHACCEL_IPVS_INGRESS_H
#define MESHACCEL_IPVS_INGRESS_H

#include "fast_path.h"

/* While draining, a UDP session that was quiet for so long is over. */
#define QUIET_DATAGRAMS_SECONDS 60

static __always_inline struct ipvs_fragment_key fragment_key(const struct headers *found)
{
	return (struct ipvs_fragment_key){
		.source = found->flow.source,
		.destination = found->flow.destination,
		.identification = found->identification,
		.protocol = found->flow.protocol,
	};
}

static __always_inline void remember_fragments(const struct headers *found,
					       const struct ipvs_flow *reply, __u32 mark)
{
	struct ipvs_fragment_key key = fragment_key(found);
	struct ipvs_fragment fragment = {.new_destination = reply->new_destination, .mark = mark};

	bpf_map_update_elem(&fragments, &key, &fragment, BPF_ANY);
}

/* The fragments of a reply are put together before they are routed, so all need one destination. */
static __always_inline int take_fragment(struct __sk_buff *packet,
					 const struct ipvs_control *settings,
					 const struct headers *found, const bool ipv6)
{
	struct ipvs_fragment_key key = fragment_key(found);
	struct ipvs_fragment *fragment = bpf_map_lookup_elem(&fragments, &key);
	struct ends after = ends_of(&found->flow);

	if (!fragment)
		return TC_ACT_UNSPEC;
	COUNT(fragments_inward);
	after.destination = fragment->new_destination;
	set_mark(packet, settings, fragment->mark);
	if (rewrite(packet, found, &after, false, false, ipv6))
		return TC_ACT_UNSPEC;
	COUNT(dropped_rewrite_failed);
	return TC_ACT_SHOT;
}

/*
 * Makes an error about a request the client's, as far as IPVS does not: of IPv4
 * it puts the service in the place of the backend.
 */
static __always_inline bool give_error_ipv4(struct __sk_buff *packet, const struct headers *found,
					    const struct ipvs_flow *reply)
{
	struct ends after = {
		.source = reply->new_destination,
		.destination = found->flow.destination,
		.ports = {reply->new_destination_port, found->flow.destination_port},
	};

	return rewrite_about(packet, found, &after, false) &&
	       redirect_error_ipv4(packet, found, &after.source);
}

/*
 * All of it: IPVS takes an ICMPv6 error that conntrack has not looked at for one
 * with a wrong checksum, and drops it. In this one it finds nothing of its own.
 */
static __always_inline bool give_error_ipv6(struct __sk_buff *packet, const struct headers *found,
					    const struct ipvs_flow *reply)
{
	struct ends after = {
		.source = reply->new_destination,
		.destination = reply->new_source,
		.ports = {reply->new_destination_port, reply->new_source_port},
	};

	/* Of a session that no request is known of. */
	if (!reply->new_source_port)
		return true;
	return rewrite_about(packet, found, &after, true) &&
	       redirect_error_ipv6(packet, found, &after.destination, &after.source);
}

/* From a backend's side, about a request as the backend got it. */
static __always_inline int take_error_about_request(struct __sk_buff *packet,
						    const struct ipvs_control *settings,
						    const struct headers *found,
						    const struct ipvs_flow *reply, const bool ipv6)
{
	COUNT(errors_inward);
	set_mark(packet, settings, mark_reply(settings));
	if (ipv6 ? give_error_ipv6(packet, found, reply) : give_error_ipv4(packet, found, reply))
		return TC_ACT_UNSPEC;
	COUNT(dropped_rewrite_failed);
	return TC_ACT_SHOT;
}

/* An error about a packet of a session, from either side; IPVS rewrites what is its part. */
static __always_inline int take_error(struct __sk_buff *packet, const struct ipvs_control *settings,
				      const struct headers *found, const bool ipv6)
{
	struct ipvs_flow_key key = reversed(&found->flow, IPVS_POINT_INGRESS);
	struct ipvs_flow *flow = bpf_map_lookup_elem(&flows, &key);

	if (!flow)
		return TC_ACT_UNSPEC;
	if (flow->kind == IPVS_FLOW_REPLY)
		return take_error_about_request(packet, settings, found, flow, ipv6);
	if (flow->kind == IPVS_FLOW_REQUEST) {
		COUNT(errors_inward);
		set_mark(packet, settings, mark_request(settings, flow->flags));
	}
	return TC_ACT_UNSPEC;
}

static __always_inline int take_reply(struct __sk_buff *packet, const struct ipvs_control *settings,
				      const struct headers *found, struct ipvs_flow *reply,
				      __u64 now, const bool ethernet, const bool ipv6)
{
	struct ends after = ends_of(&found->flow);

	reply->last_seen = now;
	note_end(reply, found->tcp_flags, IPVS_FLAG_BACKEND_FINISHED);
	if (ethernet) {
		int verdict = fast_path(packet, settings, found, reply, now, ipv6);

		if (verdict != TC_ACT_UNSPEC)
			return verdict;
	}
	set_mark(packet, settings, mark_reply(settings));
	if (!(reply->flags & IPVS_FLAG_MASQUERADED))
		return TC_ACT_UNSPEC;
	if (found->fragmented)
		remember_fragments(found, reply, mark_reply(settings));
	after.destination = reply->new_destination;
	after.ports.destination = reply->new_destination_port;
	if (rewrite(packet, found, &after, true, false, ipv6))
		return TC_ACT_UNSPEC;
	COUNT(dropped_rewrite_failed);
	return TC_ACT_SHOT;
}

/* Whether a session that is still in the table is over: its client begins anew, or drains silently. */
static __always_inline bool is_over(const struct ipvs_control *settings,
				    const struct headers *found, const struct ipvs_flow *request,
				    __u64 now)
{
	if (found->flow.protocol == IPPROTO_UDP)
		return settings->mode == IPVS_MODE_DRAIN &&
		       now - request->last_seen > QUIET_DATAGRAMS_SECONDS * NANOSECONDS;
	return is_begin(found) && is_ending(request->flags);
}

static __always_inline int take_request(struct __sk_buff *packet,
					const struct ipvs_control *settings,
					const struct headers *found, struct ipvs_flow *request,
					__u64 now, const bool ethernet, const bool ipv6)
{
	request->last_seen = now;
	note_end(request, found->tcp_flags, IPVS_FLAG_CLIENT_FINISHED);
	if (ethernet) {
		int verdict = fast_path(packet, settings, found, request, now, ipv6);

		if (verdict != TC_ACT_UNSPEC)
			return verdict;
	}
	if (!(request->flags & IPVS_FLAG_LINKED))
		note_request(&found->flow);
	set_mark(packet, settings, mark_request(settings, request->flags));
	return TC_ACT_UNSPEC;
}

static __always_inline bool is_local(const struct ipvs_address *address, const bool ipv6)
{
	struct ipvs_network network = {
		.prefix_length = 32 + 128,
		.version = bpf_htonl(ipv6 ? 6 : 4),
		.address = *address,
	};

	return bpf_map_lookup_elem(&local_networks, &network);
}

static __always_inline bool is_masqueraded(const struct ipvs_service *service,
					   const struct ipvs_address *client, const bool ipv6)
{
	if (service->masquerade == IPVS_MASQUERADE_REMOTE)
		return !is_local(client, ipv6);
	return service->masquerade == IPVS_MASQUERADE_ALWAYS;
}

/* A packet of no session that is known. */
static __always_inline int take_unknown(struct __sk_buff *packet,
					const struct ipvs_control *settings,
					const struct headers *found, __u64 now, const bool ipv6)
{
	struct ipvs_service_key key = {
		.address = found->flow.destination,
		.port = found->flow.destination_port,
		.protocol = found->flow.protocol,
	};
	struct ipvs_service *service = bpf_map_lookup_elem(&services, &key);
	struct ipvs_flow flow = {.last_seen = now, .kind = IPVS_FLOW_REQUEST};

	if (!service)
		return TC_ACT_UNSPEC;
	if (!is_begin(found)) {
		COUNT(native_unknown);
		return TC_ACT_UNSPEC;
	}
	if (settings->mode == IPVS_MODE_DRAIN) {
		COUNT(native_draining);
		return TC_ACT_UNSPEC;
	}
	if (settings->mode == IPVS_MODE_OBSERVE)
		flow.kind = IPVS_FLOW_LEGACY;
	else if (is_masqueraded(service, &found->flow.source, ipv6))
		flow.flags = IPVS_FLAG_MASQUERADED;
	if (bpf_map_update_elem(&flows, &found->flow, &flow, BPF_ANY)) {
		COUNT(native_table_full);
		return TC_ACT_UNSPEC;
	}
	if (flow.kind == IPVS_FLOW_LEGACY) {
		COUNT(native_legacy);
		return pass_and_age(packet, &found->flow);
	}
	COUNT(sessions);
	__sync_fetch_and_add(&service->sessions, 1);
	note_request(&found->flow);
	set_mark(packet, settings, mark_request(settings, flow.flags));
	return pass_and_age(packet, &found->flow);
}

/* Whether a flow that was noted as conntrack's stays so. */
static __always_inline bool stays_legacy(const struct ipvs_control *settings,
					 const struct headers *found, struct ipvs_flow *flow,
					 __u64 now)
{
	bool quiet = now - flow->last_seen >= settings->legacy_seconds * NANOSECONDS;

	if (settings->mode == IPVS_MODE_ON && quiet && is_begin(found))
		return false;
	if (found->flow.protocol == IPPROTO_UDP)
		flow->last_seen = now;
	COUNT(native_legacy);
	return true;
}

static __always_inline int take_flow(struct __sk_buff *packet, const struct ipvs_control *settings,
				     const struct headers *found, const bool ethernet,
				     const bool ipv6)
{
	struct ipvs_flow *flow = bpf_map_lookup_elem(&flows, &found->flow);
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!flow)
		return take_unknown(packet, settings, found, now, ipv6);
	if (flow->kind == IPVS_FLOW_REPLY)
		return take_reply(packet, settings, found, flow, now, ethernet, ipv6);
	if (flow->kind == IPVS_FLOW_REQUEST) {
		if (!is_over(settings, found, flow, now))
			return take_request(packet, settings, found, flow, now, ethernet, ipv6);
		end_session(&found->flow, flow);
		return take_unknown(packet, settings, found, now, ipv6);
	}
	if (flow->kind == IPVS_FLOW_RESERVED) {
		/* A connection of conntrack's goes on: its port must not be given to another meanwhile. */
		flow->last_seen = now;
		return TC_ACT_UNSPEC;
	}
	if (flow->kind != IPVS_FLOW_LEGACY || stays_legacy(settings, found, flow, now))
		return TC_ACT_UNSPEC;
	bpf_map_delete_elem(&flows, &found->flow);
	return take_unknown(packet, settings, found, now, ipv6);
}

static __always_inline int take_in(struct __sk_buff *packet, const struct ipvs_control *settings,
				   __u32 network, const bool ethernet, const bool ipv6)
{
	struct headers found;

	switch (parse(packet, &found, network, IPVS_POINT_INGRESS, ipv6)) {
	case CONTENT_FLOW:
		return take_flow(packet, settings, &found, ethernet, ipv6);
	case CONTENT_FRAGMENT:
		return take_fragment(packet, settings, &found, ipv6);
	case CONTENT_ERROR:
		return take_error(packet, settings, &found, ipv6);
	default:
		return TC_ACT_UNSPEC;
	}
}

#endif
