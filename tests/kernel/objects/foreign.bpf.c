// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Somebody else's program at a cgroup of the tests: it does nothing. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("sockops")
int foreign(struct bpf_sock_ops *context)
{
	(void)context;
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
