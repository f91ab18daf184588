/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps of ipvs_bpf. The flows' tables are plain hashes: ones that evict would
 * break a live session for a new one, while in a full one new flows are
 * conntrack's, as without us.
 */
#ifndef MESHACCEL_IPVS_MAPS_H
#define MESHACCEL_IPVS_MAPS_H

#include <bpf/bpf_helpers.h>

#include "meshaccel/ipvs_bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ipvs_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IPVS_DEVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct ipvs_device);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IPVS_SERVICES_DEFAULT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipvs_service_key);
	__type(value, struct ipvs_service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, IPVS_LOCAL_NETWORKS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipvs_network);
	__type(value, __u32);
} local_networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IPVS_SESSIONS_DEFAULT *IPVS_FLOWS_PER_SESSION);
	__type(key, struct ipvs_flow_key_ipv4);
	__type(value, struct ipvs_flow);
} flows_ipv4 SEC(".maps");

/* Takes memory as it grows, for most nodes have few of them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IPVS_SESSIONS_DEFAULT *IPVS_FLOWS_PER_SESSION);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipvs_flow_key);
	__type(value, struct ipvs_flow);
} flows_ipv6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, IPVS_FRAGMENTED);
	__type(key, struct ipvs_fragment_key);
	__type(value, struct ipvs_fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ipvs_counters);
} counters SEC(".maps");

/* What this CPU knows of the request between its ingress and its egress. */
struct note {
	struct ipvs_flow_key request;
	/* Of the session, once it has them: its backend, and what that takes for the client. */
	struct ipvs_address backend;
	struct ipvs_address source;
	__be16 backend_port;
	__be16 source_port;
	__u32 flags;
	bool has_request;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct note);
} notes SEC(".maps");

/* The flows that end by themselves, in the order in which they are to be looked at. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, IPVS_SESSIONS_DEFAULT *IPVS_AGEING_PER_SESSION);
	__type(value, struct ipvs_ageing);
} ageing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ipvs_clock);
} clock SEC(".maps");

static const __u32 only = 0;

#define COUNT(member)                                                                  \
	({                                                                             \
		struct ipvs_counters *counted = bpf_map_lookup_elem(&counters, &only); \
		if (counted)                                                           \
			counted->member++;                                             \
	})

#endif
