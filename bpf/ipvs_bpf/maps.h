/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps of ipvs_bpf. The flows' table is a plain hash: one that evicts would
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
	__type(key, struct ipvs_flow_key);
	__type(value, struct ipvs_flow);
} flows SEC(".maps");

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

/* What this CPU knows of the packet between its ingress and its egress, and what is to age. */
struct note {
	struct ipvs_flow_key request;
	struct ipvs_flow_key aged;
	bool has_request;
	/* `aged` is a translation that its session has left. */
	bool has_left;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct note);
} notes SEC(".maps");

/* At 0 the program that has flows age; empty on a kernel without bpf_timer. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ageing SEC(".maps");

static const __u32 only = 0;

#define COUNT(member)                                                                  \
	({                                                                             \
		struct ipvs_counters *counted = bpf_map_lookup_elem(&counters, &only); \
		if (counted)                                                           \
			counted->member++;                                             \
	})

#endif
