/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the sockops accelerator's programs and the node's Python package share:
 * map keys and values. module_utils/meshaccel/accelerators/sockops/layout.py
 * declares the same structures and compares them with the object's BTF before
 * every load, so the two cannot drift apart unseen.
 */
#ifndef MESHACCEL_SOCKOPS_H
#define MESHACCEL_SOCKOPS_H

#include <linux/types.h>

/* Index 0 is never handed out: a cgroup whose storage was not written yet. */
#define SOCKOPS_POLICIES 256
#define SOCKOPS_PORT_RANGES 16

enum sockops_mode {
	SOCKOPS_MODE_OFF = 0,
	SOCKOPS_MODE_ON = 1,
	SOCKOPS_MODE_DRAIN = 2,
};

/* One for the node; the kill switch is one write to `mode`. */
struct sockops_control {
	__u32 mode;
	__u32 reserved;
	__u64 object_digest;
};

struct sockops_port_range {
	__u16 first;
	__u16 last;
};

/* One per opted-in cgroup. port_range_count 0 means every port. */
struct sockops_policy {
	__u64 cgroup_id;
	__u32 mode;
	__u32 receive_memory_limit;
	__u32 port_range_count;
	__u32 reserved;
	struct sockops_port_range port_ranges[SOCKOPS_PORT_RANGES];
};

/*
 * A TCP connection as one end sees it: the sequence numbers of the first byte
 * it will receive and of the first byte it will send. NAT and REDIRECT leave
 * both alone, so the other end's handshake is this one with the two swapped.
 */
struct sockops_handshake {
	__u32 receive_sequence;
	__u32 send_sequence;
};

/*
 * Where an end stands in the socket hash. The client's address (IPv4 as
 * v4-mapped IPv6) and port are those the client itself sees; the passive end
 * learns them from the client's published end, so both ends compute the same
 * key also behind SNAT.
 */
struct sockops_socket_key {
	struct sockops_handshake handshake;
	__u32 client_address[4];
	__u32 client_port;
};

/* What an end publishes for its peer, under its handshake. */
struct sockops_end {
	__u64 socket;
	__u64 cookie;
	__u32 client_address[4];
	__u32 client_port;
	__u32 policy;
	__u32 port_matched;
	__u32 paired;
};

/* What a socket remembers; lives and dies with the socket. */
struct sockops_socket_state {
	struct sockops_socket_key key;
	struct sockops_socket_key peer_key;
	__u32 policy;
	__u32 peer_policy;
	__u32 tracked;
	/* Redirected since the peer's queue was last seen empty, both halved now and then. */
	__u32 recent_messages;
	__u64 recent_bytes;
	__u64 peer_socket;
	__u64 peer_cookie;
};

/* Per policy and CPU. Every reason to stay on TCP has its own counter. */
struct sockops_counters {
	__u64 connections_paired;
	__u64 connections_translated;
	__u64 sockets_inserted;
	__u64 sockets_evicted;
	__u64 skipped_mode;
	__u64 skipped_port;
	__u64 skipped_no_waiting_peer;
	__u64 skipped_multipath;
	__u64 skipped_table_full;
	__u64 skipped_duplicate;
	__u64 skipped_other;
	__u64 redirected_messages;
	__u64 redirected_bytes;
	__u64 tcp_bytes;
	__u64 tcp_messages_mode;
	__u64 tcp_messages_no_peer;
	__u64 tcp_messages_order;
	__u64 tcp_messages_memory;
	__u64 tcp_messages_peer_gone;
};

/* One record per socket that the release iterator met. */
enum sockops_release_outcome {
	SOCKOPS_RELEASE_DONE = 1,
	SOCKOPS_RELEASE_QUEUE_NOT_EMPTY = 2,
	SOCKOPS_RELEASE_KEPT = 3,
};

#endif
