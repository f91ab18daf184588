/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The partner's socket, read where it is: can it take bytes, and how many that
 * it was given does it still hold?
 */
#ifndef MESHACCEL_RELAY_PARTNER_H
#define MESHACCEL_RELAY_PARTNER_H

#include "maps.h"

/* A kernel pointer in sk_user_data carries flags in its low bits. */
#define RELAY_USER_DATA_IS_PSOCK 4UL
#define RELAY_USER_DATA_FLAGS 7UL
/* Bit of sk_psock.state; the kernel clears it when it can send no more. */
#define RELAY_PSOCK_CAN_SEND 1UL
/* What the kernel spends on a waiting packet beside its bytes, at least. */
#define RELAY_PACKET_DESCRIPTION_BYTES 768

/* How the kernel wakes who blocks in recv() or send(); who polls is woken in other ways. */
DECLARE_KERNEL_SYMBOL(woken_wake_function);

/* More wait at one socket than these only if a program has many threads or polls there. */
#define RELAY_WAITERS 8

/*
 * Returns whether a thread blocks in this socket. One that blocks in recv()
 * would be woken by every joined packet, to find nothing (EAGAIN).
 */
static __always_inline bool relay_blocks(__u64 socket)
{
	struct socket_wq *queue = BPF_CORE_READ((struct sock *)socket, sk_wq);
	void *head = (void *)queue + bpf_core_field_offset(struct socket_wq, wait.head);
	struct list_head *entry = BPF_CORE_READ(queue, wait.head.next);

	for (int i = 0; i < RELAY_WAITERS && entry && entry != head; i++) {
		struct wait_queue_entry *waiter =
			(void *)entry - bpf_core_field_offset(struct wait_queue_entry, entry);

		if (BPF_CORE_READ(waiter, func) == KERNEL_SYMBOL(woken_wake_function))
			return true;
		entry = BPF_CORE_READ(waiter, entry.next);
	}
	return false;
}

static __always_inline bool relay_is_accepted(__u64 socket)
{
	return BPF_CORE_READ((struct sock *)socket, sk_socket);
}

struct relay_view {
	__u32 waiting_packets;
	__u32 write_sequence;
};

/*
 * Returns whether the partner can be sent to: its server has accepted it and
 * not closed it, and no sending has failed. The pointer may be stale; the
 * cookie, read last, tells whose values these were.
 */
static __always_inline bool relay_look_at(const struct sockops_relay_end *partner, __u64 cookie,
					  struct relay_view *view)
{
	struct tcp_sock *tcp = (struct tcp_sock *)partner->socket;
	struct sk_psock *psock;
	__u64 user_data, cookie_there;
	unsigned long state;
	bool accepted;

	user_data = (__u64)BPF_CORE_READ(tcp, inet_conn.icsk_inet.sk.sk_user_data);
	if (!(user_data & RELAY_USER_DATA_IS_PSOCK))
		return false;
	psock = (struct sk_psock *)(user_data & ~RELAY_USER_DATA_FLAGS);
	view->waiting_packets = BPF_CORE_READ(psock, ingress_skb.qlen);
	state = BPF_CORE_READ(psock, state);
	accepted = relay_is_accepted(partner->socket);
	view->write_sequence = BPF_CORE_READ(tcp, write_seq);
	barrier();
	cookie_there = BPF_CORE_READ(tcp, inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter);
	return cookie_there == cookie && accepted && state & RELAY_PSOCK_CAN_SEND;
}

/*
 * Bytes given to the partner that its TCP has not taken yet, by what it wrote
 * since its queue was last empty. Its own server may write as well; then this
 * is too low until the queue is empty again.
 */
static __always_inline __u32 relay_backlog(const struct sockops_relay_end *end,
					   const struct relay_view *view)
{
	__u32 sent = view->write_sequence - end->sent_before;
	__u32 waiting = end->given_bytes - sent;

	return !view->waiting_packets || (__s32)waiting < 0 ? 0 : waiting;
}

#endif
