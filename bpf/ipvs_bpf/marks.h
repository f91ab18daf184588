/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Two bits of the packet mark say what a packet is to us, from ingress to
 * egress. By them nftables takes it from conntrack.
 */
#ifndef MESHACCEL_IPVS_MARKS_H
#define MESHACCEL_IPVS_MARKS_H

#include "context.h"
#include "maps.h"

static __always_inline __u32 mark_mask(const struct ipvs_control *settings)
{
	return settings->mark_low | settings->mark_high;
}

/* A reply; and what egress has done, so that a tunnel's or a bridge's own egress leaves it alone. */
static __always_inline __u32 mark_done(const struct ipvs_control *settings)
{
	return settings->mark_low;
}

static __always_inline __u32 mark_request(const struct ipvs_control *settings, __u32 flow_flags)
{
	return flow_flags & IPVS_FLAG_MASQUERADED ? mark_mask(settings) : settings->mark_high;
}

static __always_inline void set_mark(struct __sk_buff *packet, const struct ipvs_control *settings,
				     __u32 mark)
{
	write_mark(packet, (READ_MEMBER(packet, mark) & ~mark_mask(settings)) | mark);
}

/*
 * The same for what rules of others are to let through as they would what conntrack
 * calls ESTABLISHED or RELATED: a reply in FORWARD above all. A masqueraded client's
 * first packet has the bit as well, as kube-proxy's rules would give it; that of any
 * other is judged without.
 */
static __always_inline void set_mark_accepted(struct __sk_buff *packet,
					      const struct ipvs_control *settings, __u32 mark)
{
	set_mark(packet, settings, mark | settings->mark_accepted);
}

/*
 * The rules of others lie behind the packet. A tunnel's own packet inherits the mark,
 * and kube-proxy's would masquerade it, so that bit goes, as they have it go.
 */
static __always_inline void set_mark_done(struct __sk_buff *packet,
					  const struct ipvs_control *settings)
{
	__u32 others = ~(mark_mask(settings) | settings->mark_accepted);

	write_mark(packet, (READ_MEMBER(packet, mark) & others) | mark_done(settings));
}

#endif
