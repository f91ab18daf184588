/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Threads inside the kernel's calls on a socket: how many, and how many asleep.
 */
#ifndef MESHACCEL_SOCKOPS_THREADS_H
#define MESHACCEL_SOCKOPS_THREADS_H

#include "maps.h"

/* More wait queue entries than this are not looked through. */
#define QUEUE_LIMIT 32
#define TOO_MANY_SLEEPERS (~0U)

/*
 * The function of a wait queue entry of a thread that sleeps in a socket call. A
 * kernel that does not tell its symbols has no sleepers as far as this goes.
 */
DECLARE_KERNEL_SYMBOL(woken_wake_function);

/* Socket maps that a socket is in: the hash, its slot, and perhaps another's. */
#define SOCKET_MAPS_LIMIT 8

/*
 * Each thread in sockmap's sending or receiving holds a reference, beside one for
 * each map. A map that is just coming or going counts as a thread for a moment.
 */
static __always_inline __u32 threads_inside(const struct sk_psock *psock)
{
	struct list_head *head = (void *)psock + bpf_core_field_offset(struct sk_psock, link);
	struct list_head *at = BPF_CORE_READ(psock, link.next);
	__u32 references = BPF_CORE_READ(psock, refcnt.refs.counter);

	for (__u32 i = 0; i < SOCKET_MAPS_LIMIT && at && at != head; i++) {
		references--;
		at = BPF_CORE_READ(at, next);
	}
	return references;
}

static __always_inline bool is_sleeper(const struct wait_queue_entry *entry)
{
	const void *wakes_a_sleeper = KERNEL_SYMBOL(woken_wake_function);

	return wakes_a_sleeper && BPF_CORE_READ(entry, func) == wakes_a_sleeper;
}

static __always_inline struct wait_queue_entry *entry_of(const struct list_head *at)
{
	return (void *)at - bpf_core_field_offset(struct wait_queue_entry, entry);
}

/* The head of the list of whoever waits for the socket: sleepers, and polls that others sleep in. */
static __always_inline struct list_head *wait_queue_of(__u64 socket)
{
	struct socket_wq *queue = BPF_CORE_READ((struct sock *)socket, sk_wq);

	return queue ? (void *)queue + bpf_core_field_offset(struct socket_wq, wait.head) : 0;
}

/*
 * How many threads sleep in calls on a socket. The caller holds the socket's
 * lock: a sleeper takes it before it leaves the queue.
 */
static __always_inline __u32 sleeping_threads(__u64 socket)
{
	struct list_head *head = wait_queue_of(socket), *at;
	__u32 count = 0;

	if (!head)
		return 0;
	at = BPF_CORE_READ(head, next);
	for (__u32 i = 0; i < QUEUE_LIMIT; i++) {
		if (at == head)
			return count;
		if (is_sleeper(entry_of(at)))
			count++;
		at = BPF_CORE_READ(at, next);
	}
	return TOO_MANY_SLEEPERS;
}

#endif
