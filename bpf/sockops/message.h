/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Messages: is this one next in order, and has the reader room? Then it goes
 * to the peer's socket, else by TCP.
 */
#ifndef MESHACCEL_SOCKOPS_MESSAGE_H
#define MESHACCEL_SOCKOPS_MESSAGE_H

#include "maps.h"

#include <bpf/bpf_core_read.h>

/* sizeof(struct sk_msg), rounded up to its slab. */
#define MESSAGE_DESCRIPTION_BYTES 1024

/* Set before the load: whether the verifier takes bpf_rdonly_cast (6.2 on). */
const volatile __u32 use_readonly_cast = 0;

extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym __weak;

/* What the sender gave to TCP so far: the sequence number after it, and whether anything at all. */
struct sender_view {
	__u32 write_sequence;
	bool nothing_sent;
};

/* The cast saves a helper call, an eighth of the whole cost of a message. */
static __always_inline bool look_at_sender(struct bpf_sock *sender, __u32 first_sequence,
					   struct sender_view *view)
{
	struct tcp_sock *tcp;

	if (use_readonly_cast)
		tcp = bpf_rdonly_cast(sender, bpf_core_type_id_kernel(struct tcp_sock));
	else
		tcp = bpf_skc_to_tcp_sock(sender);
	if (!tcp)
		return false;
	view->write_sequence = tcp->write_seq;
	/* Sequence numbers come round after 4 GiB; the count of bytes does not. */
	view->nothing_sent = view->write_sequence == first_sequence && tcp->bytes_sent == 0;
	return true;
}

/* The three members of the peer's socket that a decision needs. */
struct peer_view {
	__u64 cookie;
	__u32 copied_sequence;
	int receive_memory;
};

/*
 * The pointer may be stale: the socket may be gone and its memory be another
 * socket's. Both ways of reading survive that, and the cookie, read last,
 * tells whose values these were.
 */
static __always_inline struct peer_view look_at(__u64 socket)
{
	struct tcp_sock *peer = (struct tcp_sock *)socket;
	struct peer_view view;

	if (use_readonly_cast) {
		peer = bpf_rdonly_cast(peer, bpf_core_type_id_kernel(struct tcp_sock));
		view.copied_sequence = peer->copied_seq;
		view.receive_memory = peer->inet_conn.icsk_inet.sk.sk_backlog.rmem_alloc.counter;
		barrier();
		view.cookie = peer->inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter;
		return view;
	}
	view.copied_sequence = BPF_CORE_READ(peer, copied_seq);
	view.receive_memory =
		BPF_CORE_READ(peer, inet_conn.icsk_inet.sk.sk_backlog.rmem_alloc.counter);
	barrier();
	view.cookie = BPF_CORE_READ(peer, inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter);
	return view;
}

static __always_inline bool find_peer(struct sockops_socket_state *state)
{
	struct sockops_end *peer;

	if (state->peer_socket)
		return true;
	peer = bpf_map_lookup_elem(&ends, &state->peer_key.handshake);
	if (!peer)
		return false;
	state->peer_cookie = peer->cookie;
	state->peer_policy = peer->policy;
	state->peer_socket = peer->socket;
	return true;
}

static __always_inline bool switched_on(const struct sockops_control *node,
					const struct sockops_policy *own,
					const struct sockops_policy *peer)
{
	return node->mode != SOCKOPS_MODE_OFF && own->mode != SOCKOPS_MODE_OFF &&
	       peer->mode != SOCKOPS_MODE_OFF;
}

/*
 * The kernel charges a queued message's payload to the receiver, but not the
 * kilobyte that describes it, so their number is bounded as well. It is
 * estimated from what waits unread and the mean size of what was sent of late.
 */
static __always_inline bool has_room(struct sockops_socket_state *state, int receive_memory,
				     __u32 size, __u32 limit)
{
	__u32 most = limit / MESSAGE_DESCRIPTION_BYTES;
	__u64 waiting;

	if (receive_memory <= 0) {
		state->recent_messages = 0;
		state->recent_bytes = 0;
		return true;
	}
	if ((__u64)receive_memory + size > limit)
		return false;
	if (state->recent_messages < most || state->recent_bytes == 0)
		return true;
	waiting = (__u64)receive_memory * state->recent_messages / state->recent_bytes;
	if (state->recent_messages >= 2 * most) {
		state->recent_messages /= 2;
		state->recent_bytes /= 2;
	}
	return waiting < most;
}

/* Returns whether the message was handed to the peer's socket. */
static __always_inline bool redirect(struct sk_msg_md *message, __u32 size,
				     struct sockops_socket_state *state,
				     struct sockops_counters *count)
{
	struct sockops_control *node = node_control();
	struct sockops_policy *own_policy, *peer_policy;
	struct peer_view peer;
	struct sender_view sender;
	__u32 index = state->policy;

	if (!node || !look_at_sender(message->sk, state->key.handshake.send_sequence, &sender))
		return false;
	if (!find_peer(state)) {
		count->tcp_messages_no_peer++;
		return false;
	}
	own_policy = bpf_map_lookup_elem(&policies, &index);
	index = state->peer_policy;
	peer_policy = bpf_map_lookup_elem(&policies, &index);
	if (!own_policy || !peer_policy || !switched_on(node, own_policy, peer_policy)) {
		count->tcp_messages_mode++;
		return false;
	}
	peer = look_at(state->peer_socket);
	if (peer.cookie != state->peer_cookie) {
		count->tcp_messages_peer_gone++;
		return false;
	}
	/* In order only if nothing ever went by TCP, or all that did is read. */
	if (!sender.nothing_sent && sender.write_sequence != peer.copied_sequence) {
		count->tcp_messages_order++;
		return false;
	}
	/* The reader is behind: TCP's window then slows the writer down. */
	if (!has_room(state, peer.receive_memory, size, peer_policy->receive_memory_limit)) {
		count->tcp_messages_memory++;
		return false;
	}
	if (bpf_msg_redirect_hash(message, &sockets, &state->peer_key, BPF_F_INGRESS) != SK_PASS) {
		count->tcp_messages_peer_gone++;
		return false;
	}
	state->recent_messages++;
	state->recent_bytes += size;
	return true;
}

#endif
