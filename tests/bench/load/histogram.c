// SPDX-License-Identifier: Apache-2.0
#include "histogram.h"

#include <stdbool.h>

#define NANOSECONDS_PER_SECOND 1e9

static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift;

	if (value < HISTOGRAM_LINEAR)
		return (unsigned int)value;
	shift = 63U - (unsigned int)__builtin_clzll(value) - HISTOGRAM_LINEAR_BITS;
	/* The shifted value keeps its top bit, which counts for one more block of buckets. */
	return shift * HISTOGRAM_LINEAR + (unsigned int)(value >> shift);
}

static uint64_t upper_bound_of(unsigned int bucket)
{
	unsigned int shift;

	if (bucket < 2 * HISTOGRAM_LINEAR)
		return bucket;
	shift = bucket / HISTOGRAM_LINEAR - 1;
	return ((uint64_t)(bucket - shift * HISTOGRAM_LINEAR + 1) << shift) - 1;
}

void histogram_record(struct histogram *histogram, uint64_t nanoseconds)
{
	if (histogram->count == 0 || nanoseconds < histogram->minimum)
		histogram->minimum = nanoseconds;
	if (nanoseconds > histogram->maximum)
		histogram->maximum = nanoseconds;
	histogram->count++;
	histogram->sum += nanoseconds;
	histogram->buckets[bucket_of(nanoseconds)]++;
}

void histogram_add(struct histogram *total, const struct histogram *part)
{
	if (part->count == 0)
		return;
	if (total->count == 0 || part->minimum < total->minimum)
		total->minimum = part->minimum;
	if (part->maximum > total->maximum)
		total->maximum = part->maximum;
	total->count += part->count;
	total->sum += part->sum;
	for (unsigned int bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++)
		total->buckets[bucket] += part->buckets[bucket];
}

void histogram_print(const struct histogram *histogram, FILE *output)
{
	double mean = histogram->count ? (double)histogram->sum / (double)histogram->count : 0.0;
	bool first = true;

	fprintf(output, "{\"count\": %llu, \"mean\": %.9g, \"minimum\": %.9g, \"maximum\": %.9g, ",
		(unsigned long long)histogram->count, mean / NANOSECONDS_PER_SECOND,
		(double)histogram->minimum / NANOSECONDS_PER_SECOND,
		(double)histogram->maximum / NANOSECONDS_PER_SECOND);
	fputs("\"buckets\": [", output);
	for (unsigned int bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
		if (!histogram->buckets[bucket])
			continue;
		fprintf(output, "%s[%.9g, %llu]", first ? "" : ", ",
			(double)upper_bound_of(bucket) / NANOSECONDS_PER_SECOND,
			(unsigned long long)histogram->buckets[bucket]);
		first = false;
	}
	fputs("]}", output);
}
