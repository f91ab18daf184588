// SPDX-License-Identifier: Apache-2.0
/*
 * Log-linear histogram of durations: exact below 128 ns, above that 128 buckets for every power of
 * two, so that no bucket is wider than 0.8 % of its values. Fixed size, no allocation on recording.
 */
#ifndef MESH_LOAD_HISTOGRAM_H
#define MESH_LOAD_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_LINEAR_BITS 7
#define HISTOGRAM_LINEAR (1U << HISTOGRAM_LINEAR_BITS)
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_LINEAR_BITS + 1) * HISTOGRAM_LINEAR)

struct histogram {
	uint64_t count;
	uint64_t sum;
	uint64_t minimum;
	uint64_t maximum;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_record(struct histogram *histogram, uint64_t nanoseconds);
void histogram_add(struct histogram *total, const struct histogram *part);

/*
 * Write it as a JSON object: count, mean, minimum and maximum in seconds, and "buckets", a list of
 * [seconds, count] with the upper bound of each bucket that is not empty, in rising order.
 */
void histogram_print(const struct histogram *histogram, FILE *output);

#endif
