/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Denial: connections of some networks are to stay under what only packets
 * meet, such as iptables and conntrack, so they stay on TCP.
 */
#ifndef MESHACCEL_SOCKOPS_DENIAL_H
#define MESHACCEL_SOCKOPS_DENIAL_H

#include "view.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockops_denial);
} denial SEC(".maps");

/* A network's entry has the ports of the networks around it as well: the longest match is all. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, SOCKOPS_DENIED_NETWORKS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sockops_network);
	__type(value, struct sockops_denied_ports);
} denied_networks SEC(".maps");

/* Keeps connections off the look-ups where no network is denied. */
static __always_inline bool any_denied(void)
{
	__u32 zero = 0;
	struct sockops_denial *found = bpf_map_lookup_elem(MAP(denial), &zero);

	return found && found->networks;
}

/*
 * 4 or 6, of both ends. Without a branch, as either_port_in(): negating what is
 * zero for v4-mapped addresses alone tells them apart by its sign.
 */
static __always_inline __u32 ip_version(const struct connection_view *view)
{
	const __u32 *address = view->remote_address;
	__u64 prefix = address[0] | address[1] | (address[2] ^ bpf_htonl(0xffff));

	return 4 + 2 * (-prefix >> 63);
}

static __always_inline bool address_denied(const __u32 *address, __u32 version,
					   const struct connection_view *view)
{
	struct sockops_network key = {
		.prefix_length = 8 * (sizeof(key) - sizeof(key.prefix_length)),
		.version = version,
		.address = {address[0], address[1], address[2], address[3]},
	};
	struct sockops_denied_ports *ports = bpf_map_lookup_elem(MAP(denied_networks), &key);

	if (!ports)
		return false;
	return !ports->port_range_count ||
	       either_port_in(ports->port_ranges, ports->port_range_count, view->local_port,
			      view->remote_port);
}

static __always_inline bool view_denied(const struct connection_view *view)
{
	__u32 version = ip_version(view);

	return address_denied(view->local_address, version, view) ||
	       address_denied(view->remote_address, version, view);
}

/* Whether a connection is denied as this end sees it. */
static __always_inline bool socket_denied(__u64 socket)
{
	struct connection_view view;

	view_socket(&view, socket);
	return view_denied(&view);
}

static __always_inline bool peer_denied(const struct sockops_socket_state *state)
{
	__u64 peer = state->peer_socket;

	return peer && socket_denied(peer) && cookie_at(peer) == state->peer_cookie;
}

/*
 * A rule that is newer than the connection: its next messages go by TCP, and
 * the RTT callback takes it out of the hash. Without the socket's lock a message
 * may pair the two at this very moment, so the caller comes again.
 */
static __always_inline bool deny_one(struct sock *socket)
{
	struct sockops_socket_state *state;
	struct sockops_handshake own;

	state = bpf_sk_storage_get(MAP(socket_states), socket, 0, 0);
	if (!state ||
	    (state->status != SOCKOPS_STATUS_WAITING && state->status != SOCKOPS_STATUS_PAIRED))
		return false;
	/* Behind NAT only the other end may see the network. */
	if (!socket_denied(state->socket) && !peer_denied(state))
		return false;
	state->reason = SOCKOPS_REASON_DENIED;
	state->status = SOCKOPS_STATUS_LEAVING;
	own = state->handshake;
	bpf_map_delete_elem(MAP(ends), &own);
	return true;
}

#endif
