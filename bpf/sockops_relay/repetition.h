/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A packet that TCP accepts may begin with bytes that an earlier one brought: a
 * sender that got no acknowledgement may cut its stream in other places the
 * second time. recv() steps over them; the kernel's way to this program
 * (tcp_read_skb) does not, so that they would arrive twice, at the server too.
 */
#ifndef MESHACCEL_RELAY_REPETITION_H
#define MESHACCEL_RELAY_REPETITION_H

#include "maps.h"

/* What one call can cut off, and as many calls as cut the largest packet there is. */
#define RELAY_CUT_BYTES 4095
#define RELAY_CUTS 130

/* Cuts off a packet's first bytes. Returns false when the kernel has no memory for it. */
static __always_inline bool relay_cut(struct __sk_buff *packet, __u32 bytes)
{
	for (int i = 0; i < RELAY_CUTS && bytes; i++) {
		__u32 now = bytes < RELAY_CUT_BYTES ? bytes : RELAY_CUT_BYTES;

		if (bpf_skb_adjust_room(packet, -(__s32)now, 0, 0))
			return false;
		bytes -= now;
	}
	return !bytes;
}

/*
 * Returns whether what is left of the packet is the stream's next bytes. When
 * the rest cannot be had, the connection is dead to both, never wrong.
 */
static __always_inline bool relay_is_next(struct __sk_buff *packet)
{
	/* TCP's own note on the packet: in a verdict program cb[] is what it left there. */
	__u32 sequence = packet->cb[0];
	__u64 cookie = bpf_get_socket_cookie(packet);
	struct sockops_relay_counters *count;
	struct sockops_relay_end *end;
	__u32 repeated;

	end = bpf_map_lookup_elem(MAP(relay_ends), &cookie);
	if (!end)
		return true;
	if (end->broken)
		return false;
	repeated = end->next_sequence - sequence;
	end->next_sequence = sequence + packet->len;
	if ((__s32)repeated <= 0)
		return true;
	count = relay_counters_of(end);
	/* All of it, when only the end of the stream is new. */
	if (repeated <= packet->len && relay_cut(packet, repeated)) {
		if (count)
			count->repeated_bytes += repeated;
		return true;
	}
	end->broken = 1;
	if (count)
		count->connections_broken++;
	return false;
}

#endif
