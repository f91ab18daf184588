/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * For programs that are built ahead and loaded by libbpf: the kernel types that
 * they read, and of each only the members they read. CO-RE relocates every
 * access to the running kernel's own layout (preserve_access_index), so order
 * and padding here mean nothing.
 */
#ifndef MESHACCEL_BUILT_AHEAD_H
#define MESHACCEL_BUILT_AHEAD_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

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

struct bpf_map {
	__u32 max_entries;
};

struct sk_msg {
	struct sock *sk_redir;
};

struct sk_buff_head {
	__u32 qlen;
};

struct sk_psock {
	struct sock *sk;
	struct list_head link;
	struct sk_buff_head ingress_skb;
	struct list_head ingress_msg;
	unsigned long state;
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

struct inode {
	unsigned long i_ino;
};

struct file {
	struct inode *f_inode;
};

struct socket {
	struct file *file;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* Before 5.15. */
struct sock_cgroup_data___old {
	__u64 val;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u32 u6_addr32[4];
	} in6_u;
};

enum sock_flags {
	SOCK_ZEROCOPY,
};

struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	unsigned long skc_flags;
	atomic64_t skc_cookie;
};

struct page_counter {
	atomic64_t usage;
	unsigned long max;
	struct page_counter *parent;
};

struct mem_cgroup {
	struct page_counter memory;
	struct page_counter tcpmem;
	bool tcpmem_active;
};

struct sock {
	struct sock_common __sk_common;
	struct mem_cgroup *sk_memcg;
	int sk_forward_alloc;
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	void *sk_user_data;
	struct socket_wq *sk_wq;
	struct socket *sk_socket;
	struct sock_cgroup_data sk_cgrp_data;
	int sk_rcvlowat;
};

struct inet_sock {
	struct sock sk;
};

struct tcp_ulp_ops {
	char name[16];
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	const struct tcp_ulp_ops *icsk_ulp_ops;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 rcv_nxt;
	__u32 snd_una;
	__u32 snd_up;
	__u16 urg_data;
	__u64 bytes_received;
	__u64 bytes_acked;
	__u64 bytes_sent;
	__u8 repair : 1;
	__u8 nonagle : 4;
	__u8 bpf_sock_ops_cb_flags;
	__u8 is_mptcp : 1;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

#pragma clang attribute pop

#define RELOCATED __attribute__((preserve_access_index))

#define MAP(name) (&name)
#define MAXIMUM_ENTRIES(name) (((struct bpf_map *)&name)->max_entries)
#define DECLARE_KERNEL_SYMBOL(name) extern const void name __ksym __weak
#define KERNEL_SYMBOL(name) (&name)
#define CONSTANT(type, name, value) const volatile type name = value

/*
 * Members of a socket that cannot go meanwhile: the kernel lets them be read as
 * they are. `otherwise` is what to take where a bit field cannot be read.
 */
#define OWN(pointer, member) ((pointer)->member)
#define OWN_BITFIELD(pointer, member, otherwise) BPF_CORE_READ_BITFIELD(pointer, member)

/* The socket, found to be there, that a connection event is about. */
#define TCP_OF_EVENT(context, socket) bpf_skc_to_tcp_sock(socket)
/* The socket that a message is sent on. */
#define TCP_OF_MESSAGE(context) bpf_skc_to_tcp_sock((context)->sk)

#define IS_MULTIPATH(tcp) \
	(bpf_core_field_exists((tcp)->is_mptcp) && BPF_CORE_READ_BITFIELD(tcp, is_mptcp))

#define HAS_MEMORY_CGROUPS bpf_core_field_exists(struct sock, sk_memcg)
/* On cgroup v1 sockets may have a limit of their own: the address of its counter, or 0. */
#define SOCKET_MEMORY_COUNTER(group)                                          \
	(bpf_core_field_exists(struct mem_cgroup, tcpmem) &&                  \
			 READ(mem_cgroup, group, tcpmem_active)               \
		 ? (group) + bpf_core_field_offset(struct mem_cgroup, tcpmem) \
		 : 0)

/* Kernels before 5.15 keep the cgroup beside a flag of what else it may be. */
#define CGROUP_IS_OTHER_DATA 1UL

static __always_inline struct cgroup *cgroup_of_socket(const struct sock *socket)
{
	const struct sock_cgroup_data___old *old = (const void *)&socket->sk_cgrp_data;
	__u64 value;

	if (bpf_core_field_exists(socket->sk_cgrp_data.cgroup))
		return socket->sk_cgrp_data.cgroup;
	value = BPF_CORE_READ(old, val);
	return value & CGROUP_IS_OTHER_DATA ? 0 : (struct cgroup *)value;
}

#endif
