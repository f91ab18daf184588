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
#include "sockops/connection.h"
#include "sockops/message.h"
#include "sockops/release.h"

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
		round_trip(context);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (context->args[1] == BPF_TCP_CLOSE)
			closed(context);
		break;
	}
	return 1;
}

SEC("sk_msg")
int meshaccel_message_logic(struct sk_msg_md *context)
{
	__u32 size = CONTEXT(size);
	struct sockops_socket_state *state;
	struct sockops_counters *count;
	struct bpf_sock *socket = context->sk;
	__u32 index, way;

	if (!socket)
		return SK_PASS;
	state = bpf_sk_storage_get(MAP(socket_states), socket, 0, 0);
	if (!state || state->status == SOCKOPS_STATUS_PLAIN)
		return SK_PASS;
	index = state->policy;
	count = bpf_map_lookup_elem(MAP(counters), &index);
	if (!count)
		return SK_PASS;
	way = forward(context, size, state);
	account(count, state, way, size);
	return way == SOCKOPS_MESSAGE_REFUSED ? SK_DROP : SK_PASS;
}

SEC("sk_msg")
int meshaccel_message(struct sk_msg_md *message)
{
	/*
	 * A socket holds this program, and by this line the program holds the hash,
	 * so that neither goes, nor what is unread, before the socket is closed:
	 * the kernel empties the queues of a hash that nobody holds any more.
	 */
	asm volatile("" : : "r"(MAP(sockets)));
	bpf_tail_call(message, MAP(message_logic), 0);
	return SK_PASS;
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

SEC("iter/sockmap")
int meshaccel_deny(struct bpf_iter__sockmap *context)
{
	struct sock *socket = context->sk;
	__u32 denied = 1;

	if (socket && deny_one(socket))
		bpf_seq_write(context->meta->seq, &denied, sizeof(denied));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
