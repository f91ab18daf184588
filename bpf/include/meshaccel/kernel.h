/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The kernel types that meshaccel's programs read, and of each only the
 * members they read. CO-RE relocates every access to the running kernel's own
 * layout (preserve_access_index), so order and padding here mean nothing.
 */
#ifndef MESHACCEL_KERNEL_H
#define MESHACCEL_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__s64 counter;
} atomic64_t;

typedef struct {
	atomic_t refs;
} refcount_t;

struct list_head {
	struct list_head *next;
};

struct sk_psock {
	struct list_head ingress_msg;
	refcount_t refcnt;
};

struct wait_queue_head {
	struct list_head head;
};

typedef struct wait_queue_head wait_queue_head_t;

struct wait_queue_entry {
	const void *func;
	struct list_head entry;
};

struct socket_wq {
	wait_queue_head_t wait;
};

struct sock_common {
	unsigned char skc_state;
	atomic64_t skc_cookie;
};

struct sock {
	struct sock_common __sk_common;
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	void *sk_user_data;
	struct socket_wq *sk_wq;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 copied_seq;
	__u32 write_seq;
	__u64 bytes_sent;
	__u8 nonagle : 4;
	__u8 bpf_sock_ops_cb_flags;
	__u8 is_mptcp : 1;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__sockmap {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	struct sock *sk;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

#pragma clang attribute pop

#endif
