/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The kernel's types, the helpers, and how a program reads the one and names the
 * other. The two ways in which a program is built differ here and nowhere else.
 */
#ifndef MESHACCEL_KERNEL_H
#define MESHACCEL_KERNEL_H

#ifdef MESHACCEL_BUILT_ON_NODE
#include "built_on_node.h"
#else
#include "built_ahead.h"
#endif

/* What iterators are called with; the kernel has these in no header. */
struct bpf_iter__sockmap {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	struct sock *sk;
} RELOCATED;

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
} RELOCATED;

#endif
