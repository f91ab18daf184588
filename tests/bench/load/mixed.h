// SPDX-License-Identifier: Apache-2.0
/* Requests and bursts in turn: the client, and the bytes that client and server agree on. */
#ifndef MESH_LOAD_MIXED_H
#define MESH_LOAD_MIXED_H

#include "options.h"

#include <stdint.h>

/*
 * A cycle is what is sent back and then, at once or later, what is only counted. It begins with this
 * header in place of the first bytes that are sent back; the numbers are in network order. At its
 * end the server answers with `taken`, as a sink does.
 */
struct cycle {
	uint64_t echoed; /* bytes sent back, the header among them */
	uint64_t taken;	 /* bytes of the burst that follows */
	uint64_t seed;	 /* of the other bytes, when they are verified */
};

#define CYCLE_HEADER_BYTES sizeof(struct cycle)

/* The bytes of the whole cycle, by its header. */
uint64_t cycle_length(const struct cycle *cycle);

/* Run the load and print its result; does not return on an error. */
void run_mixed(const struct options *options);

#endif
