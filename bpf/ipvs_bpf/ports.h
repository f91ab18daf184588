/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The port that stands for a masqueraded client at one backend. It is taken by
 * making the reply's entry, which the kernel does for one only: two sessions
 * never get the same port at the same backend, however they race.
 */
#ifndef MESHACCEL_IPVS_PORTS_H
#define MESHACCEL_IPVS_PORTS_H

#include "sessions.h"

#define PORT_TRIES 5
/* A prime, so that the tries of one client do not follow those of its neighbour. */
#define PORT_STEP 7919

/* Whether a reply's session is dead, for so long that its port may be taken over. */
static __always_inline bool is_dead(const struct ipvs_control *settings, __u8 protocol,
				    const struct ipvs_flow *reply, __u64 now, bool last_try)
{
	__u64 limit = idle_limit(settings, protocol, reply->flags);

	if (last_try && protocol == IPPROTO_TCP && is_closed(reply->flags))
		limit = LAST_RESORT_SECONDS * NANOSECONDS;
	return now > reply->last_seen && now - reply->last_seen > limit;
}

/* Takes a dead session's reply for another client; one of those that try at once gets it. */
static __always_inline bool take_over(const struct ipvs_control *settings,
				      const struct ipvs_flow_key *key,
				      const struct ipvs_flow *wished, __u64 now, bool last_try)
{
	struct ipvs_flow *reply = find_flow(key);
	__u64 seen;

	if (!reply || reply->kind != IPVS_FLOW_REPLY ||
	    !is_dead(settings, key->protocol, reply, now, last_try))
		return false;
	seen = reply->last_seen;
	if (__sync_val_compare_and_swap(&reply->last_seen, seen, now) != seen)
		return false;
	end_session_of_reply(key, reply);
	reply->begun = wished->begun;
	reply->new_source = wished->new_source;
	reply->new_source_port = wished->new_source_port;
	reply->new_destination = wished->new_destination;
	reply->new_destination_port = wished->new_destination_port;
	reply->slow_second = wished->slow_second;
	reply->flags = wished->flags;
	COUNT(ports_taken_over);
	return true;
}

/*
 * Makes the reply to a masqueraded client; returns the port, in network order,
 * or 0 when none was found in PORT_TRIES tries.
 */
static __always_inline __be16 take_port(const struct ipvs_control *settings,
					const struct ipvs_device *device, struct ipvs_flow_key *key,
					const struct ipvs_flow *reply, __u64 now)
{
	__u32 range = (__u32)device->last_port - device->first_port + 1;
	__u32 start = bpf_get_prandom_u32();

	for (__u32 i = 0; i < PORT_TRIES; i++) {
		key->destination_port =
			bpf_htons(device->first_port + (start + i * PORT_STEP) % range);
		if (!write_flow(key, reply, BPF_NOEXIST))
			return key->destination_port;
		COUNT(ports_in_use);
		if (take_over(settings, key, reply, now, i == PORT_TRIES - 1))
			return key->destination_port;
	}
	COUNT(ports_exhausted);
	return 0;
}

#endif
