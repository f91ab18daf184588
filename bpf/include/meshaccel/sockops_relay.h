/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the relay's programs and the node's Python package share: map keys and
 * values. module_utils/meshaccel/accelerators/sockops/relays/layout.py declares
 * the same structures and compares them with the object's BTF before every load.
 */
#ifndef MESHACCEL_SOCKOPS_RELAY_H
#define MESHACCEL_SOCKOPS_RELAY_H

#include <linux/bpf.h>
#include <linux/types.h>

#define SOCKOPS_RELAYS 16
/* Connections of one side that may wait for the other side's. */
#define SOCKOPS_RELAY_QUEUE 256

enum sockops_relay_side {
	SOCKOPS_RELAY_FROM = 0,
	SOCKOPS_RELAY_TO = 1,
	SOCKOPS_RELAY_SIDES = 2,
};

/* A server's address: IPv4 as v4-mapped IPv6, in network order; the port in host order. */
struct sockops_relay_address {
	__u32 address[4];
	__u32 port;
};

/* Which relay's server an address is. */
struct sockops_relay_place {
	__u32 relay;
	__u32 side;
};

/* The version of the running object. */
struct sockops_relay_version {
	__u64 object_digest;
};

/*
 * One per relay. The generation is 0 while the index is free and never used
 * twice: a connection that was accepted for another relay knows it is not meant.
 */
struct sockops_relay_setting {
	__u64 generation;
};

/*
 * Connections of one side that wait for the other side's, first come first.
 * Only one side can have any: the other's would have been joined with them.
 */
struct sockops_relay_queue {
	struct bpf_spin_lock lock;
	__u32 count;
	__u32 side;
	__u32 place;
	__u64 generation;
	__u64 waiting[SOCKOPS_RELAY_QUEUE];
};

/* What is known of one accepted connection, under its socket's cookie. */
struct sockops_relay_end {
	__u64 socket;
	/* Cookie of the connection it is joined with; 0: of none. */
	__u64 partner;
	__u64 generation;
	__u64 cgroup_id;
	__u32 relay;
	__u32 side;
	__u32 policy;
	/* Bytes given to the partner since its queue was last seen empty. */
	__u32 given_bytes;
	/* The partner's write_seq when its queue was last seen empty. */
	__u32 sent_before;
	/* Sequence number of the next byte that this end's program has not seen. */
	__u32 next_sequence;
	/* Bytes before this one came before the server accepted: they are the server's. */
	__u32 early_until;
	/* The server was seen to have accepted it. */
	__u32 accepted;
	/* Bytes were joined, or looked at to be: no more is asked of the server's reader. */
	__u32 settled;
	/* Bytes that came twice could not be cut off: nothing more may arrive. */
	__u32 broken;
	/* When an acknowledgement was last let go over the limit; nanoseconds since boot. */
	__u64 acknowledged;
};

/* Per relay and CPU. Arrays: by the side of the server at which a connection or a byte arrived. */
struct sockops_relay_counters {
	__u64 connections[SOCKOPS_RELAY_SIDES];
	__u64 joined_bytes[SOCKOPS_RELAY_SIDES];
	__u64 own_bytes[SOCKOPS_RELAY_SIDES];
	__u64 connections_joined;
	__u64 connections_parted;
	__u64 skipped_mode;
	__u64 skipped_multipath;
	__u64 skipped_table_full;
	__u64 skipped_queue_full;
	__u64 skipped_blocking_reader;
	__u64 acknowledgements_held;
	__u64 packets_dropped;
	__u64 repeated_bytes;
	__u64 connections_broken;
};

#endif
