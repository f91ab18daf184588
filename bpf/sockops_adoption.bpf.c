// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Adoption: connections that were open before sockops was are taken over live.
 *
 * User space pairs the ends (it sees every network namespace) and runs this
 * iterator, in each namespace, again and again. The iterator holds the socket's
 * lock, so no thread is sending or receiving meanwhile, but threads may sleep
 * inside TCP's own calls, and those never look at the queue of redirected
 * bytes. Redirecting starts once every such thread is gone at both ends.
 */
#include "meshaccel/sockops_adoption.h"
#include "sockops/denial.h"
#include "sockops/stream.h"
#include "sockops/threads.h"

#define ESRCH 3
#define ENOMEM 12
#define EACCES 13
#define EBUSY 16
#define EEXIST 17
#define EOPNOTSUPP 95
#define TCP_ESTABLISHED 1
#define SOL_TCP 6
#define TCP_BPF_SOCK_OPS_CB_FLAGS 1008
/* A thread between choosing TCP's call and sleeping in it has so long, in nanoseconds. */
#define ENTRY_TIME 200000000ULL
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct sockops_adoption);
} adoptions SEC(".maps");

/* Wait queue entries of threads that slept in TCP's own calls when their socket was adopted: its cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u64);
} early_sleepers SEC(".maps");

/* The threads that sleep in calls on a socket. */
struct sleepers {
	__u32 count;
	/* Whether one of them slept before the adoption. */
	bool early;
	/* Whether there were more entries than are looked through. */
	bool too_many;
};

/* The caller holds the socket's lock: an entry of a thread inside a call stays where it is. */
static __always_inline struct sleepers look_at_sleepers(struct tcp_sock *tcp, __u64 cookie,
							bool recording)
{
	struct list_head *head = wait_queue_of((__u64)tcp), *at;
	struct sleepers found = {};
	__u64 *owner;
	__u64 entry;

	if (!head)
		return found;
	at = BPF_CORE_READ(head, next);
	for (__u32 i = 0; i < QUEUE_LIMIT; i++) {
		if (at == head)
			return found;
		entry = (__u64)entry_of(at);
		at = BPF_CORE_READ(at, next);
		if (!is_sleeper((struct wait_queue_entry *)entry))
			continue;
		found.count++;
		if (recording) {
			if (bpf_map_update_elem(MAP(early_sleepers), &entry, &cookie, BPF_ANY))
				found.too_many = true;
			continue;
		}
		owner = bpf_map_lookup_elem(MAP(early_sleepers), &entry);
		if (owner && *owner == cookie)
			found.early = true;
	}
	found.too_many = true;
	return found;
}

static __always_inline __u32 refused(struct sockops_adoption *adoption, __s32 error)
{
	adoption->error = error;
	return SOCKOPS_ADOPTION_REFUSED;
}

static __always_inline __u32 insert(struct sock_common *common, struct tcp_sock *tcp, __u64 cookie,
				    struct sockops_adoption *adoption)
{
	int before = tcp->bpf_sock_ops_cb_flags;
	int flags = (before & ~LEAVING_CALLBACK_FLAG) | BPF_SOCK_OPS_STATE_CB_FLAG |
		    BPF_SOCK_OPS_RTT_CB_FLAG;
	struct sockops_socket_state *state;
	struct sleepers sleeping;
	long error;

	if (!KERNEL_SYMBOL(woken_wake_function))
		return refused(adoption, -EOPNOTSUPP);
	if (any_denied() && socket_denied((__u64)tcp))
		return refused(adoption, -EACCES);
	sleeping = look_at_sleepers(tcp, cookie, true);
	if (sleeping.too_many)
		return refused(adoption, -EBUSY);
	state = bpf_sk_storage_get(MAP(socket_states), tcp, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return refused(adoption, -ENOMEM);
	/* One whose peer has taken it out does not know. */
	if (state->status != SOCKOPS_STATUS_PLAIN && psock_of((__u64)tcp))
		return refused(adoption, -EEXIST);
	__builtin_memset(state, 0, sizeof(*state));
	state->peer_socket = adoption->peer_socket;
	state->peer_cookie = adoption->peer_cookie;
	state->policy = adoption->policy;
	state->peer_policy = adoption->peer_policy;
	state->handshake = adoption->handshake;
	state->socket = (__u64)tcp;
	state->cookie = cookie;
	/* Before 6.12 an iterator cannot ask for callbacks, and streams are not handed back. */
	state->has_callbacks =
		!bpf_setsockopt(tcp, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags));
	/* Its peer would go on to take it for one that leaves. */
	if (!state->has_callbacks && before & LEAVING_CALLBACK_FLAG)
		return refused(adoption, -EOPNOTSUPP);
	state->status = SOCKOPS_STATUS_ADOPTED;
	error = bpf_map_update_elem(MAP(sockets), &cookie, common, BPF_NOEXIST);
	if (error) {
		state->status = SOCKOPS_STATUS_PLAIN;
		return refused(adoption, error);
	}
	adoption->slot = state->slot = take_slot(common, false, cookie);
	adoption->inserted_at = bpf_ktime_get_ns();
	return SOCKOPS_ADOPTION_INSERTED;
}

/*
 * Whether all threads that sleep in calls on the socket sleep in sockmap's:
 * each of those holds a reference of the psock, beside the one of the hash.
 */
static __always_inline bool is_ready(struct tcp_sock *tcp, __u64 cookie,
				     const struct sockops_adoption *adoption)
{
	struct sleepers sleeping = look_at_sleepers(tcp, cookie, false);
	struct sk_psock *psock = psock_of((__u64)tcp);

	if (!psock || sleeping.early || sleeping.too_many ||
	    bpf_ktime_get_ns() - adoption->inserted_at < ENTRY_TIME)
		return false;
	return sleeping.count <= threads_inside(psock);
}

/* The end whose turn comes second finds the other already redirecting. */
static __always_inline __u32 pair_with_ready(struct tcp_sock *tcp,
					     struct sockops_adoption *adoption)
{
	__u64 peer_cookie = adoption->peer_cookie;
	struct sockops_adoption *peer = bpf_map_lookup_elem(MAP(adoptions), &peer_cookie);
	struct sockops_socket_state *state = bpf_sk_storage_get(MAP(socket_states), tcp, 0, 0);

	if (!peer || !state)
		return refused(adoption, -ESRCH);
	if (peer->step != SOCKOPS_ADOPTION_READY && peer->step != SOCKOPS_ADOPTION_PAIRED)
		return SOCKOPS_ADOPTION_READY;
	state->peer_slot = peer->slot;
	state->status = SOCKOPS_STATUS_PAIRED;
	return SOCKOPS_ADOPTION_PAIRED;
}

/* Nothing was ever redirected to it, since its peer was not paired either. */
static __always_inline __u32 withdraw(struct tcp_sock *tcp)
{
	struct sockops_socket_state *state = bpf_sk_storage_get(MAP(socket_states), tcp, 0, 0);

	if (state && state->status == SOCKOPS_STATUS_ADOPTED)
		forget(state, SOCKOPS_REASON_NOT_ADOPTED);
	return SOCKOPS_ADOPTION_WITHDRAWN;
}

SEC("iter/tcp")
int meshaccel_adopt(struct bpf_iter__tcp *context)
{
	struct sock_common *common = context->sk_common;
	struct sockops_adoption *adoption;
	struct tcp_sock *tcp;
	__u64 cookie;

	if (!common)
		return 0;
	cookie = bpf_get_socket_cookie(common);
	adoption = bpf_map_lookup_elem(MAP(adoptions), &cookie);
	tcp = bpf_skc_to_tcp_sock(common);
	if (!adoption || !tcp)
		return 0;
	switch (adoption->step) {
	case SOCKOPS_ADOPTION_PLANNED:
		if (common->skc_state == TCP_ESTABLISHED)
			adoption->step = insert(common, tcp, cookie, adoption);
		break;
	case SOCKOPS_ADOPTION_INSERTED:
		if (is_ready(tcp, cookie, adoption))
			adoption->step = SOCKOPS_ADOPTION_READY;
		break;
	case SOCKOPS_ADOPTION_READY:
		adoption->step = pair_with_ready(tcp, adoption);
		break;
	case SOCKOPS_ADOPTION_WITHDRAW:
		adoption->step = withdraw(tcp);
		break;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
