// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes that depend on their position in the stream and on the stream's seed. The sequence has no
 * short period, so a byte lost, doubled, moved or taken from another connection is found.
 */
#ifndef MESH_LOAD_PATTERN_H
#define MESH_LOAD_PATTERN_H

#include <stddef.h>
#include <stdint.h>

/* A seed that no other connection of any run is likely to have. */
uint64_t pattern_seed(void);

/* Write the bytes of the stream that begin at `position`. */
void pattern_fill(uint64_t seed, uint64_t position, unsigned char *bytes, size_t length);

/* Return how many of the received bytes are right before the first wrong one. */
size_t pattern_matching(uint64_t seed, uint64_t position, const unsigned char *bytes,
			size_t length);

#endif
