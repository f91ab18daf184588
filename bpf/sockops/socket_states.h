/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What is known of each socket, in its own storage: it goes with the socket. The
 * other objects are given this map when they are loaded.
 */
#ifndef MESHACCEL_SOCKOPS_SOCKET_STATES_H
#define MESHACCEL_SOCKOPS_SOCKET_STATES_H

#include "meshaccel/kernel.h"
#include "meshaccel/sockops.h"

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sockops_socket_state);
} socket_states SEC(".maps");

#endif
