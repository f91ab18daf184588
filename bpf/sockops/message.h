/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Messages: is this one next in order, and has the reader room? Then it goes
 * to the peer's socket, else by TCP.
 */
#ifndef MESHACCEL_SOCKOPS_MESSAGE_H
#define MESHACCEL_SOCKOPS_MESSAGE_H

#include "pairing.h"
#include "reading.h"
#include "stream.h"

/* sizeof(struct sk_msg), rounded up to its slab. */
#define MESSAGE_DESCRIPTION_BYTES 1024

/* Of sk_memcg's low bits (6.18 on). */
#define MEMORY_CGROUP_FLAGS 7UL
/* Levels of cgroups that are looked at, from the reader's own upwards. */
#define MEMORY_CGROUP_LEVELS 8
/* The kernel charges so many pages at once (MEMCG_CHARGE_BATCH). */
#define CHARGE_BATCH_PAGES 64
#define PAGE_SHIFT 12

/* The cast saves a helper call, an eighth of the whole cost of a message. */
static __always_inline struct tcp_sock *tcp_of(struct sk_msg_md *message)
{
	return use_casts ? CAST(tcp_sock, message->sk) : TCP_OF_MESSAGE(message);
}

/* The members of the peer's socket that a decision needs. */
struct peer_view {
	__u64 cookie;
	__u32 copied_sequence;
	int receive_memory;
	__u8 callback_flags;
	bool in_socket_map;
};

/*
 * The pointer may be stale: the socket may be gone and its memory be another
 * socket's. Both ways of reading survive that, and the cookie, read last,
 * tells whose values these were.
 */
static __always_inline struct peer_view look_at(__u64 socket)
{
	struct peer_view view;

	view.copied_sequence = READ(tcp_sock, socket, copied_seq);
	view.receive_memory = READ(sock, socket, sk_backlog.rmem_alloc.counter);
	view.callback_flags = READ(tcp_sock, socket, bpf_sock_ops_cb_flags);
	/* Asked where slots are used: once it has left, its slot may be another's. */
	view.in_socket_map = !use_casts || READ(sock, socket, sk_user_data);
	barrier();
	view.cookie = READ(sock, socket, __sk_common.skc_cookie.counter);
	return view;
}

/* In order only if nothing ever went by TCP, or the peer has read all that did. */
static __always_inline bool next_in_order(const struct tcp_sock *sender,
					  const struct sockops_socket_state *state,
					  const struct peer_view *peer)
{
	__u32 write_sequence = OWN(sender, write_seq);

	if (write_sequence == peer->copied_sequence)
		return true;
	/* Sequence numbers come round after 4 GiB; the count of bytes does not. */
	return write_sequence == state->handshake.send_sequence && OWN(sender, bytes_sent) == 0;
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

/*
 * The kernel charges a redirected message to the reader's memory cgroup, and
 * fails the writer with ENOMEM when that is full; TCP makes it wait instead.
 */
static __always_inline bool may_charge(__u64 socket, __u32 size)
{
	int available = READ(sock, socket, sk_forward_alloc);
	__u64 group, counter, pages;

	if (!HAS_MEMORY_CGROUPS || !READ(sock, socket, sk_memcg) || (int)size <= available)
		return true;
	group = (__u64)BPF_CORE_READ((struct sock *)socket, sk_memcg) & ~MEMORY_CGROUP_FLAGS;
	pages = ((size - available) >> PAGE_SHIFT) + 1 + CHARGE_BATCH_PAGES;
	counter = SOCKET_MEMORY_COUNTER(group);
	if (!counter)
		counter = group + bpf_core_field_offset(struct mem_cgroup, memory);
	for (__u32 level = 0; counter && level < MEMORY_CGROUP_LEVELS; level++) {
		if (READ(page_counter, counter, usage.counter) + pages >
		    READ(page_counter, counter, max))
			return false;
		counter = (__u64)READ(page_counter, counter, parent);
	}
	return true;
}

/* From here on by TCP; the RTT callback takes the socket out of the hash. */
static __always_inline __u32 leave(struct sockops_socket_state *state, __u32 reason)
{
	state->status = SOCKOPS_STATUS_LEAVING;
	state->reason = reason;
	return SOCKOPS_MESSAGE_LEAVING;
}

/* The cookie of the socket that the kernel is to hand the message to. */
static __always_inline __u64 named_cookie(struct sk_msg_md *message)
{
	struct sk_msg *kernel_message = bpf_cast_to_kern_ctx(message);

	return kernel_message->sk_redir->__sk_common.skc_cookie.counter;
}

/*
 * Names the peer's socket to the kernel: by its slot, and if that is another
 * socket's by now, by its cookie. A socket that was named cannot be unnamed, so a
 * message whose peer left the hash within this call must not pass at all.
 */
static __always_inline __u32 hand_over(struct sk_msg_md *message,
				       const struct sockops_socket_state *state)
{
	__u64 peer_key = state->peer_cookie;
	__u32 slot = state->peer_slot;
	bool misnamed = false;

	if (use_casts && slot &&
	    bpf_msg_redirect_map(message, MAP(socket_slots), slot - 1, BPF_F_INGRESS) == SK_PASS) {
		if (named_cookie(message) == peer_key)
			return SOCKOPS_MESSAGE_REDIRECTED;
		misnamed = true;
	}
	if (bpf_msg_redirect_hash(message, MAP(sockets), &peer_key, BPF_F_INGRESS) == SK_PASS)
		return SOCKOPS_MESSAGE_REDIRECTED;
	return misnamed ? SOCKOPS_MESSAGE_REFUSED : SOCKOPS_MESSAGE_PEER_GONE;
}

/* Hands the message to the peer's socket, or returns why it does not go there. */
static __always_inline __u32 redirect(struct sk_msg_md *message, __u32 size,
				      struct sockops_socket_state *state)
{
	struct sockops_control *node = node_control();
	struct tcp_sock *sender = tcp_of(message);
	struct sockops_policy *own_policy, *peer_policy;
	__u32 index = state->policy;
	struct peer_view peer;
	__u32 way;

	own_policy = bpf_map_lookup_elem(MAP(policies), &index);
	index = state->peer_policy;
	peer_policy = bpf_map_lookup_elem(MAP(policies), &index);
	if (!node || !sender || !own_policy || !peer_policy ||
	    !switched_on(node, own_policy, peer_policy))
		return SOCKOPS_MESSAGE_MODE;
	peer = look_at(state->peer_socket);
	if (peer.cookie != state->peer_cookie || !peer.in_socket_map)
		return SOCKOPS_MESSAGE_PEER_GONE;
	if (peer.callback_flags & LEAVING_CALLBACK_FLAG)
		return leave(state, SOCKOPS_REASON_PEER_LEFT);
	if (!next_in_order(sender, state, &peer)) {
		if (mostly_by_tcp(state, size))
			return leave(state, SOCKOPS_REASON_STREAM);
		return SOCKOPS_MESSAGE_ORDER;
	}
	if (is_stream(state, sender, peer.receive_memory, size))
		return leave(state, SOCKOPS_REASON_STREAM);
	/* The reader is behind: TCP's window then slows the writer down. */
	if (!has_room(state, peer.receive_memory, size, peer_policy->receive_memory_limit))
		return SOCKOPS_MESSAGE_MEMORY;
	if (!may_charge(state->peer_socket, size))
		return SOCKOPS_MESSAGE_MEMORY;
	way = hand_over(message, state);
	if (way == SOCKOPS_MESSAGE_REDIRECTED) {
		state->recent_messages++;
		state->recent_bytes += size;
	}
	return way;
}

/* The way of a message, as enum sockops_message_reason. */
static __always_inline __u32 forward(struct sk_msg_md *message, __u32 size,
				     struct sockops_socket_state *state)
{
	if (state->status == SOCKOPS_STATUS_WAITING && !find_peer(state))
		return SOCKOPS_MESSAGE_NO_PEER;
	if (state->status == SOCKOPS_STATUS_PAIRED)
		return redirect(message, size, state);
	if (state->status == SOCKOPS_STATUS_ADOPTED)
		return SOCKOPS_MESSAGE_ADOPTION;
	return SOCKOPS_MESSAGE_LEAVING;
}

static __always_inline void account(struct sockops_counters *count,
				    struct sockops_socket_state *state, __u32 way, __u32 size)
{
	state->last_message = way;
	if (way == SOCKOPS_MESSAGE_REDIRECTED) {
		state->redirected_bytes += size;
		count->redirected_messages++;
		count->redirected_bytes += size;
		return;
	}
	if (way == SOCKOPS_MESSAGE_REFUSED)
		return;
	state->tcp_bytes += size;
	count->tcp_bytes += size;
	switch (way) {
	case SOCKOPS_MESSAGE_MODE:
		count->tcp_messages_mode++;
		break;
	case SOCKOPS_MESSAGE_NO_PEER:
		count->tcp_messages_no_peer++;
		break;
	case SOCKOPS_MESSAGE_ORDER:
		count->tcp_messages_order++;
		break;
	case SOCKOPS_MESSAGE_MEMORY:
		count->tcp_messages_memory++;
		break;
	case SOCKOPS_MESSAGE_PEER_GONE:
		count->tcp_messages_peer_gone++;
		break;
	case SOCKOPS_MESSAGE_ADOPTION:
		count->tcp_messages_adoption++;
		break;
	default:
		count->tcp_messages_leaving++;
	}
}

#endif
