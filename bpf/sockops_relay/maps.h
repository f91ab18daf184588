/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps of the relay, and what all of its programs ask of them.
 */
#ifndef MESHACCEL_RELAY_MAPS_H
#define MESHACCEL_RELAY_MAPS_H

#include "../sockops/switches.h"
#include "meshaccel/sockops_relay.h"

#define RELAY_CONNECTIONS_DEFAULT 32768

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockops_relay_version);
} relay_version SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKOPS_RELAYS);
	__type(key, __u32);
	__type(value, struct sockops_relay_setting);
} relay_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKOPS_RELAYS);
	__type(key, __u32);
	__type(value, struct sockops_relay_queue);
} relay_queues SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SOCKOPS_RELAYS);
	__type(key, __u32);
	__type(value, struct sockops_relay_counters);
} relay_counters SEC(".maps");

/* The accepted connections, by their sockets' cookies. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2 * RELAY_CONNECTIONS_DEFAULT);
	__type(key, __u64);
	__type(value, __u64);
} relay_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * RELAY_CONNECTIONS_DEFAULT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct sockops_relay_end);
} relay_ends SEC(".maps");

/* As for messages: a live socket keeps the program it entered with, so the logic stands behind this. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} relay_logic SEC(".maps");

static __always_inline __u32 relay_node_mode(void)
{
	struct sockops_control *node = node_control();

	return node ? node->mode : SOCKOPS_MODE_OFF;
}

static __always_inline __u64 relay_generation(__u32 relay)
{
	struct sockops_relay_setting *setting = bpf_map_lookup_elem(MAP(relay_settings), &relay);

	return setting ? setting->generation : 0;
}

static __always_inline struct sockops_relay_counters *
relay_counters_of(const struct sockops_relay_end *end)
{
	__u32 index = end->relay;

	return bpf_map_lookup_elem(MAP(relay_counters), &index);
}

/* The policy of an end's cgroup; 0 when its index is another cgroup's by now. */
static __always_inline struct sockops_policy *relay_policy(const struct sockops_relay_end *end)
{
	__u32 index = end->policy;
	struct sockops_policy *policy = bpf_map_lookup_elem(MAP(policies), &index);

	return policy && policy->cgroup_id == end->cgroup_id ? policy : 0;
}

/*
 * The other end of a joined connection, if what is received now is for it:
 * nothing was switched off, and the relay is still the one it was joined for.
 */
static __always_inline struct sockops_relay_end *relay_partner(const struct sockops_relay_end *end)
{
	struct sockops_policy *own_policy, *partner_policy;
	struct sockops_relay_end *partner;
	__u64 cookie = end->partner;

	if (!cookie || relay_node_mode() == SOCKOPS_MODE_OFF ||
	    relay_generation(end->relay) != end->generation)
		return 0;
	partner = bpf_map_lookup_elem(MAP(relay_ends), &cookie);
	if (!partner || partner->generation != end->generation)
		return 0;
	own_policy = relay_policy(end);
	partner_policy = relay_policy(partner);
	if (!own_policy || own_policy->mode == SOCKOPS_MODE_OFF || !partner_policy ||
	    partner_policy->mode == SOCKOPS_MODE_OFF)
		return 0;
	return partner;
}

#endif
