// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Looks at every TCP socket of the reader's network namespace and writes a
 * record of each that carries data. Changes nothing.
 */
#include "meshaccel/sockops_inspection.h"
#include "sockops/socket_states.h"

#define AF_INET 2
/* Of tcp_sock->nonagle. */
#define NAGLE_OFF 1
#define NAGLE_CORK 2
/* A kernel pointer in sk_user_data carries flags in its low bits. */
#define USER_DATA_FLAGS 7UL
/* Of tcp_sock->urg_data: the byte was read. */
#define URGENT_READ 0x0400
static __always_inline bool carries_data(unsigned char state)
{
	return state == BPF_TCP_ESTABLISHED || state == BPF_TCP_CLOSE_WAIT ||
	       state == BPF_TCP_FIN_WAIT1 || state == BPF_TCP_FIN_WAIT2;
}

static __always_inline void set_addresses(struct sockops_inspected_socket *record,
					  const struct sock_common *socket)
{
	record->local_port = socket->skc_num;
	record->remote_port = bpf_ntohs(socket->skc_dport);
	if (socket->skc_family == AF_INET) {
		record->local_address[2] = bpf_htonl(0xffff);
		record->local_address[3] = socket->skc_rcv_saddr;
		record->remote_address[2] = bpf_htonl(0xffff);
		record->remote_address[3] = socket->skc_daddr;
		return;
	}
	for (int i = 0; i < 4; i++) {
		record->local_address[i] = socket->skc_v6_rcv_saddr.in6_u.u6_addr32[i];
		record->remote_address[i] = socket->skc_v6_daddr.in6_u.u6_addr32[i];
	}
}

static __always_inline __u64 cgroup_of(const struct sock *socket)
{
	struct cgroup *cgroup = cgroup_of_socket(socket);

	return cgroup ? BPF_CORE_READ(cgroup, kn, id) : 0;
}

/* What else keeps something in sk_user_data has no socket's address there. */
static __always_inline bool in_socket_map(const struct sock *socket)
{
	__u64 user_data = (__u64)socket->sk_user_data;
	struct sk_psock *psock = (struct sk_psock *)(user_data & ~USER_DATA_FLAGS);

	return psock && BPF_CORE_READ(psock, sk) == socket;
}

static __always_inline bool has_urgent_data(const struct tcp_sock *tcp)
{
	return (tcp->urg_data & ~URGENT_READ) || tcp->snd_up != tcp->snd_una;
}

static __always_inline __u32 flags_of(struct tcp_sock *tcp)
{
	const struct sock *socket = &tcp->inet_conn.icsk_inet.sk;
	__u64 nonagle = OWN_BITFIELD(tcp, nonagle, 0);
	__u64 zero_copy = 1UL << bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY);
	__u32 flags = 0;

	if (IS_MULTIPATH(tcp))
		flags |= SOCKOPS_INSPECTED_MULTIPATH;
	if (nonagle & NAGLE_CORK)
		flags |= SOCKOPS_INSPECTED_CORK;
	if (nonagle & NAGLE_OFF)
		flags |= SOCKOPS_INSPECTED_NO_DELAY;
	if (socket->__sk_common.skc_flags & zero_copy)
		flags |= SOCKOPS_INSPECTED_ZERO_COPY;
	if (has_urgent_data(tcp))
		flags |= SOCKOPS_INSPECTED_URGENT;
	if (OWN_BITFIELD(tcp, repair, 0))
		flags |= SOCKOPS_INSPECTED_REPAIR;
	if (in_socket_map(socket))
		flags |= SOCKOPS_INSPECTED_SOCKET_MAP;
	return flags;
}

/*
 * Both counters began when the connection did, so what they have counted leads
 * back to the first byte; a FIN counts in both, as in the sequence.
 *
 * A function of its own also in the object: by its arguments the record comes
 * into the BTF, with which the reader's declaration is compared.
 */
static __noinline void set_sequences(struct sockops_inspected_socket *record,
				     const struct tcp_sock *tcp)
{
	record->bytes_received = tcp->bytes_received;
	record->bytes_sent = tcp->bytes_sent;
	record->next_receive_sequence = tcp->rcv_nxt;
	record->unacknowledged_sequence = tcp->snd_una;
	record->copied_sequence = tcp->copied_seq;
	record->write_sequence = tcp->write_seq;
	record->receive_sequence = tcp->rcv_nxt - (__u32)tcp->bytes_received;
	record->send_base_sequence = tcp->snd_una - (__u32)tcp->bytes_acked;
}

static __always_inline void set_upper_layer_protocol(struct sockops_inspected_socket *record,
						     const struct tcp_sock *tcp)
{
	const struct tcp_ulp_ops *operations = tcp->inet_conn.icsk_ulp_ops;

	if (operations)
		bpf_core_read_str(record->upper_layer_protocol,
				  sizeof(record->upper_layer_protocol), &operations->name);
}

static __always_inline void set_state(struct sockops_inspected_socket *record, struct tcp_sock *tcp)
{
	struct sockops_socket_state *state = bpf_sk_storage_get(MAP(socket_states), tcp, 0, 0);

	if (!state)
		return;
	record->flags |= SOCKOPS_INSPECTED_STATE;
	record->state = *state;
	/* One whose peer has taken it out does not know. */
	if (!(record->flags & SOCKOPS_INSPECTED_SOCKET_MAP))
		record->state.status = SOCKOPS_STATUS_PLAIN;
}

SEC("iter/tcp")
int meshaccel_inspect(struct bpf_iter__tcp *context)
{
	struct sock_common *common = context->sk_common;
	struct sockops_inspected_socket record = {};
	struct sock *socket;
	struct tcp_sock *tcp;

	if (!common || !carries_data(common->skc_state))
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	if (!tcp)
		return 0;
	socket = &tcp->inet_conn.icsk_inet.sk;
	record.socket = (__u64)tcp;
	record.cookie = bpf_get_socket_cookie(tcp);
	record.cgroup_id = cgroup_of(socket);
	record.inode = socket->sk_socket->file->f_inode->i_ino;
	record.network_namespace = common->skc_net.net->ns.inum;
	record.family = common->skc_family;
	record.tcp_state = common->skc_state;
	record.receive_memory = socket->sk_backlog.rmem_alloc.counter;
	record.receive_low_water_mark = socket->sk_rcvlowat;
	record.flags = flags_of(tcp);
	set_addresses(&record, common);
	set_sequences(&record, tcp);
	set_upper_layer_protocol(&record, tcp);
	set_state(&record, tcp);
	bpf_seq_write(context->meta->seq, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
