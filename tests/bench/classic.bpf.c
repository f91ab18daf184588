// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What the accelerator is compared with. Do not use either.
 *
 * "classic" is the well-known way to short-cut local TCP: every established
 * socket stands in a hash under its address tuple, and a message goes to
 * whatever socket stands under the swapped tuple. It takes two sockets for a
 * pair only when both see the same tuple, and it proves nothing about order or
 * memory.
 *
 * "empty" does nothing with the same sockets: what the kernel counts for it is
 * what any program costs.
 */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET6 10
#define MAXIMUM_SOCKETS 65536

struct endpoint {
	__u32 address[4]; /* IPv4 as v4-mapped IPv6: the ends may differ in family */
	__u32 port;	  /* host byte order */
};

struct tuple {
	struct endpoint local;
	struct endpoint remote;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, MAXIMUM_SOCKETS);
	__type(key, struct tuple);
	__type(value, __u64);
} sockets SEC(".maps");

enum way { WAY_TCP, WAY_REDIRECTED, WAY_COUNT };

/* Bytes by the way they went; of each processor's own, so that counting is next to free. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WAY_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} classic_bytes SEC(".maps");

/*
 * A macro, because the contexts of the two program types have the same members
 * but are different types. The verifier takes reads of a context at constant
 * offsets only: the empty asm keeps the compiler from merging two of them.
 */
#define READ(context, member)                         \
	({                                            \
		__u32 value_read = (context)->member; \
		asm volatile("" : "+r"(value_read));  \
		value_read;                           \
	})

#define FILL(endpoint, context, ip4, ip6)                              \
	do {                                                           \
		if ((context)->family == AF_INET6) {                   \
			(endpoint).address[0] = READ(context, ip6[0]); \
			(endpoint).address[1] = READ(context, ip6[1]); \
			(endpoint).address[2] = READ(context, ip6[2]); \
			(endpoint).address[3] = READ(context, ip6[3]); \
		} else {                                               \
			(endpoint).address[2] = bpf_htonl(0xffff);     \
			(endpoint).address[3] = READ(context, ip4);    \
		}                                                      \
	} while (0)

#define FILL_LOCAL(endpoint, context)                          \
	do {                                                   \
		FILL(endpoint, context, local_ip4, local_ip6); \
		(endpoint).port = (context)->local_port;       \
	} while (0)

#define FILL_REMOTE(endpoint, context)                               \
	do {                                                         \
		FILL(endpoint, context, remote_ip4, remote_ip6);     \
		(endpoint).port = bpf_ntohl((context)->remote_port); \
	} while (0)

SEC("sockops")
int remember_socket(struct bpf_sock_ops *context)
{
	struct tuple own = {};

	if (context->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB &&
	    context->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		return 1;
	FILL_LOCAL(own.local, context);
	FILL_REMOTE(own.remote, context);
	bpf_sock_hash_update(context, &sockets, &own, BPF_NOEXIST);
	return 1;
}

SEC("sk_msg")
int classic_message(struct sk_msg_md *context)
{
	struct tuple peer = {};
	__u32 way;
	__u64 *bytes;

	FILL_REMOTE(peer.local, context);
	FILL_LOCAL(peer.remote, context);
	way = bpf_msg_redirect_hash(context, &sockets, &peer, BPF_F_INGRESS) == SK_PASS
		      ? WAY_REDIRECTED
		      : WAY_TCP;
	bytes = bpf_map_lookup_elem(&classic_bytes, &way);
	if (bytes)
		*bytes += context->size;
	return SK_PASS;
}

SEC("sk_msg")
int empty_message(struct sk_msg_md *context)
{
	(void)context;
	return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
