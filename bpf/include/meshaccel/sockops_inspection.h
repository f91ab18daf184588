/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the inspection iterator writes for each TCP socket, read by
 * module_utils/meshaccel/accelerators/sockops/inspection/layout.py.
 */
#ifndef MESHACCEL_SOCKOPS_INSPECTION_H
#define MESHACCEL_SOCKOPS_INSPECTION_H

#include "sockops.h"

#include <linux/types.h>

#define SOCKOPS_PROTOCOL_NAME_BYTES 16

enum sockops_inspected_flag {
	SOCKOPS_INSPECTED_MULTIPATH = 1 << 0,
	SOCKOPS_INSPECTED_CORK = 1 << 1,
	SOCKOPS_INSPECTED_NO_DELAY = 1 << 2,
	SOCKOPS_INSPECTED_ZERO_COPY = 1 << 3,
	/* Urgent data was received and not read past, or was written and not acknowledged. */
	SOCKOPS_INSPECTED_URGENT = 1 << 4,
	SOCKOPS_INSPECTED_REPAIR = 1 << 5,
	/* In some sockmap or sockhash, whoever's. */
	SOCKOPS_INSPECTED_SOCKET_MAP = 1 << 6,
	/* `state` is what sockops remembers of this socket; else it is zero. */
	SOCKOPS_INSPECTED_STATE = 1 << 7,
};

/*
 * Addresses are in network order, IPv4 as v4-mapped IPv6; ports in host order.
 * Members named *_sequence are sequence numbers.
 */
struct sockops_inspected_socket {
	__u64 cookie;
	__u64 socket;
	__u64 cgroup_id;
	/* Of the socket's file; 0 for a socket that no program has open (any more, or yet). */
	__u64 inode;
	__u64 bytes_received;
	__u64 bytes_sent;
	__u32 network_namespace;
	__u32 family;
	__u32 tcp_state;
	__u32 flags;
	__u32 local_address[4];
	__u32 remote_address[4];
	__u32 local_port;
	__u32 remote_port;
	/* Of the first byte that is received; exact. */
	__u32 receive_sequence;
	/*
	 * Of the first byte that is sent, or, at the end that connected, one less:
	 * the kernel counts that end's SYN among the bytes acknowledged.
	 */
	__u32 send_base_sequence;
	__u32 next_receive_sequence;
	__u32 copied_sequence;
	__u32 write_sequence;
	__u32 unacknowledged_sequence;
	__s32 receive_memory;
	__s32 receive_low_water_mark;
	/* kTLS is "tls"; empty: none. */
	char upper_layer_protocol[SOCKOPS_PROTOCOL_NAME_BYTES];
	struct sockops_socket_state state;
};

#endif
