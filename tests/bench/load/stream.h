// SPDX-License-Identifier: Apache-2.0
/* The one-way stream: its client, and the bytes that client and sink agree on. */
#ifndef MESH_LOAD_STREAM_H
#define MESH_LOAD_STREAM_H

#include "options.h"

/* A verified stream begins with its seed, so that the sink can check the rest. */
#define STREAM_SEED_BYTES sizeof(uint64_t)
/* A sink answers the end of a stream with the number of bytes it has read, in network order. */
#define STREAM_COUNT_BYTES sizeof(uint64_t)

/* Run the load and print its result; does not return on an error. */
void run_stream(const struct options *options);

#endif
