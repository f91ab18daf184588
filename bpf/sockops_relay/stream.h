/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Bytes that arrive at a relayed server: for the partner's client, or, as
 * without a relay, for the server itself.
 */
#ifndef MESHACCEL_RELAY_STREAM_H
#define MESHACCEL_RELAY_STREAM_H

#include "partner.h"

/*
 * Asked once, at the first bytes of a pair: two connections whose servers do
 * not block in recv() stay joined, others part and are their servers' again.
 */
static __always_inline bool relay_settles(struct sockops_relay_end *end,
					  struct sockops_relay_end *partner,
					  struct sockops_relay_counters *count)
{
	if (end->settled)
		return true;
	if (relay_blocks(end->socket) || relay_blocks(partner->socket)) {
		end->partner = 0;
		partner->partner = 0;
		count->skipped_blocking_reader++;
		count->connections_parted++;
		return false;
	}
	end->settled = 1;
	partner->settled = 1;
	return true;
}

/* Returns whether the bytes were handed to the partner's socket, to be sent. */
static __always_inline bool relay_give(struct __sk_buff *packet, struct sockops_relay_end *end,
				       struct sockops_relay_counters *count)
{
	struct sockops_relay_end *partner = relay_partner(end);
	__u64 cookie = end->partner;
	struct relay_view view = {};

	if (!partner || !relay_look_at(partner, cookie, &view) ||
	    !relay_settles(end, partner, count))
		return false;
	if (bpf_sk_redirect_hash(packet, MAP(relay_sockets), &cookie, 0) != SK_PASS)
		return false;
	if (!view.waiting_packets) {
		end->given_bytes = 0;
		end->sent_before = view.write_sequence;
	}
	end->given_bytes += packet->len;
	return true;
}

/*
 * Whether these bytes, the last that were seen, are the server's because they
 * came before it accepted the connection. Such bytes reach this program within
 * recv(), and what is taken away there leaves TCP's count of bytes read behind
 * for good.
 */
static __always_inline bool relay_is_early(struct sockops_relay_end *end, __u32 bytes)
{
	__u32 first = end->next_sequence - bytes;

	if ((__s32)(end->early_until - first) > 0)
		return true;
	/* Moves along, as sequence numbers come round. */
	end->early_until = end->next_sequence;
	return false;
}

static __always_inline void relay_bytes(struct __sk_buff *packet)
{
	__u64 cookie = bpf_get_socket_cookie(packet);
	struct sockops_relay_counters *count;
	struct sockops_relay_end *end;
	__u32 side;

	/* The end of the stream is for the server alone: sending nothing is an error to the kernel. */
	if (!packet->len)
		return;
	end = bpf_map_lookup_elem(MAP(relay_ends), &cookie);
	if (!end)
		return;
	side = end->side % SOCKOPS_RELAY_SIDES;
	count = relay_counters_of(end);
	if (!count)
		return;
	if (!relay_is_early(end, packet->len) && relay_give(packet, end, count))
		count->joined_bytes[side] += packet->len;
	else
		count->own_bytes[side] += packet->len;
}

#endif
