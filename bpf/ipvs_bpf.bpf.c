/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * ipvs_bpf: IPVS schedules, conntrack is bypassed, and what conntrack did for a
 * service's flows (masquerading the client, giving replies back to it) is done
 * here, at the two ends of the packet's way through the director.
 *
 * Reads no structures of the kernel, so it needs no BTF of the kernel's.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "ipvs_bpf/ageing.h"
#include "ipvs_bpf/egress.h"
#include "ipvs_bpf/ingress.h"

/* Where the network's header begins on a device whose packets have no Ethernet header: a tunnel. */
#define BARE 0

/*
 * The settings, when there is something to do. A packet that still has its VLAN
 * tag is seen at the parent of the device that it is for; one that has our mark
 * was seen before, at a port of this bridge.
 */
static __always_inline const struct ipvs_control *settings_for(struct __sk_buff *packet)
{
	const struct ipvs_control *settings = bpf_map_lookup_elem(&control, &only);

	if (!settings || settings->mode == IPVS_MODE_OFF || READ_MEMBER(packet, vlan_present))
		return 0;
	return settings;
}

static __always_inline int ingress(struct __sk_buff *packet, __u32 network)
{
	const struct ipvs_control *settings = settings_for(packet);

	if (!settings || READ_MEMBER(packet, mark) & mark_mask(settings))
		return TC_ACT_UNSPEC;
	if (READ_MEMBER(packet, protocol) == bpf_htons(ETH_P_IP))
		return take_in(packet, settings, network, network != BARE, false);
	if (READ_MEMBER(packet, protocol) == bpf_htons(ETH_P_IPV6))
		return take_in(packet, settings, network, network != BARE, true);
	return TC_ACT_UNSPEC;
}

static __always_inline int egress(struct __sk_buff *packet, __u32 network)
{
	const struct ipvs_control *settings = settings_for(packet);

	if (!settings)
		return TC_ACT_UNSPEC;
	if ((READ_MEMBER(packet, mark) & mark_mask(settings)) == mark_done(settings)) {
		set_mark_done(packet, settings);
		return TC_ACT_UNSPEC;
	}
	if (READ_MEMBER(packet, protocol) == bpf_htons(ETH_P_IP))
		return send_out(packet, settings, network, false);
	if (READ_MEMBER(packet, protocol) == bpf_htons(ETH_P_IPV6))
		return send_out(packet, settings, network, true);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int meshaccel_ipvs_ingress(struct __sk_buff *packet)
{
	return ingress(packet, ETH_HLEN);
}

SEC("tc")
int meshaccel_ipvs_egress(struct __sk_buff *packet)
{
	return egress(packet, ETH_HLEN);
}

SEC("tc")
int meshaccel_ipvs_ingress_bare(struct __sk_buff *packet)
{
	return ingress(packet, BARE);
}

SEC("tc")
int meshaccel_ipvs_egress_bare(struct __sk_buff *packet)
{
	return egress(packet, BARE);
}

/* Run by hand, once for each version. */
SEC("tc")
int meshaccel_ipvs_ageing(struct __sk_buff *packet)
{
	(void)packet;
	return start_clock();
}

char _license[] SEC("license") = "Dual BSD/GPL";
