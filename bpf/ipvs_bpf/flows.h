/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The table of flows, which is one for each version of IP.
 */
#ifndef MESHACCEL_IPVS_FLOWS_H
#define MESHACCEL_IPVS_FLOWS_H

#include <bpf/bpf_endian.h>

#include "maps.h"

#define MAPPED_PREFIX bpf_htonl(0xffff)

static __always_inline bool is_ipv4(const struct ipvs_address *address)
{
	return address->word[2] == MAPPED_PREFIX && !address->word[1] && !address->word[0];
}

static __always_inline bool is_of_ipv4(const struct ipvs_flow_key *key)
{
	return is_ipv4(&key->source) && is_ipv4(&key->destination);
}

static __always_inline struct ipvs_flow_key_ipv4 key_of_ipv4(const struct ipvs_flow_key *key)
{
	return (struct ipvs_flow_key_ipv4){
		.source = key->source.word[3],
		.destination = key->destination.word[3],
		.source_port = key->source_port,
		.destination_port = key->destination_port,
		.protocol = key->protocol,
		.point = key->point,
	};
}

static __always_inline struct ipvs_flow *find_flow(const struct ipvs_flow_key *key)
{
	struct ipvs_flow_key_ipv4 ipv4;

	if (!is_of_ipv4(key))
		return bpf_map_lookup_elem(&flows_ipv6, key);
	ipv4 = key_of_ipv4(key);
	return bpf_map_lookup_elem(&flows_ipv4, &ipv4);
}

/* Returns 0, or what bpf_map_update_elem(2) says of it. */
static __always_inline long write_flow(const struct ipvs_flow_key *key,
				       const struct ipvs_flow *flow, __u64 how)
{
	struct ipvs_flow_key_ipv4 ipv4;

	if (!is_of_ipv4(key))
		return bpf_map_update_elem(&flows_ipv6, key, flow, how);
	ipv4 = key_of_ipv4(key);
	return bpf_map_update_elem(&flows_ipv4, &ipv4, flow, how);
}

static __always_inline void delete_flow(const struct ipvs_flow_key *key)
{
	struct ipvs_flow_key_ipv4 ipv4;

	if (!is_of_ipv4(key)) {
		bpf_map_delete_elem(&flows_ipv6, key);
		return;
	}
	ipv4 = key_of_ipv4(key);
	bpf_map_delete_elem(&flows_ipv4, &ipv4);
}

#endif
