/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * For programs that bcc compiles on a node, with the headers of the kernel that
 * runs there: members are where these headers say, and nothing is relocated.
 * The loader (module_utils/meshaccel/bpf/node_built.py) creates the maps and
 * names them, and what else only the running kernel knows, by macros:
 *
 *   MAP_<name>       descriptor of a map        ENTRIES_<name>  its size
 *   SYMBOL_<name>    address of a kernel symbol, 0 where the kernel does not tell it
 */
#ifndef MESHACCEL_BUILT_ON_NODE_H
#define MESHACCEL_BUILT_ON_NODE_H

#include <linux/filter.h>
#include <linux/memcontrol.h>
#include <linux/skmsg.h>
#include <linux/tcp.h>
#include <linux/version.h>
#include <net/sock.h>
#include <net/tcp.h>

/* The kernel's own READ is a number. */
#undef READ

#define RELOCATED

/* bcc's main file names the programs, and its loader has its own maps. */
#undef SEC
#define SEC(name)
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
#define __ksym
/* A function that is not inlined lies where bcc does not look. */
#undef __noinline
#define __noinline __always_inline

#define MAP(name) ((void *)bpf_pseudo_fd(1, MAP_##name))
#define MAXIMUM_ENTRIES(name) ENTRIES_##name
#define DECLARE_KERNEL_SYMBOL(name) struct name##_is_known
#define KERNEL_SYMBOL(name) ((const void *)SYMBOL_##name)
#define CONSTANT(type, name, value) enum { name = value }

/* bcc's own declarations of helpers differ by version; some return 32 of 64 bits. */
#define HELPER(name, result, ...) ((result (*)(__VA_ARGS__))BPF_FUNC_##name)
#undef bpf_tail_call
#define bpf_get_local_storage HELPER(get_local_storage, void *, void *, __u64)
#define bpf_get_socket_cookie HELPER(get_socket_cookie, __u64, void *)
#define bpf_ktime_get_ns HELPER(ktime_get_ns, __u64, void)
#define bpf_map_delete_elem HELPER(map_delete_elem, long, void *, const void *)
#define bpf_map_lookup_elem HELPER(map_lookup_elem, void *, void *, const void *)
#define bpf_map_update_elem HELPER(map_update_elem, long, void *, const void *, const void *, __u64)
#define bpf_msg_redirect_hash HELPER(msg_redirect_hash, long, void *, void *, void *, __u64)
#define bpf_msg_redirect_map HELPER(msg_redirect_map, long, void *, void *, __u32, __u64)
#define bpf_probe_read_kernel HELPER(probe_read_kernel, long, void *, __u32, const void *)
#define bpf_probe_read_kernel_str HELPER(probe_read_kernel_str, long, void *, __u32, const void *)
#define bpf_seq_write HELPER(seq_write, long, void *, const void *, __u32)
#define bpf_setsockopt HELPER(setsockopt, long, void *, int, int, void *, int)
#define bpf_sk_redirect_hash HELPER(sk_redirect_hash, long, void *, void *, void *, __u64)
#define bpf_sk_storage_get HELPER(sk_storage_get, void *, void *, void *, void *, __u64)
#define bpf_skb_adjust_room HELPER(skb_adjust_room, long, void *, __s32, __u32, __u64)
#define bpf_skb_load_bytes HELPER(skb_load_bytes, long, const void *, __u32, void *, __u32)
#define bpf_skc_to_tcp_sock HELPER(skc_to_tcp_sock, struct tcp_sock *, void *)
#define bpf_sock_hash_update HELPER(sock_hash_update, long, void *, void *, void *, __u64)
#define bpf_sock_map_update HELPER(sock_map_update, long, void *, void *, void *, __u64)
#define bpf_sock_ops_cb_flags_set HELPER(sock_ops_cb_flags_set, long, void *, int)
/* With an argument, since the lock's type has the same name. */
#define bpf_spin_lock(lock) HELPER(spin_lock, long, void *)(lock)
#define bpf_spin_unlock(lock) HELPER(spin_unlock, long, void *)(lock)
#define bpf_tail_call HELPER(tail_call, long, void *, void *, __u32)

#undef bpf_htonl
#undef bpf_ntohl
#undef bpf_ntohs
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htonl(value) __builtin_bswap32(value)
#define bpf_ntohs(value) __builtin_bswap16(value)
#else
#define bpf_htonl(value) ((__u32)(value))
#define bpf_ntohs(value) ((__u16)(value))
#endif
#define bpf_ntohl bpf_htonl

/* As libbpf has them, for a layout that is known. What a block yields has no qualifiers. */
#define TYPE_OF_MEMBER(pointer, member) typeof(({ (pointer)->member; }))
#define READ_1(pointer, member)                                            \
	({                                                                 \
		TYPE_OF_MEMBER(pointer, member) member_value;              \
		bpf_probe_read_kernel(&member_value, sizeof(member_value), \
				      (const void *)&(pointer)->member);   \
		member_value;                                              \
	})
#define READ_2(pointer, one, two)                                            \
	({                                                                   \
		TYPE_OF_MEMBER(pointer, one) between = READ_1(pointer, one); \
		READ_1(between, two);                                        \
	})
#define READ_BY_COUNT(_1, _2, name, ...) name
#define BPF_CORE_READ(pointer, ...) READ_BY_COUNT(__VA_ARGS__, READ_2, READ_1)(pointer, __VA_ARGS__)
#define BPF_CORE_READ_INTO(into, pointer, member) \
	bpf_probe_read_kernel(into, sizeof(*(into)), (const void *)&(pointer)->member)
#define bpf_core_read_str bpf_probe_read_kernel_str
#define bpf_core_field_offset(type, member) __builtin_offsetof(type, member)
#define bpf_core_enum_value(type, value) value
#define bpf_core_type_id_kernel(type) 0

/*
 * With BTF the kernel lets a program read a socket as it is. Without it has no
 * such pointers: the address is taken from the kernel's own context, which begins
 * as these types do, and what lies there is copied.
 */
#ifdef KERNEL_HAS_BTF
#define OWN(pointer, member) ((pointer)->member)
#define OWN_BITFIELD(pointer, member, otherwise) ((pointer)->member)
#define TCP_OF_EVENT(context, socket) bpf_skc_to_tcp_sock(socket)
#define TCP_OF_MESSAGE(context) bpf_skc_to_tcp_sock((context)->sk)
#else
#define OWN(pointer, member) READ_1(pointer, member)
/* A bit field has no address to copy from. */
#define OWN_BITFIELD(pointer, member, otherwise) ((void)(pointer), otherwise)
#define TCP_OF_EVENT(context, socket) \
	((struct tcp_sock *)READ_1((struct bpf_sock_ops_kern *)(context), sk))
#define TCP_OF_MESSAGE(context) ((struct tcp_sock *)READ_1((struct sk_msg *)(context), sk))
#endif

#if IS_ENABLED(CONFIG_MPTCP)
#define IS_MULTIPATH(tcp) OWN(tcp, is_mptcp)
#else
#define IS_MULTIPATH(tcp) ((void)(tcp), false)
#endif

#ifdef CONFIG_MEMCG
#define HAS_MEMORY_CGROUPS true
#else
#define HAS_MEMORY_CGROUPS false
struct mem_cgroup {
	struct page_counter memory;
};
#endif
#if defined(CONFIG_MEMCG) && \
	(LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0) || defined(CONFIG_MEMCG_V1))
#define SOCKET_MEMORY_COUNTER(group) \
	(READ(mem_cgroup, group, tcpmem_active) ? (group) + offsetof(struct mem_cgroup, tcpmem) : 0)
#else
#define SOCKET_MEMORY_COUNTER(group) 0
#endif

static __always_inline struct cgroup *cgroup_of_socket(const struct sock *socket)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
	return socket->sk_cgrp_data.cgroup;
#else
	return socket->sk_cgrp_data.is_data ? 0 : (struct cgroup *)socket->sk_cgrp_data.val;
#endif
}

#endif
