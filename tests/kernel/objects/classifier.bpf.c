// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Programs of the tests at a device: every packet gets a mark, and goes on. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#define MARK 7

SEC("tc/ours")
int meshaccel_test(struct __sk_buff *packet)
{
	packet->mark = MARK;
	return TC_ACT_UNSPEC;
}

SEC("tc/foreign")
int foreign(struct __sk_buff *packet)
{
	packet->mark = MARK;
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
