/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What is switched: the node, and each opted-in cgroup by its policy. Relays are
 * given the same maps when they are loaded, so one write holds for both.
 */
#ifndef MESHACCEL_SOCKOPS_SWITCHES_H
#define MESHACCEL_SOCKOPS_SWITCHES_H

#include "meshaccel/kernel.h"
#include "meshaccel/sockops.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockops_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKOPS_POLICIES);
	__type(key, __u32);
	__type(value, struct sockops_policy);
} policies SEC(".maps");

/* Keyed by the cgroup the program is attached to: its policy's index. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, __u32);
} cgroup_policies SEC(".maps");

static __always_inline struct sockops_control *node_control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(MAP(control), &zero);
}

#endif
