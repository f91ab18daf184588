/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reading the kernel's structures, the fastest way that the verifier takes.
 */
#ifndef MESHACCEL_SOCKOPS_READING_H
#define MESHACCEL_SOCKOPS_READING_H

#include "meshaccel/kernel.h"

/* Set before the load: whether the verifier takes both kinds of cast (6.2 on). */
CONSTANT(__u32, use_casts, 0);

extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym __weak;
extern void *bpf_cast_to_kern_ctx(void *context) __ksym __weak;

#define CAST(type, address) \
	((struct type *)bpf_rdonly_cast((void *)(address), bpf_core_type_id_kernel(struct type)))

/* A member of a structure that may be gone: then it is whatever stands there, or 0. */
#define READ(type, address, member) \
	(use_casts ? CAST(type, address)->member : BPF_CORE_READ((struct type *)(address), member))

#endif
