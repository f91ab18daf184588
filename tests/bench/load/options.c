// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include "mixed.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const mode_names[] = {
	[MODE_ECHO] = "echo",
	[MODE_SINK] = "sink",
	[MODE_PINGPONG] = "pingpong",
	[MODE_CONNECT] = "connect",
	[MODE_STREAM] = "stream",
	[MODE_MIXED] = "mixed",
	[MODE_MIXED_SERVER] = "mixed-server",
};

#define MODE_COUNT (sizeof(mode_names) / sizeof(mode_names[0]))
#define DEFAULT_REQUESTS 200
#define DEFAULT_BURST (4 << 20)

static const char usage[] =
	"usage: mesh_load MODE --address ADDRESS --port PORT [OPTION]...\n"
	"       mesh_load --help\n"
	"\n"
	"servers, until SIGTERM or SIGINT:\n"
	"  echo      send back what is received\n"
	"  sink      read everything, answer the end of a stream with its length in bytes\n"
	"  mixed-server\n"
	"            echo the requests of a mixed client, read and count its bursts\n"
	"clients:\n"
	"  pingpong  a request and its echo at a time on every connection\n"
	"  connect   a new connection for every request\n"
	"  stream    write to a sink without pause\n"
	"  mixed     two phases in turn on every connection, with a mixed-server: --requests\n"
	"            pingpong requests, then --burst bytes one way in writes of --size, and the\n"
	"            next requests once the server has read and counted the burst\n"
	"\n"
	"  --threads N       threads, each with its share of the connections (1)\n"
	"  --connections N   connections at a time (1)\n"
	"  --size BYTES      message size, or size of one write of a stream (64)\n"
	"  --duration S      seconds to measure (1)\n"
	"  --warmup S        seconds before that, not counted; for requests alone (0)\n"
	"  --patience S      seconds without a byte after which a connection has stalled (10)\n"
	"  --rate N          pingpong: requests a second over all connections, timed from when\n"
	"                    each was due (0: the next follows the reply)\n"
	"  --bytes N         stream: so many bytes on each connection instead of a duration\n"
	"  --requests N      mixed: requests between two bursts (200)\n"
	"  --burst BYTES     mixed: bytes of a burst (4194304)\n"
	"  --verify          bytes depend on their position and are checked; give it to the\n"
	"                    client, and to a sink or mixed-server as well\n"
	"\n"
	"Requests count that began within the duration, and the time runs until the last of them is\n"
	"answered; so with a stream and its last byte, and with mixed and the phases under way.\n"
	"\n"
	"A result is one JSON object on standard output. Exit status 1: an error, a byte that is\n"
	"lost, doubled or changed, or a connection that stalled. 2: wrong usage.\n";

enum option_name {
	ADDRESS,
	PORT,
	THREADS,
	CONNECTIONS,
	SIZE,
	DURATION,
	WARMUP,
	PATIENCE,
	RATE,
	BYTES,
	REQUESTS,
	BURST,
	VERIFY
};

static const struct option long_options[] = {
	{"address", required_argument, NULL, ADDRESS},
	{"port", required_argument, NULL, PORT},
	{"threads", required_argument, NULL, THREADS},
	{"connections", required_argument, NULL, CONNECTIONS},
	{"size", required_argument, NULL, SIZE},
	{"duration", required_argument, NULL, DURATION},
	{"warmup", required_argument, NULL, WARMUP},
	{"patience", required_argument, NULL, PATIENCE},
	{"rate", required_argument, NULL, RATE},
	{"bytes", required_argument, NULL, BYTES},
	{"requests", required_argument, NULL, REQUESTS},
	{"burst", required_argument, NULL, BURST},
	{"verify", no_argument, NULL, VERIFY},
	{NULL, 0, NULL, 0},
};

_Noreturn static void wrong_usage(const char *complaint, const char *word)
{
	fprintf(stderr, "mesh_load: %s: %s\n\n%s", complaint, word, usage);
	exit(2);
}

static uint64_t whole_number(const char *word, uint64_t minimum, uint64_t maximum)
{
	char *end;
	uint64_t number;

	errno = 0;
	number = strtoull(word, &end, 10);
	if (errno || end == word || *end || *word == '-')
		wrong_usage("not a whole number", word);
	if (number < minimum || number > maximum)
		wrong_usage("out of range", word);
	return number;
}

static double amount(const char *word)
{
	char *end;
	double number = strtod(word, &end);

	if (end == word || *end || !isfinite(number) || number < 0)
		wrong_usage("not a positive number", word);
	return number;
}

static enum mode parse_mode(const char *word)
{
	for (unsigned int mode = 0; mode < MODE_COUNT; mode++)
		if (!strcmp(word, mode_names[mode]))
			return (enum mode)mode;
	wrong_usage("unknown mode", word);
}

static void set_option(struct options *options, int name, const char *value)
{
	switch ((enum option_name)name) {
	case ADDRESS:
		options->address = value;
		return;
	case PORT:
		whole_number(value, 1, UINT16_MAX);
		options->port = value;
		return;
	case THREADS:
		options->threads = (unsigned int)whole_number(value, 1, 256);
		return;
	case CONNECTIONS:
		options->connections = (unsigned int)whole_number(value, 1, 1000000);
		return;
	case SIZE:
		options->size = whole_number(value, 1, 1 << 26);
		return;
	case DURATION:
		options->duration = amount(value);
		return;
	case WARMUP:
		options->warmup = amount(value);
		return;
	case PATIENCE:
		options->patience = amount(value);
		return;
	case RATE:
		options->rate = amount(value);
		return;
	case BYTES:
		options->bytes = whole_number(value, 1, UINT64_MAX);
		return;
	case REQUESTS:
		options->requests = whole_number(value, 1, UINT32_MAX);
		return;
	case BURST:
		options->burst = whole_number(value, 1, UINT32_MAX);
		return;
	case VERIFY:
		options->verify = true;
		return;
	}
}

static void require(bool condition, const char *complaint, const char *word)
{
	if (!condition)
		wrong_usage(complaint, word);
}

static void check_options(const struct options *options)
{
	bool is_mixed = options->mode == MODE_MIXED;

	require(options->address, "missing", "--address");
	require(options->port, "missing", "--port");
	require(options->threads <= options->connections || options->mode <= MODE_MIXED_SERVER,
		"more threads than connections", "--threads");
	require(!options->rate || options->mode == MODE_PINGPONG, "only for pingpong", "--rate");
	require(!options->bytes || options->mode == MODE_STREAM, "only for stream", "--bytes");
	require(!options->requests || is_mixed, "only for mixed", "--requests");
	require(!options->burst || is_mixed, "only for mixed", "--burst");
	/* The first request of a cycle carries its header. */
	require(!is_mixed || options->size >= CYCLE_HEADER_BYTES, "too small for mixed", "--size");
}

struct options parse_options(int count, char **words)
{
	struct options options = {
		.threads = 1, .connections = 1, .size = 64, .duration = 1, .patience = 10};
	int name;

	if (count < 2)
		wrong_usage("missing", "MODE");
	if (!strcmp(words[1], "--help")) {
		fputs(usage, stdout);
		exit(EXIT_SUCCESS);
	}
	options.mode = parse_mode(words[1]);
	options.mode_name = mode_names[options.mode];
	/* Options follow the mode, which stands where getopt expects the program. */
	while ((name = getopt_long(count - 1, words + 1, "", long_options, NULL)) != -1) {
		if (name == '?')
			wrong_usage("see", "usage");
		set_option(&options, name, optarg);
	}
	require(optind == count - 1, "unexpected", words[optind + 1]);
	check_options(&options);
	options.requests = options.requests ? options.requests : DEFAULT_REQUESTS;
	options.burst = options.burst ? options.burst : DEFAULT_BURST;
	return options;
}
