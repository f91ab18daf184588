/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the ipvs_bpf accelerator's programs and the node's Python package share:
 * map keys and values. module_utils/meshaccel/accelerators/ipvs_bpf/layout.py
 * declares the same structures and compares them with the object's BTF before
 * every load, so the two cannot drift apart unseen.
 *
 * Addresses and ports are in network order, IPv4 as v4-mapped IPv6 (RFC 4291,
 * 2.5.5.2), so one way serves both. Only the table of flows is two: half of what
 * a lookup costs is the length of its key.
 */
#ifndef MESHACCEL_IPVS_BPF_H
#define MESHACCEL_IPVS_BPF_H

#include <linux/bpf.h>
#include <linux/types.h>

#define IPVS_DEVICES 4096
#define IPVS_LOCAL_NETWORKS 1024
#define IPVS_SERVICES_DEFAULT 65536
#define IPVS_SESSIONS_DEFAULT 65536
/* A session has up to three flows: see enum ipvs_flow_kind. */
#define IPVS_FLOWS_PER_SESSION 3
/* Of those that end by themselves; they may be in the queue for a while longer. */
#define IPVS_AGEING_PER_SESSION 2
#define IPVS_FRAGMENTED 4096

enum ipvs_mode {
	/* Every packet passes untouched. */
	IPVS_MODE_OFF = 0,
	/* New flows are taken from conntrack. */
	IPVS_MODE_ON = 1,
	/* Sessions finish; new flows are conntrack's. */
	IPVS_MODE_DRAIN = 2,
	/* New flows are conntrack's and are noted as such, before ON: it leaves them alone. */
	IPVS_MODE_OBSERVE = 3,
};

/* One for the node. Seconds unless said otherwise. */
struct ipvs_control {
	__u32 mode;
	/* Two bits of the packet mark that nobody else uses: see marks.h. */
	__u32 mark_low;
	__u32 mark_high;
	/*
	 * Set beside ours, from ingress to egress, on replies and on masqueraded requests;
	 * 0: none. For FORWARD chains that drop what they do not know.
	 */
	__u32 mark_accepted;
	/* Every so often a packet of a flow on the fast path takes the slow one; 0: there is no fast path. */
	__u32 fast_path_seconds;
	/* A flow noted as conntrack's stays so while it is not quiet for so long. */
	__u32 legacy_seconds;
	/* How long a quiet session is kept. As IPVS's own: ipvsadm -l --timeout. */
	__u32 tcp_seconds;
	__u32 tcp_closing_seconds;
	__u32 tcp_closed_seconds;
	__u32 udp_seconds;
	__u64 object_digest;
};

struct ipvs_address {
	__u32 word[4];
};

/* A device towards backends, by its index: what replaces the client's address there. */
struct ipvs_device {
	/* All zero: none, and what would need it is dropped. */
	struct ipvs_address source_ipv4;
	struct ipvs_address source_ipv6;
	/* Host byte order, both ends inclusive. */
	__u16 first_port;
	__u16 last_port;
	__u32 reserved;
};

struct ipvs_service_key {
	struct ipvs_address address;
	__be16 port;
	__u8 protocol;
	__u8 reserved;
};

/* Whether the client's address is replaced (masquerade). A packet back to its own pod's is always. */
enum ipvs_masquerade {
	IPVS_MASQUERADE_NEVER = 1,
	IPVS_MASQUERADE_ALWAYS = 2,
	/* Unless the client is in a local network. */
	IPVS_MASQUERADE_REMOTE = 3,
};

struct ipvs_service {
	__u32 masquerade;
	__u32 reserved;
	/* So many since the service was written here. */
	__u64 sessions;
};

/* The length counts the bits of version and address, so no IPv6 network has IPv4 in it. */
struct ipvs_network {
	__u32 prefix_length;
	/* 4 or 6, in network order. */
	__u32 version;
	struct ipvs_address address;
};

/* Where a packet is seen. The same addresses and ports may be two different flows there. */
enum ipvs_point {
	IPVS_POINT_INGRESS = 1,
	IPVS_POINT_EGRESS = 2,
};

struct ipvs_flow_key {
	struct ipvs_address source;
	struct ipvs_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 point;
	__u16 reserved;
};

/* The same of IPv4, as the table of its flows has it. */
struct ipvs_flow_key_ipv4 {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 point;
	__u16 reserved;
};

enum ipvs_flow_kind {
	/* At ingress, client -> service. The session's owner: it ages, and takes the others along. */
	IPVS_FLOW_REQUEST = 1,
	/* At egress, client -> backend, after IPVS has chosen. */
	IPVS_FLOW_TRANSLATION = 2,
	/* At ingress, backend -> what the backend took for the client. */
	IPVS_FLOW_REPLY = 3,
	/* At ingress, client -> service: conntrack's. */
	IPVS_FLOW_LEGACY = 4,
	/* At ingress, backend -> an address and port of ours that conntrack has given away. */
	IPVS_FLOW_RESERVED = 5,
};

enum ipvs_flow_flag {
	/* The client's address is replaced. */
	IPVS_FLAG_MASQUERADED = 1,
	IPVS_FLAG_CLIENT_FINISHED = 2,
	IPVS_FLAG_BACKEND_FINISHED = 4,
	IPVS_FLAG_RESET = 8,
	/* Of a REQUEST and a REPLY: they know of each other, and the handshake was seen. */
	IPVS_FLAG_LINKED = 16,
	/* output_device, next_hop and mtu are known. */
	IPVS_FLAG_ROUTED = 32,
};

/*
 * One direction of a session at one point.
 *
 * Of a REQUEST and a REPLY, new_source and new_destination are what the packet
 * has become when it leaves the director. Of a TRANSLATION, new_source is what
 * the backend takes for the client, and new_destination the service.
 */
struct ipvs_flow {
	/* Nanoseconds, CLOCK_MONOTONIC's coarse one. */
	__u64 begun;
	__u64 last_seen;
	struct ipvs_address new_source;
	struct ipvs_address new_destination;
	__be16 new_source_port;
	__be16 new_destination_port;
	__u8 kind;
	__u8 reserved;
	/* The route's, in bytes. */
	__u16 mtu;
	/* Set and cleared in one step: packets of one session may be on two CPUs. */
	__u32 flags;
	/* When a packet last took the slow path, in units of 2^30 ns. */
	__u32 slow_second;
	__u32 output_device;
	struct ipvs_address next_hop;
};

/* That a flow is to be looked at, whether it is over: the one that began then, not a later one of its key. */
struct ipvs_ageing {
	struct ipvs_flow_key key;
	/* Nanoseconds, as those of a flow. */
	__u64 begun;
	__u64 due;
};

/* What the flows age by. */
struct ipvs_clock {
	struct bpf_timer timer;
	/* 0 on a kernel without bpf_timer: there the follow daemon ages. */
	__u32 runs;
	__u32 reserved;
};

/* Fragments behind the first carry no ports: what the first one's flow made of its destination. */
struct ipvs_fragment_key {
	struct ipvs_address source;
	struct ipvs_address destination;
	__u32 identification;
	__u32 protocol;
};

struct ipvs_fragment {
	struct ipvs_address new_destination;
	__u32 mark;
};

/* Per CPU. Every reason for which a flow is conntrack's, or a packet goes no further, has its own. */
struct ipvs_counters {
	__u64 sessions;
	__u64 sessions_ended;
	__u64 masqueraded;
	__u64 hairpins;
	/* Flows left to conntrack. */
	__u64 native_table_full;
	__u64 native_legacy;
	__u64 native_draining;
	/* A packet in the middle of a connection that is no session. */
	__u64 native_unknown;
	/* Ports: tries that found one in use, dead sessions' taken over, none found (the packet is dropped). */
	__u64 ports_in_use;
	__u64 ports_taken_over;
	__u64 ports_exhausted;
	__u64 ports_reserved;
	/* A native flow came with a session's addresses and ports; the session gave way, or could not. */
	__u64 sessions_replaced;
	__u64 sessions_clashed;
	/* Dropped: masqueraded, towards a device without an address for it. */
	__u64 dropped_no_address;
	__u64 dropped_rewrite_failed;
	__u64 errors_inward;
	__u64 errors_outward;
	__u64 fragments_inward;
	__u64 fragments_outward;
	__u64 fast_path_flows;
};

#endif
