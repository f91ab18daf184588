/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The fast path: an established session's packet gets all of its new addresses
 * at once and leaves by the route's device, past netfilter and IPVS. What begins
 * or ends a connection never goes this way, and one packet every so often
 * neither: IPVS keeps its timers by them, and the route is looked up anew.
 */
#ifndef MESHACCEL_IPVS_FAST_PATH_H
#define MESHACCEL_IPVS_FAST_PATH_H

#include "marks.h"
#include "rewrite.h"
#include "sessions.h"

#define FAMILY_IPV4 2
#define FAMILY_IPV6 10
/* The smallest that a route may have: RFC 791, 3.2. Below it the kernel (before 5.12) gave none. */
#define SMALLEST_MTU 68
/* Has the kernel look at the route's MTU, and return it. */
#define ASK_FOR_MTU 1

static __always_inline bool may_go_fast(const struct ipvs_control *settings,
					const struct ipvs_flow *flow, const struct headers *found,
					const bool ipv6)
{
	__u32 plain = found->network + (ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));

	return settings->fast_path_seconds && flow->flags & IPVS_FLAG_LINKED &&
	       !found->fragmented && found->transport == plain && found->hops_left > 1 &&
	       !(found->tcp_flags & (TCP_SYNCHRONIZE | TCP_FINISH | TCP_RESET));
}

static __always_inline bool find_route(struct __sk_buff *packet, struct ipvs_flow *flow,
				       const bool ipv6)
{
	struct bpf_fib_lookup route = {
		.family = ipv6 ? FAMILY_IPV6 : FAMILY_IPV4,
		.ifindex = READ_MEMBER(packet, ifindex),
		.tot_len = ASK_FOR_MTU,
	};

	if (ipv6) {
		__builtin_memcpy(route.ipv6_src, &flow->new_source, sizeof(route.ipv6_src));
		__builtin_memcpy(route.ipv6_dst, &flow->new_destination, sizeof(route.ipv6_dst));
	} else {
		route.ipv4_src = flow->new_source.word[3];
		route.ipv4_dst = flow->new_destination.word[3];
	}
	if (bpf_fib_lookup(packet, &route, sizeof(route), 0) != BPF_FIB_LKUP_RET_SUCCESS ||
	    route.mtu_result < SMALLEST_MTU)
		return false;
	flow->output_device = route.ifindex;
	flow->mtu = route.mtu_result;
	if (ipv6)
		__builtin_memcpy(&flow->next_hop, route.ipv6_dst, sizeof(flow->next_hop));
	else
		map_ipv4(&flow->next_hop, route.ipv4_dst);
	__sync_fetch_and_or(&flow->flags, IPVS_FLAG_ROUTED);
	COUNT(fast_path_flows);
	return true;
}

/* Each segment of what hardware or the device is to cut counts by itself. */
static __always_inline bool fits(struct __sk_buff *packet, const struct headers *found, __u32 mtu)
{
	if (READ_MEMBER(packet, gso_size))
		return found->transport - found->network + found->transport_length +
			       READ_MEMBER(packet, gso_size) <=
		       mtu;
	return READ_MEMBER(packet, len) - found->network <= mtu;
}

/*
 * True when it is time for one to take the slow path, where IPVS sees it. A
 * request is fast again only once egress has seen it: had IPVS dropped it, for
 * its backend is gone, all that follow go to IPVS too.
 */
static __always_inline bool is_slow_turn(const struct ipvs_control *settings,
					 struct ipvs_flow *flow, __u64 now)
{
	__u32 second = slow_second(now);

	if (second - flow->slow_second < settings->fast_path_seconds)
		return false;
	flow->slow_second = second;
	__sync_fetch_and_and(&flow->flags, flow->kind == IPVS_FLOW_REQUEST
						   ? ~(IPVS_FLAG_ROUTED | IPVS_FLAG_LINKED)
						   : ~IPVS_FLAG_ROUTED);
	return true;
}

/* Returns what the program is to return, or TC_ACT_UNSPEC: the packet, untouched, takes the slow path. */
static __always_inline int fast_path(struct __sk_buff *packet, const struct ipvs_control *settings,
				     const struct headers *found, struct ipvs_flow *flow, __u64 now,
				     const bool ipv6)
{
	struct bpf_redir_neigh next_hop = {.nh_family = ipv6 ? FAMILY_IPV6 : FAMILY_IPV4};
	struct ends after = {
		.source = flow->new_source,
		.destination = flow->new_destination,
		.ports = {flow->new_source_port, flow->new_destination_port},
	};
	__u32 output_device;

	if (!may_go_fast(settings, flow, found, ipv6) || is_slow_turn(settings, flow, now))
		return TC_ACT_UNSPEC;
	if (!(flow->flags & IPVS_FLAG_ROUTED) && !find_route(packet, flow, ipv6))
		return TC_ACT_UNSPEC;
	if (!fits(packet, found, flow->mtu))
		return TC_ACT_UNSPEC;
	output_device = flow->output_device;
	if (ipv6)
		__builtin_memcpy(next_hop.ipv6_nh, &flow->next_hop, sizeof(next_hop.ipv6_nh));
	else
		next_hop.ipv4_nh = flow->next_hop.word[3];
	if (!rewrite(packet, found, &after, true, true, ipv6)) {
		COUNT(dropped_rewrite_failed);
		return TC_ACT_SHOT;
	}
	set_mark_done(packet, settings);
	return bpf_redirect_neigh(output_device, &next_hop, sizeof(next_hop), 0);
}

#endif
