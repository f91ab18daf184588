// SPDX-License-Identifier: Apache-2.0
#include "pattern.h"

#include "failure.h"

#include <string.h>
#include <sys/random.h>

#define WORD sizeof(uint64_t)
#define CHECK_BYTES 4096

/* The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit. */
static uint64_t word_at(uint64_t seed, uint64_t index)
{
	uint64_t word = seed + (index + 1) * 0x9E3779B97F4A7C15ULL;

	word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9ULL;
	word = (word ^ (word >> 27)) * 0x94D049BB133111EBULL;
	return word ^ (word >> 31);
}

uint64_t pattern_seed(void)
{
	uint64_t seed;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		fail_system("getrandom");
	return seed;
}

void pattern_fill(uint64_t seed, uint64_t position, unsigned char *bytes, size_t length)
{
	while (length > 0) {
		uint64_t word = word_at(seed, position / WORD);
		size_t skip = position % WORD;
		size_t part = WORD - skip < length ? WORD - skip : length;

		memcpy(bytes, (const unsigned char *)&word + skip, part);
		position += part;
		bytes += part;
		length -= part;
	}
}

static size_t equal_bytes(const unsigned char *first, const unsigned char *second, size_t length)
{
	size_t count = 0;

	if (!memcmp(first, second, length))
		return length;
	while (first[count] == second[count])
		count++;
	return count;
}

size_t pattern_matching(uint64_t seed, uint64_t position, const unsigned char *bytes, size_t length)
{
	unsigned char expected[CHECK_BYTES];
	size_t checked = 0;

	while (checked < length) {
		size_t part = length - checked < CHECK_BYTES ? length - checked : CHECK_BYTES;
		size_t equal;

		pattern_fill(seed, position + checked, expected, part);
		equal = equal_bytes(expected, bytes + checked, part);
		checked += equal;
		if (equal < part)
			break;
	}
	return checked;
}
