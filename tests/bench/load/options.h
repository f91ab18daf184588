// SPDX-License-Identifier: Apache-2.0
/* What the command line asks for. */
#ifndef MESH_LOAD_OPTIONS_H
#define MESH_LOAD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mode {
	MODE_ECHO,
	MODE_SINK,
	MODE_MIXED_SERVER, /* the last of the servers */
	MODE_PINGPONG,
	MODE_CONNECT,
	MODE_STREAM,
	MODE_MIXED,
};

struct options {
	enum mode mode;
	const char *mode_name;
	const char *address; /* numeric, IPv4 or IPv6 */
	const char *port;
	unsigned int threads;
	unsigned int connections;
	size_t size;	   /* bytes of a message, or of one write of a stream */
	double duration;   /* seconds, after the warm-up */
	double warmup;	   /* seconds whose requests are not counted */
	double patience;   /* seconds without a byte after which a connection has stalled */
	double rate;	   /* requests a second over all connections, 0: as fast as replies come */
	uint64_t bytes;	   /* stream: end each connection after so many, 0: after the duration */
	uint64_t requests; /* mixed: so many, then a burst */
	uint64_t burst;	   /* mixed: bytes of a burst */
	bool verify;	   /* position-dependent bytes, checked by who reads them */
};

/* Parse the command line; prints the usage and ends the program when it is wrong. */
struct options parse_options(int count, char **words);

#endif
