// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Relays: the connection that one server accepted and the connection that
 * another server accepted are joined, so that what the one's client sends goes
 * out, in the kernel, to the other's client. Neither server sees these bytes;
 * each still decides when its own connection ends.
 */
#include "sockops_relay/connection.h"
#include "sockops_relay/limit.h"
#include "sockops_relay/repetition.h"
#include "sockops_relay/stream.h"

/* enum of include/net/tcp_states.h */
#define TCP_FIN_WAIT1 4
#define TCP_CLOSE 7
#define TCP_LAST_ACK 9

SEC("sockops")
int meshaccel_relay_connection(struct bpf_sock_ops *context)
{
	switch (context->op) {
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		relay_accepted(context);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		/* Its server sends no more, so nothing can be sent for a partner either. */
		if (context->args[1] == TCP_FIN_WAIT1 || context->args[1] == TCP_LAST_ACK)
			relay_left(context);
		if (context->args[1] == TCP_CLOSE)
			relay_closed(context);
		break;
	}
	return 1;
}

SEC("sk_skb/stream_verdict")
int meshaccel_relay_logic(struct __sk_buff *packet)
{
	relay_bytes(packet);
	return SK_PASS;
}

SEC("sk_skb/stream_verdict")
int meshaccel_relay_stream(struct __sk_buff *packet)
{
	/*
	 * A socket holds this program, and by this line the program holds the hash:
	 * the kernel empties the queues of a hash that nobody holds any more.
	 */
	asm volatile("" : : "r"(MAP(relay_sockets)));
	if (!relay_is_next(packet))
		return SK_DROP;
	bpf_tail_call(packet, MAP(relay_logic), 0);
	return SK_PASS;
}

SEC("cgroup_skb/ingress")
int meshaccel_relay_limit(struct __sk_buff *packet)
{
	return relay_admits(packet);
}

SEC("cgroup_skb/egress")
int meshaccel_relay_acknowledge(struct __sk_buff *packet)
{
	return relay_acknowledges(packet);
}

char LICENSE[] SEC("license") = "GPL";
