/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the adoption of live connections shares with the node's Python package;
 * module_utils/meshaccel/accelerators/sockops/adoption/layout.py declares the
 * same and compares it with the object's BTF before every load.
 */
#ifndef MESHACCEL_SOCKOPS_ADOPTION_H
#define MESHACCEL_SOCKOPS_ADOPTION_H

#include "sockops.h"

enum sockops_adoption_step {
	/* User space wishes this socket adopted. */
	SOCKOPS_ADOPTION_PLANNED = 0,
	/* In the hash; threads may still wait in TCP's own calls. */
	SOCKOPS_ADOPTION_INSERTED = 1,
	/* No such thread is left. */
	SOCKOPS_ADOPTION_READY = 2,
	/* Ready at both ends: messages are redirected. */
	SOCKOPS_ADOPTION_PAIRED = 3,
	/* User space wishes it out of the hash again. */
	SOCKOPS_ADOPTION_WITHDRAW = 4,
	SOCKOPS_ADOPTION_WITHDRAWN = 5,
	/* Not to be had: `error` says why. */
	SOCKOPS_ADOPTION_REFUSED = 6,
};

/* One for each socket to adopt, under its cookie. */
struct sockops_adoption {
	__u64 peer_cookie;
	__u64 peer_socket;
	struct sockops_handshake handshake;
	__u32 policy;
	__u32 peer_policy;
	__u32 step;
	__s32 error;
	/* Nanoseconds of the monotonic clock. */
	__u64 inserted_at;
	/* The socket's slot, once it is in the hash. */
	__u32 slot;
	__u32 reserved;
};

#endif
