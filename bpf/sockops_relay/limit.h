/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The kernel takes a joined connection's bytes off TCP at once and lets them
 * wait in the partner's queue without limit or charge, so TCP's own window
 * never closes. From the limit on acknowledgements are held back, first most,
 * then all: the sender comes to the end of its window and tries again some
 * milliseconds later, with nothing lost. As much again is left for what it has
 * under way by then; packets beyond that are dropped, before TCP has seen them.
 */
#ifndef MESHACCEL_RELAY_LIMIT_H
#define MESHACCEL_RELAY_LIMIT_H

#include "partner.h"

#define RELAY_IPV4_VERSION 4
#define RELAY_IPV6_HEADER_BYTES 40
#define RELAY_IPV6_NEXT_HEADER 6
#define RELAY_PROTOCOL_TCP 6
#define RELAY_TCP_SEQUENCE 4
#define RELAY_TCP_DATA_OFFSET 12
#define RELAY_TCP_FLAGS 13
#define RELAY_TCP_FLAGS_ACKNOWLEDGEMENT 0x10
/* What a sender may have under way, at least: TCP opens its window far for a fast reader. */
#define RELAY_LEAST_WINDOW (4 << 20)
/* Often enough that the sender does not take the silence for a loss. */
#define RELAY_ACKNOWLEDGEMENT_NANOSECONDS 4000000

struct relay_segment {
	__u32 sequence;
	__u32 bytes;
	__u8 flags;
};

enum relay_level {
	RELAY_LEVEL_LOW = 0,
	RELAY_LEVEL_OVER_LIMIT = 1,
	/* The sender may still have a whole window under way. */
	RELAY_LEVEL_FULL = 2,
	RELAY_LEVEL_EXCEEDED = 3,
};

/* Reads what matters of a packet's TCP header. Returns false where headers are not understood. */
static __always_inline bool relay_parse(struct __sk_buff *packet, struct relay_segment *segment)
{
	__u32 transport = RELAY_IPV6_HEADER_BYTES, headers;
	__be32 sequence = 0;
	__u8 byte = 0;

	if (bpf_skb_load_bytes(packet, 0, &byte, sizeof(byte)))
		return false;
	if (byte >> 4 == RELAY_IPV4_VERSION) {
		transport = (byte & 0xf) * 4;
	} else {
		bpf_skb_load_bytes(packet, RELAY_IPV6_NEXT_HEADER, &byte, sizeof(byte));
		if (byte != RELAY_PROTOCOL_TCP)
			return false;
	}
	if (bpf_skb_load_bytes(packet, transport + RELAY_TCP_SEQUENCE, &sequence,
			       sizeof(sequence)) ||
	    bpf_skb_load_bytes(packet, transport + RELAY_TCP_DATA_OFFSET, &byte, sizeof(byte)) ||
	    bpf_skb_load_bytes(packet, transport + RELAY_TCP_FLAGS, &segment->flags,
			       sizeof(segment->flags)))
		return false;
	headers = transport + (byte >> 4) * 4;
	segment->sequence = bpf_ntohl(sequence);
	segment->bytes = packet->len > headers ? packet->len - headers : 0;
	return true;
}

/* Until the server has accepted the connection, what arrives for it is noted as its own. */
static __always_inline void relay_note_early(struct sockops_relay_end *end,
					     const struct relay_segment *segment)
{
	__u32 next = segment->sequence + segment->bytes;

	if (end->accepted)
		return;
	if (relay_is_accepted(end->socket))
		end->accepted = 1;
	else if ((__s32)(next - end->early_until) > 0)
		end->early_until = next;
}

/* How much the partner's queue holds of what this end received. */
static __always_inline enum relay_level relay_level_of(const struct sockops_relay_end *end)
{
	struct sockops_relay_end *partner = relay_partner(end);
	struct sockops_policy *policy;
	struct relay_view view = {};
	__u64 held, limit, window;

	if (!partner || !relay_look_at(partner, end->partner, &view))
		return RELAY_LEVEL_LOW;
	policy = relay_policy(partner);
	if (!policy)
		return RELAY_LEVEL_LOW;
	held = relay_backlog(end, &view) +
	       (__u64)view.waiting_packets * RELAY_PACKET_DESCRIPTION_BYTES;
	limit = policy->receive_memory_limit;
	window = limit > RELAY_LEAST_WINDOW ? limit : RELAY_LEAST_WINDOW;
	if (held < limit)
		return RELAY_LEVEL_LOW;
	if (held < limit + window)
		return RELAY_LEVEL_OVER_LIMIT;
	return held < limit + 2 * window ? RELAY_LEVEL_FULL : RELAY_LEVEL_EXCEEDED;
}

/*
 * Returns whether a packet may pass to TCP. An acknowledgement has no bytes and
 * always may: it belongs to the other direction. Unknown headers count as bytes.
 */
static __always_inline bool relay_admits(struct __sk_buff *packet)
{
	__u64 cookie = bpf_get_socket_cookie(packet);
	struct sockops_relay_counters *count;
	struct relay_segment segment = {};
	struct sockops_relay_end *end;
	bool understood;

	end = bpf_map_lookup_elem(MAP(relay_ends), &cookie);
	if (!end)
		return true;
	if (end->broken)
		return false;
	understood = relay_parse(packet, &segment);
	if (understood)
		relay_note_early(end, &segment);
	if ((understood && !segment.bytes) || relay_level_of(end) != RELAY_LEVEL_EXCEEDED)
		return true;
	count = relay_counters_of(end);
	if (count)
		count->packets_dropped++;
	return false;
}

/* Returns whether a packet may leave: all but an acknowledgement that would bring more bytes. */
static __always_inline bool relay_acknowledges(struct __sk_buff *packet)
{
	__u64 cookie = bpf_get_socket_cookie(packet), now;
	struct sockops_relay_counters *count;
	struct relay_segment segment = {};
	struct sockops_relay_end *end;
	enum relay_level level;

	end = bpf_map_lookup_elem(MAP(relay_ends), &cookie);
	if (!end)
		return true;
	level = relay_level_of(end);
	if (level == RELAY_LEVEL_LOW || !relay_parse(packet, &segment) || segment.bytes ||
	    segment.flags != RELAY_TCP_FLAGS_ACKNOWLEDGEMENT)
		return true;
	now = bpf_ktime_get_ns();
	if (level == RELAY_LEVEL_OVER_LIMIT &&
	    now - end->acknowledged > RELAY_ACKNOWLEDGEMENT_NANOSECONDS) {
		end->acknowledged = now;
		return true;
	}
	count = relay_counters_of(end);
	if (count)
		count->acknowledgements_held++;
	return false;
}

#endif
