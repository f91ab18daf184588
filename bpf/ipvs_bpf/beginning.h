/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The first packet of a session, on its way to the backend that IPVS has chosen:
 * it makes the translation and the reply.
 */
#ifndef MESHACCEL_IPVS_BEGINNING_H
#define MESHACCEL_IPVS_BEGINNING_H

#include "links.h"
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

#endif
