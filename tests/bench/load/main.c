// SPDX-License-Identifier: Apache-2.0
/*
 * mesh_load: TCP load for the tests and benchmarks of meshaccel, clients and servers in one program.
 * Made for small costs of its own and for proof: latency of every request, every byte checked.
 */
#include "endpoint.h"
#include "mixed.h"
#include "options.h"
#include "requests.h"
#include "server.h"
#include "stream.h"

#include <stdlib.h>

int main(int count, char **words)
{
	struct options options = parse_options(count, words);

	raise_open_file_limit();
	switch (options.mode) {
	case MODE_ECHO:
	case MODE_SINK:
	case MODE_MIXED_SERVER:
		return run_server(&options);
	case MODE_PINGPONG:
	case MODE_CONNECT:
		run_requests(&options);
		return EXIT_SUCCESS;
	case MODE_STREAM:
		run_stream(&options);
		return EXIT_SUCCESS;
	case MODE_MIXED:
		run_mixed(&options);
		return EXIT_SUCCESS;
	}
	return EXIT_FAILURE;
}
