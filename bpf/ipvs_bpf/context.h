/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Members of the packet's context. The verifier wants each at a constant offset
 * from it; a compiler that uses one often would keep its address instead.
 */
#ifndef MESHACCEL_IPVS_CONTEXT_H
#define MESHACCEL_IPVS_CONTEXT_H

#include <linux/bpf.h>
#include <stddef.h>

/* The value of a member; of `data` and `data_end`, which are read as 32 bits too, a pointer. */
#define READ_MEMBER(packet, member)                                                             \
	({                                                                                      \
		__u64 read_value;                                                               \
		asm volatile(                                                                   \
			"%[value] = *(u32 *)(%[context] + %[at])"                               \
			: [value] "=r"(read_value)                                              \
			: [context] "r"(packet), [at] "i"(offsetof(struct __sk_buff, member))); \
		read_value;                                                                     \
	})

static __always_inline void write_mark(struct __sk_buff *packet, __u32 mark)
{
	asm volatile("*(u32 *)(%[context] + %[at]) = %[mark]"
		     :
		     : [context] "r"(packet), [at] "i"(offsetof(struct __sk_buff, mark)),
		       [mark] "r"(mark)
		     : "memory");
}

#endif
