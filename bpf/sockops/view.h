/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A connection's addresses and ports as one of its ends sees them.
 */
#ifndef MESHACCEL_SOCKOPS_VIEW_H
#define MESHACCEL_SOCKOPS_VIEW_H

#include "maps.h"

#define AF_INET 2

/* IPv4 as v4-mapped IPv6, in network order; ports in host order. */
struct connection_view {
	__u32 local_address[4];
	__u32 remote_address[4];
	__u32 local_port;
	__u32 remote_port;
};

static __always_inline void map_ipv4(__u32 *address, __u32 ipv4)
{
	address[0] = 0;
	address[1] = 0;
	address[2] = bpf_htonl(0xffff);
	address[3] = ipv4;
}

static __always_inline void view_context(struct connection_view *view, struct bpf_sock_ops *context)
{
	view->local_port = CONTEXT(local_port);
	view->remote_port = bpf_ntohl(CONTEXT(remote_port));
	if (context->family == AF_INET) {
		map_ipv4(view->local_address, CONTEXT(local_ip4));
		map_ipv4(view->remote_address, CONTEXT(remote_ip4));
		return;
	}
	view->local_address[0] = CONTEXT(local_ip6[0]);
	view->local_address[1] = CONTEXT(local_ip6[1]);
	view->local_address[2] = CONTEXT(local_ip6[2]);
	view->local_address[3] = CONTEXT(local_ip6[3]);
	view->remote_address[0] = CONTEXT(remote_ip6[0]);
	view->remote_address[1] = CONTEXT(remote_ip6[1]);
	view->remote_address[2] = CONTEXT(remote_ip6[2]);
	view->remote_address[3] = CONTEXT(remote_ip6[3]);
}

/* The address may be stale: see look_at() in message.h. */
static __always_inline void view_socket(struct connection_view *view, __u64 socket)
{
	struct sock *sock = (struct sock *)socket;

	view->local_port = BPF_CORE_READ(sock, __sk_common.skc_num);
	view->remote_port = bpf_ntohs(BPF_CORE_READ(sock, __sk_common.skc_dport));
	if (BPF_CORE_READ(sock, __sk_common.skc_family) == AF_INET) {
		map_ipv4(view->local_address, BPF_CORE_READ(sock, __sk_common.skc_rcv_saddr));
		map_ipv4(view->remote_address, BPF_CORE_READ(sock, __sk_common.skc_daddr));
		return;
	}
	BPF_CORE_READ_INTO(&view->local_address, sock, __sk_common.skc_v6_rcv_saddr);
	BPF_CORE_READ_INTO(&view->remote_address, sock, __sk_common.skc_v6_daddr);
}

#endif
