// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const mode_names[] = {
	[MODE_ECHO] = "echo",	    [MODE_SINK] = "sink",     [MODE_PINGPONG] = "pingpong",
	[MODE_CONNECT] = "connect", [MODE_STREAM] = "stream",
};

#define MODE_COUNT (sizeof(mode_names) / sizeof(mode_names[0]))

static const char usage[] =
	"usage: mesh_load MODE --address ADDRESS --port PORT [OPTION]...\n"
	"\n"
	"servers, until SIGTERM or SIGINT:\n"
	"  echo      send back what is received\n"
	"  sink      read everything, answer the end of a stream with its length in bytes\n"
	"clients:\n"
	"  pingpong  a request and its echo at a time on every connection\n"
	"  connect   a new connection for every request\n"
	"  stream    write to a sink without pause\n"
	"\n"
	"  --threads N       threads, each with its share of the connections (1)\n"
	"  --connections N   connections at a time (1)\n"
	"  --size BYTES      message size, or size of one write of a stream (64)\n"
	"  --duration S      seconds to measure (1)\n"
	"  --warmup S        seconds before that, not counted; not for a stream (0)\n"
	"  --patience S      seconds without a byte after which a connection has stalled (10)\n"
	"  --rate N          pingpong: requests a second over all connections, timed from when\n"
	"                    each was due (0: the next follows the reply)\n"
	"  --bytes N         stream: so many bytes on each connection instead of a duration\n"
	"  --verify          bytes depend on their position and are checked; give it to the\n"
	"                    client, and to a sink as well\n"
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

struct options parse_options(int count, char **words)
{
	struct options options = {
		.threads = 1, .connections = 1, .size = 64, .duration = 1, .patience = 10};
	int name;

	if (count < 2)
		wrong_usage("missing", "MODE");
	options.mode = parse_mode(words[1]);
	options.mode_name = mode_names[options.mode];
	/* Options follow the mode, which stands where getopt expects the program. */
	while ((name = getopt_long(count - 1, words + 1, "", long_options, NULL)) != -1) {
		if (name == '?')
			wrong_usage("see", "usage");
		set_option(&options, name, optarg);
	}
	require(optind == count - 1, "unexpected", words[optind + 1]);
	require(options.address, "missing", "--address");
	require(options.port, "missing", "--port");
	require(options.threads <= options.connections || options.mode <= MODE_SINK,
		"more threads than connections", "--threads");
	require(!options.rate || options.mode == MODE_PINGPONG, "only for pingpong", "--rate");
	require(!options.bytes || options.mode == MODE_STREAM, "only for stream", "--bytes");
	return options;
}
