// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * sockops: TCP between two sockets of one node goes socket to socket.
 *
 * The two ends of a connection are paired by the sequence numbers of their own
 * handshake (RFC 9293, 3.5), so NAT, REDIRECT and network namespaces between
 * them do not matter. A message is redirected only while order is provable
 * from the two sockets and the reader keeps up; in every other case it goes by
 * TCP, as it would have gone without this program.
 */
#include "meshaccel/kernel.h"
#include "meshaccel/sockops.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
/* A kernel pointer in sk_user_data carries flags in its low bits. */
#define USER_DATA_IS_PSOCK 4UL
#define USER_DATA_FLAGS 7UL
#define CONNECTIONS_DEFAULT 32768
/* sizeof(struct sk_msg), rounded up to its slab. */
#define MESSAGE_DESCRIPTION_BYTES 1024
/*
 * The verifier wants every context member read at a constant offset. The empty
 * asm keeps the compiler from merging two reads into one at a computed offset.
 */
#define CONTEXT(member)                              \
	({                                           \
		__u32 read_value = context->member;  \
		asm volatile("" : "+r"(read_value)); \
		read_value;                          \
	})

/* Set before the load: whether the verifier takes bpf_rdonly_cast (6.2 on). */
const volatile __u32 use_readonly_cast = 0;

extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockops_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKOPS_POLICIES);
	__type(key, __u32);
	__type(value, struct sockops_policy);
} policies SEC(".maps");

/* Keyed by the cgroup the program is attached to: its policy's index. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, __u32);
} cgroup_policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SOCKOPS_POLICIES);
	__type(key, __u32);
	__type(value, struct sockops_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2 * CONNECTIONS_DEFAULT);
	__type(key, struct sockops_socket_key);
	__type(value, __u64);
} sockets SEC(".maps");

/*
 * Not an LRU: evicting the end of a live pair would make the RTT callback take
 * a socket with queued data for a bystander and lose that data.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * CONNECTIONS_DEFAULT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sockops_handshake);
	__type(value, struct sockops_end);
} ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sockops_socket_state);
} socket_states SEC(".maps");

/*
 * The kernel hands a replaced sk_msg program to new sockets only. Live ones
 * keep meshaccel_message for good, so the logic stands behind this table.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} message_logic SEC(".maps");

static __always_inline struct sockops_control *node_control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline struct sockops_handshake swapped(const struct sockops_handshake *own)
{
	struct sockops_handshake peer = {
		.receive_sequence = own->send_sequence,
		.send_sequence = own->receive_sequence,
	};

	return peer;
}

static __always_inline bool same_handshake(const struct sockops_handshake *a,
					   const struct sockops_handshake *b)
{
	return a->receive_sequence == b->receive_sequence && a->send_sequence == b->send_sequence;
}

/* ---- connection events ------------------------------------------------- */

static __always_inline bool port_in(const struct sockops_policy *policy, __u32 port)
{
	for (__u32 i = 0; i < SOCKOPS_PORT_RANGES; i++) {
		if (i >= policy->port_range_count)
			return false;
		if (port >= policy->port_ranges[i].first && port <= policy->port_ranges[i].last)
			return true;
	}
	return false;
}

static __always_inline bool port_matches(struct bpf_sock_ops *context,
					 const struct sockops_policy *policy)
{
	if (policy->port_range_count == 0)
		return true;
	return port_in(policy, context->local_port) ||
	       port_in(policy, bpf_ntohl(context->remote_port));
}

static __always_inline void set_client(struct sockops_socket_key *key, struct bpf_sock_ops *context,
				       bool local_is_client)
{
	if (local_is_client)
		key->client_port = CONTEXT(local_port);
	else
		key->client_port = bpf_ntohl(CONTEXT(remote_port));
	if (context->family == AF_INET) {
		key->client_address[0] = 0;
		key->client_address[1] = 0;
		key->client_address[2] = bpf_htonl(0xffff);
		if (local_is_client)
			key->client_address[3] = CONTEXT(local_ip4);
		else
			key->client_address[3] = CONTEXT(remote_ip4);
	} else if (local_is_client) {
		key->client_address[0] = CONTEXT(local_ip6[0]);
		key->client_address[1] = CONTEXT(local_ip6[1]);
		key->client_address[2] = CONTEXT(local_ip6[2]);
		key->client_address[3] = CONTEXT(local_ip6[3]);
	} else {
		key->client_address[0] = CONTEXT(remote_ip6[0]);
		key->client_address[1] = CONTEXT(remote_ip6[1]);
		key->client_address[2] = CONTEXT(remote_ip6[2]);
		key->client_address[3] = CONTEXT(remote_ip6[3]);
	}
}

static __always_inline bool same_client(const struct sockops_socket_key *key,
					const struct sockops_end *end)
{
	return key->client_port == end->client_port &&
	       key->client_address[0] == end->client_address[0] &&
	       key->client_address[1] == end->client_address[1] &&
	       key->client_address[2] == end->client_address[2] &&
	       key->client_address[3] == end->client_address[3];
}

static __always_inline void take_client(struct sockops_socket_key *key,
					const struct sockops_end *end)
{
	key->client_port = end->client_port;
	key->client_address[0] = end->client_address[0];
	key->client_address[1] = end->client_address[1];
	key->client_address[2] = end->client_address[2];
	key->client_address[3] = end->client_address[3];
}

static __always_inline __u64 cookie_at(__u64 socket)
{
	return BPF_CORE_READ((struct sock *)socket, __sk_common.skc_cookie.counter);
}

/*
 * Enters the socket into the hash, then publishes its end: a peer that finds
 * the end must find the socket. Returns whether the socket is now tracked.
 */
static __always_inline bool track(struct bpf_sock_ops *context, struct sockops_socket_state *state,
				  struct sockops_end *end, struct sockops_counters *count)
{
	struct sockops_socket_key key = state->key;
	long error;

	error = bpf_sock_hash_update(context, &sockets, &key, BPF_NOEXIST);
	if (error) {
		if (error == -17 /* EEXIST */)
			count->skipped_duplicate++;
		else if (error == -7 /* E2BIG */)
			count->skipped_table_full++;
		else
			count->skipped_other++;
		return false;
	}
	error = bpf_map_update_elem(&ends, &key.handshake, end, BPF_NOEXIST);
	if (error) {
		bpf_map_delete_elem(&sockets, &key);
		if (error == -17)
			count->skipped_duplicate++;
		else
			count->skipped_table_full++;
		return false;
	}
	count->sockets_inserted++;
	return true;
}

/*
 * Of nested opted-in cgroups the innermost decides: the kernel runs its
 * program first, and the state it leaves tells the outer ones to stay out.
 */
static __always_inline struct sockops_socket_state *
first_to_decide(struct bpf_sock *socket, const struct sockops_handshake *own)
{
	struct sockops_socket_state *state;

	state = bpf_sk_storage_get(&socket_states, socket, 0, 0);
	if (state)
		return same_handshake(&state->key.handshake, own) ? 0 : state;
	return bpf_sk_storage_get(&socket_states, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

/* The policy that the cgroup of the running program has, and its counters. */
struct membership {
	__u32 index;
	struct sockops_policy *policy;
	struct sockops_counters *count;
};

static __always_inline bool find_membership(struct membership *member)
{
	__u32 *attached = bpf_get_local_storage(&cgroup_policies, 0);

	member->index = *attached;
	member->policy = bpf_map_lookup_elem(&policies, &member->index);
	member->count = bpf_map_lookup_elem(&counters, &member->index);
	return member->policy && member->count;
}

/* The client's published end, if a live one of this node waits for this handshake. */
static __always_inline struct sockops_end *waiting_peer(const struct sockops_handshake *own)
{
	struct sockops_handshake other = swapped(own);
	struct sockops_end *peer = bpf_map_lookup_elem(&ends, &other);

	return peer && cookie_at(peer->socket) == peer->cookie ? peer : 0;
}

/* Whether this socket may be accelerated, but for its peer. */
static __always_inline bool eligible(struct tcp_sock *tcp, const struct membership *member)
{
	if (member->policy->mode != SOCKOPS_MODE_ON) {
		member->count->skipped_mode++;
		return false;
	}
	if (bpf_core_field_exists(tcp->is_mptcp) && BPF_CORE_READ_BITFIELD(tcp, is_mptcp)) {
		member->count->skipped_multipath++;
		return false;
	}
	return true;
}

/* Settles port filter and key between the passive end and the peer that waits for it. */
static __always_inline bool agree(struct sockops_socket_state *state, struct sockops_end *end,
				  const struct sockops_end *peer, struct sockops_counters *count)
{
	/* Either end may name the port: REDIRECT shows each another. */
	if (!end->port_matched && !peer->port_matched) {
		count->skipped_port++;
		return false;
	}
	if (!same_client(&state->key, peer)) {
		count->connections_translated++;
		take_client(&state->key, peer);
	}
	end->paired = 1;
	return true;
}

static __always_inline void established(struct bpf_sock_ops *context, bool active)
{
	struct sockops_handshake own = {
		.receive_sequence = context->rcv_nxt,
		.send_sequence = context->snd_nxt,
	};
	struct sockops_control *node = node_control();
	struct sockops_end end = {}, *peer = 0;
	struct bpf_sock *socket = context->sk;
	struct sockops_socket_state *state;
	struct membership member = {};
	struct tcp_sock *tcp;

	if (!socket || !node || node->mode != SOCKOPS_MODE_ON || !find_membership(&member))
		return;
	/* Before anything is allocated: most passive ends of a node have remote peers. */
	if (!active) {
		peer = waiting_peer(&own);
		if (!peer) {
			member.count->skipped_no_waiting_peer++;
			return;
		}
	}
	tcp = bpf_skc_to_tcp_sock(socket);
	state = first_to_decide(socket, &own);
	if (!tcp || !state)
		return;
	__builtin_memset(state, 0, sizeof(*state));
	state->key.handshake = own;
	state->policy = member.index;
	set_client(&state->key, context, active);
	if (!eligible(tcp, &member))
		return;
	end.socket = (__u64)tcp;
	end.cookie = bpf_get_socket_cookie(context);
	end.policy = member.index;
	end.port_matched = port_matches(context, member.policy);
	if (peer && !agree(state, &end, peer, member.count))
		return;
	end.client_port = state->key.client_port;
	__builtin_memcpy(end.client_address, state->key.client_address, sizeof(end.client_address));
	state->peer_key = state->key;
	state->peer_key.handshake = swapped(&own);
	state->tracked = track(context, state, &end, member.count);
	if (!state->tracked)
		return;
	if (peer) {
		peer->paired = 1;
		member.count->connections_paired++;
	}
	bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags |
						   BPF_SOCK_OPS_STATE_CB_FLAG |
						   (active ? BPF_SOCK_OPS_RTT_CB_FLAG : 0));
}

static __always_inline void forget(struct sockops_socket_state *state)
{
	struct sockops_handshake own = state->key.handshake;

	state->tracked = 0;
	bpf_map_delete_elem(&ends, &own);
}

static __always_inline void stop_callbacks(struct bpf_sock_ops *context, __u32 flags)
{
	bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags & ~flags);
}

/*
 * The first acknowledgement of data that went by TCP. A peer on this node was
 * established before it could acknowledge, so an end that is still unpaired
 * now never will be: give it back to plain TCP.
 */
static __always_inline void first_round_trip(struct bpf_sock_ops *context)
{
	struct sockops_socket_state *state;
	struct sockops_counters *count;
	struct sockops_socket_key key;
	struct bpf_sock *socket = context->sk;
	struct sockops_end *end;
	__u32 index;

	if (!socket)
		return;
	stop_callbacks(context, BPF_SOCK_OPS_RTT_CB_FLAG);
	state = bpf_sk_storage_get(&socket_states, socket, 0, 0);
	if (!state || !state->tracked)
		return;
	key = state->key;
	end = bpf_map_lookup_elem(&ends, &key.handshake);
	if (end && end->paired)
		return;
	stop_callbacks(context, BPF_SOCK_OPS_STATE_CB_FLAG);
	forget(state);
	bpf_map_delete_elem(&sockets, &key);
	index = state->policy;
	count = bpf_map_lookup_elem(&counters, &index);
	if (count)
		count->sockets_evicted++;
}

static __always_inline void closed(struct bpf_sock_ops *context)
{
	struct sockops_socket_state *state;
	struct bpf_sock *socket = context->sk;

	if (!socket)
		return;
	state = bpf_sk_storage_get(&socket_states, socket, 0, 0);
	if (state && state->tracked)
		forget(state);
}

SEC("sockops")
int meshaccel_connection(struct bpf_sock_ops *context)
{
	switch (context->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		established(context, true);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		established(context, false);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		first_round_trip(context);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (context->args[1] == BPF_TCP_CLOSE)
			closed(context);
		break;
	}
	return 1;
}

/* ---- messages ---------------------------------------------------------- */

/* What the sender gave to TCP so far: the sequence number after it, and whether anything at all. */
struct sender_view {
	__u32 write_sequence;
	bool nothing_sent;
};

/* The cast saves a helper call, an eighth of the whole cost of a message. */
static __always_inline bool look_at_sender(struct bpf_sock *sender, __u32 first_sequence,
					   struct sender_view *view)
{
	struct tcp_sock *tcp;

	if (use_readonly_cast)
		tcp = bpf_rdonly_cast(sender, bpf_core_type_id_kernel(struct tcp_sock));
	else
		tcp = bpf_skc_to_tcp_sock(sender);
	if (!tcp)
		return false;
	view->write_sequence = tcp->write_seq;
	/* Sequence numbers come round after 4 GiB; the count of bytes does not. */
	view->nothing_sent = view->write_sequence == first_sequence && tcp->bytes_sent == 0;
	return true;
}

/* The three members of the peer's socket that a decision needs. */
struct peer_view {
	__u64 cookie;
	__u32 copied_sequence;
	int receive_memory;
};

/*
 * The pointer may be stale: the socket may be gone and its memory be another
 * socket's. Both ways of reading survive that, and the cookie, read last,
 * tells whose values these were.
 */
static __always_inline struct peer_view look_at(__u64 socket)
{
	struct tcp_sock *peer = (struct tcp_sock *)socket;
	struct peer_view view;

	if (use_readonly_cast) {
		peer = bpf_rdonly_cast(peer, bpf_core_type_id_kernel(struct tcp_sock));
		view.copied_sequence = peer->copied_seq;
		view.receive_memory = peer->inet_conn.icsk_inet.sk.sk_backlog.rmem_alloc.counter;
		barrier();
		view.cookie = peer->inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter;
		return view;
	}
	view.copied_sequence = BPF_CORE_READ(peer, copied_seq);
	view.receive_memory =
		BPF_CORE_READ(peer, inet_conn.icsk_inet.sk.sk_backlog.rmem_alloc.counter);
	barrier();
	view.cookie = BPF_CORE_READ(peer, inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter);
	return view;
}

static __always_inline bool find_peer(struct sockops_socket_state *state)
{
	struct sockops_end *peer;

	if (state->peer_socket)
		return true;
	peer = bpf_map_lookup_elem(&ends, &state->peer_key.handshake);
	if (!peer)
		return false;
	state->peer_cookie = peer->cookie;
	state->peer_policy = peer->policy;
	state->peer_socket = peer->socket;
	return true;
}

static __always_inline bool switched_on(const struct sockops_control *node,
					const struct sockops_policy *own,
					const struct sockops_policy *peer)
{
	return node->mode != SOCKOPS_MODE_OFF && own->mode != SOCKOPS_MODE_OFF &&
	       peer->mode != SOCKOPS_MODE_OFF;
}

/*
 * The kernel charges a queued message's payload to the receiver, but not the
 * kilobyte that describes it. So a small message may only use the share of the
 * limit that its size is of that kilobyte: descriptions stay within the limit.
 */
static __always_inline bool has_room(int receive_memory, __u32 size, __u32 limit)
{
	__u64 allowed = limit;

	if (receive_memory <= 0)
		return true;
	if (size < MESSAGE_DESCRIPTION_BYTES)
		allowed = allowed * size / MESSAGE_DESCRIPTION_BYTES;
	return (__u64)receive_memory + size <= allowed;
}

/* Returns whether the message was handed to the peer's socket. */
static __always_inline bool redirect(struct sk_msg_md *message, __u32 size,
				     struct sockops_socket_state *state,
				     struct sockops_counters *count)
{
	struct sockops_control *node = node_control();
	struct sockops_policy *own_policy, *peer_policy;
	struct peer_view peer;
	struct sender_view sender;
	__u32 index = state->policy;

	if (!node || !look_at_sender(message->sk, state->key.handshake.send_sequence, &sender))
		return false;
	if (!find_peer(state)) {
		count->tcp_messages_no_peer++;
		return false;
	}
	own_policy = bpf_map_lookup_elem(&policies, &index);
	index = state->peer_policy;
	peer_policy = bpf_map_lookup_elem(&policies, &index);
	if (!own_policy || !peer_policy || !switched_on(node, own_policy, peer_policy)) {
		count->tcp_messages_mode++;
		return false;
	}
	peer = look_at(state->peer_socket);
	if (peer.cookie != state->peer_cookie) {
		count->tcp_messages_peer_gone++;
		return false;
	}
	/* In order only if nothing ever went by TCP, or all that did is read. */
	if (!sender.nothing_sent && sender.write_sequence != peer.copied_sequence) {
		count->tcp_messages_order++;
		return false;
	}
	/* The reader is behind: TCP's window then slows the writer down. */
	if (!has_room(peer.receive_memory, size, peer_policy->receive_memory_limit)) {
		count->tcp_messages_memory++;
		return false;
	}
	if (bpf_msg_redirect_hash(message, &sockets, &state->peer_key, BPF_F_INGRESS) != SK_PASS) {
		count->tcp_messages_peer_gone++;
		return false;
	}
	return true;
}

SEC("sk_msg")
int meshaccel_message_logic(struct sk_msg_md *context)
{
	__u32 size = CONTEXT(size);
	struct sockops_socket_state *state;
	struct sockops_counters *count;
	struct bpf_sock *socket = context->sk;
	__u32 index;

	if (!socket)
		return SK_PASS;
	state = bpf_sk_storage_get(&socket_states, socket, 0, 0);
	if (!state || !state->tracked)
		return SK_PASS;
	index = state->policy;
	count = bpf_map_lookup_elem(&counters, &index);
	if (!count)
		return SK_PASS;
	if (redirect(context, size, state, count)) {
		count->redirected_messages++;
		count->redirected_bytes += size;
	} else {
		count->tcp_bytes += size;
	}
	return SK_PASS;
}

SEC("sk_msg")
int meshaccel_message(struct sk_msg_md *message)
{
	bpf_tail_call(message, &message_logic, 0);
	return SK_PASS;
}

/* ---- release ----------------------------------------------------------- */

static __always_inline bool ingress_queue_empty(struct sock *socket)
{
	__u64 user_data = (__u64)socket->sk_user_data;
	struct sk_psock *psock;
	void *head;

	if (!(user_data & USER_DATA_IS_PSOCK))
		return true;
	psock = (struct sk_psock *)(user_data & ~USER_DATA_FLAGS);
	head = (void *)psock + bpf_core_field_offset(struct sk_psock, ingress_msg);
	return BPF_CORE_READ(psock, ingress_msg.next) == head;
}

static __always_inline bool is_switched_off(__u32 index)
{
	struct sockops_policy *policy = bpf_map_lookup_elem(&policies, &index);

	return !policy || policy->mode == SOCKOPS_MODE_OFF;
}

/*
 * Gives sockets whose policy (or whose peer's policy) is off back to plain
 * TCP. Runs only after the switch has settled, so no redirect is under way; a
 * socket that still holds redirected bytes is left for a later pass, since
 * taking it out of the hash would lose them.
 */
static __always_inline __u32 release_one(struct sock *socket, const struct sockops_control *node)
{
	struct sockops_socket_state *state;
	struct sockops_socket_key key;

	state = bpf_sk_storage_get(&socket_states, socket, 0, 0);
	if (!state || !state->tracked)
		return 0;
	if (node->mode != SOCKOPS_MODE_OFF && !is_switched_off(state->policy) &&
	    !(state->peer_socket && is_switched_off(state->peer_policy)))
		return SOCKOPS_RELEASE_KEPT;
	if (!ingress_queue_empty(socket))
		return SOCKOPS_RELEASE_QUEUE_NOT_EMPTY;
	key = state->key;
	forget(state);
	bpf_map_delete_elem(&sockets, &key);
	return SOCKOPS_RELEASE_DONE;
}

SEC("iter/sockmap")
int meshaccel_release(struct bpf_iter__sockmap *context)
{
	struct sockops_control *node = node_control();
	struct sock *socket = context->sk;
	__u32 outcome;

	if (!socket || !node)
		return 0;
	outcome = release_one(socket, node);
	if (outcome)
		bpf_seq_write(context->meta->seq, &outcome, sizeof(outcome));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
