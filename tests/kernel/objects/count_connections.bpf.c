// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What the tests of the modules bpf_program and bpf_map load. A test compiles
 * it with another VERSION to have another version of the same programs.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#ifndef VERSION
#define VERSION 1
#endif
#ifndef PORTS
#define PORTS 16
#endif

const volatile __u32 step = 1;

/* The object asks for a pin in the root of bpffs, which no test may get. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS);
	__type(key, __u16);
	__type(value, __u32);
} skipped_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} events SEC(".maps");

/* Used by no program that a test loads. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} unused SEC(".maps");

static void add(void *map, __u32 key, __u64 amount)
{
	__u64 *count = bpf_map_lookup_elem(map, &key);

	if (count)
		__sync_fetch_and_add(count, amount);
}

/* Counts, in the entry of its version, connections that a program of the cgroup opens. */
SEC("sockops")
int count_connections(struct bpf_sock_ops *context)
{
	__u16 port = context->local_port;

	add(&events, 0, 1);
	if (context->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		return 1;
	if (bpf_map_lookup_elem(&skipped_ports, &port))
		return 1;
	add(&connections, VERSION - 1, step);
	return 1;
}

SEC("cgroup_skb/egress")
int count_packets(struct __sk_buff *packet)
{
	add(&events, 0, packet->len ? 1 : 0);
	return 1;
}

SEC("socket")
int attaches_to_no_cgroup(struct __sk_buff *packet)
{
	return packet->len;
}

/* Reads where the verifier allows nobody: it must not be loaded with the others. */
SEC("socket")
int refused_by_the_verifier(struct __sk_buff *packet)
{
	__u32 key = packet->mark;
	__u64 *count = bpf_map_lookup_elem(&unused, &key);

	return *count;
}

char object_license[] SEC("license") = "GPL";
