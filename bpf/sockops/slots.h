/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Slots: the kernel finds a peer by its number in an array faster than by its
 * cookie in the hash. A slot is a short cut and nothing more: a socket that got
 * none, or lost it to another, is found in the hash. So a slot is taken, given
 * up and lost without care, and its owner is looked at when it is used.
 */
#ifndef MESHACCEL_SOCKOPS_SLOTS_H
#define MESHACCEL_SOCKOPS_SLOTS_H

#include "meshaccel/kernel.h"

#define SOCKETS_DEFAULT 65536
#define SLOT_TRIES 8
/* Spreads the tries over the whole array: 2^32 by the golden ratio. */
#define SLOT_STRIDE 2654435761U

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, SOCKETS_DEFAULT);
	__type(key, __u32);
	__type(value, __u64);
} socket_slots SEC(".maps");

/* Cookies count up, so that the first tries of the sockets that live at once seldom meet. */
static __always_inline __u32 slot_to_try(__u64 cookie, __u32 attempt)
{
	return ((__u32)cookie + attempt * SLOT_STRIDE) % MAXIMUM_ENTRIES(socket_slots);
}

/*
 * Takes a free slot for a socket that is in the hash already; it has its
 * program from there. The owner is what the kernel takes at this point: the
 * context of a connection event, or the socket that an iterator is at.
 */
static __always_inline __u32 take_slot(void *owner, bool is_context, __u64 cookie)
{
	for (__u32 i = 0; i < SLOT_TRIES; i++) {
		__u32 slot = slot_to_try(cookie, i);
		long error;

		if (is_context)
			error = bpf_sock_map_update(owner, MAP(socket_slots), &slot, BPF_NOEXIST);
		else
			error = bpf_map_update_elem(MAP(socket_slots), &slot, owner, BPF_NOEXIST);
		if (!error)
			return slot + 1;
	}
	return 0;
}

static __always_inline void give_up_slot(__u32 slot)
{
	__u32 index = slot - 1;

	if (slot)
		bpf_map_delete_elem(MAP(socket_slots), &index);
}

#endif
