/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The addresses of the servers that are relayed. The accelerator's main
 * programs look here as well, to leave such connections to the relay.
 */
#ifndef MESHACCEL_RELAY_ADDRESSES_H
#define MESHACCEL_RELAY_ADDRESSES_H

#include "meshaccel/kernel.h"
#include "meshaccel/sockops_relay.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKOPS_RELAYS *SOCKOPS_RELAY_SIDES);
	__type(key, struct sockops_relay_address);
	__type(value, struct sockops_relay_place);
} relay_addresses SEC(".maps");

/* Which relay's server is reached at an address (IPv4 as v4-mapped IPv6) and port; 0: none's. */
static __always_inline struct sockops_relay_place *relay_place_at(const __u32 *address, __u32 port)
{
	struct sockops_relay_address key = {
		.address = {address[0], address[1], address[2], address[3]},
		.port = port,
	};

	return bpf_map_lookup_elem(MAP(relay_addresses), &key);
}

#endif
