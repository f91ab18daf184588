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
#define SOCKOPS_DENIED_NETWORKS 65536

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
 * A network that may be denied: IPv4 as v4-mapped IPv6, in network order. The
 * length counts the bits of version and address, so no IPv6 network has IPv4 in it.
 */
struct sockops_network {
	__u32 prefix_length;
	__u32 version;
	__u32 address[4];
};

/* The ports that are denied in a network, either end's; count 0 means every port. */
struct sockops_denied_ports {
	__u32 port_range_count;
	struct sockops_port_range port_ranges[SOCKOPS_PORT_RANGES];
};

/* How many networks are denied. */
struct sockops_denial {
	__u32 networks;
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
 * What an end publishes for its peer, under its handshake, until the peer has
 * found it. The client's address (IPv4 as v4-mapped IPv6) and port are as this
 * end sees them.
 */
struct sockops_end {
	__u64 socket;
	__u64 cookie;
	__u32 client_address[4];
	__u32 client_port;
	__u32 policy;
	__u32 port_matched;
	/* See slots.h. */
	__u32 slot;
};

/* How far a socket is; from WAITING to LEAVING it is in the socket hash. */
enum sockops_status {
	/* By TCP alone; why is in `reason`. */
	SOCKOPS_STATUS_PLAIN = 0,
	/* The peer is not known yet. */
	SOCKOPS_STATUS_WAITING = 1,
	/* Messages may be redirected to the peer. */
	SOCKOPS_STATUS_PAIRED = 2,
	/* Adopted: a thread may still wait for TCP's bytes alone at the peer. */
	SOCKOPS_STATUS_ADOPTED = 3,
	/* On its way back to TCP alone, once nothing is under way. */
	SOCKOPS_STATUS_LEAVING = 4,
};

/* Why a socket is on TCP alone, or on its way there. */
enum sockops_reason {
	SOCKOPS_REASON_NONE = 0,
	SOCKOPS_REASON_MODE = 1,
	SOCKOPS_REASON_MULTIPATH = 2,
	SOCKOPS_REASON_PORT = 3,
	SOCKOPS_REASON_TABLE_FULL = 4,
	SOCKOPS_REASON_DUPLICATE = 5,
	SOCKOPS_REASON_OTHER = 6,
	SOCKOPS_REASON_NO_PEER = 7,
	SOCKOPS_REASON_STREAM = 8,
	SOCKOPS_REASON_PEER_LEFT = 9,
	SOCKOPS_REASON_RELEASED = 10,
	SOCKOPS_REASON_DENIED = 11,
	SOCKOPS_REASON_RELAY = 12,
	/* A thread slept in TCP's own calls for longer than an adoption waits. */
	SOCKOPS_REASON_NOT_ADOPTED = 13,
};

/* Why the last message went by TCP. */
enum sockops_message_reason {
	SOCKOPS_MESSAGE_REDIRECTED = 0,
	SOCKOPS_MESSAGE_MODE = 1,
	SOCKOPS_MESSAGE_NO_PEER = 2,
	SOCKOPS_MESSAGE_ORDER = 3,
	SOCKOPS_MESSAGE_MEMORY = 4,
	SOCKOPS_MESSAGE_PEER_GONE = 5,
	SOCKOPS_MESSAGE_LEAVING = 6,
	SOCKOPS_MESSAGE_ADOPTION = 7,
	/* Neither way: it failed, since the peer was closed while it was on its way there. */
	SOCKOPS_MESSAGE_REFUSED = 8,
};

/* What a socket remembers; lives and dies with the socket. A socket's key in the hash is its cookie. */
struct sockops_socket_state {
	__u64 peer_socket;
	__u64 peer_cookie;
	__u32 status;
	__u32 policy;
	__u32 peer_policy;
	/* Redirected since the peer's queue was last seen empty, both halved now and then. */
	__u32 recent_messages;
	__u64 recent_bytes;
	/* How much of late the reader was behind: see stream.h. */
	__u32 stream_score;
	__u32 reason;
	__u64 redirected_bytes;
	__u64 tcp_bytes;
	struct sockops_handshake handshake;
	__u64 socket;
	__u64 cookie;
	/* Out of order by TCP since a stretch began, and redirected_bytes at its beginning: stream.h. */
	__u64 stretch_tcp_bytes;
	__u64 stretch_redirected_bytes;
	__u32 last_message;
	/* Whether acknowledgements are told, so that the socket can be handed back. */
	__u32 has_callbacks;
	/* Its own and its peer's slot, from 1; 0: none. See slots.h. */
	__u32 slot;
	__u32 peer_slot;
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
	__u64 skipped_denied;
	__u64 skipped_other;
	__u64 redirected_messages;
	__u64 redirected_bytes;
	__u64 tcp_bytes;
	__u64 tcp_messages_mode;
	__u64 tcp_messages_no_peer;
	__u64 tcp_messages_order;
	__u64 tcp_messages_memory;
	__u64 tcp_messages_peer_gone;
	__u64 tcp_messages_leaving;
	__u64 tcp_messages_adoption;
	__u64 sockets_handed_back;
};

/* One record per socket that the release iterator met. */
enum sockops_release_outcome {
	SOCKOPS_RELEASE_DONE = 1,
	SOCKOPS_RELEASE_QUEUE_NOT_EMPTY = 2,
	SOCKOPS_RELEASE_KEPT = 3,
};

#endif
