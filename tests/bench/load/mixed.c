// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "mixed.h"

#include "endpoint.h"
#include "failure.h"
#include "histogram.h"
#include "pattern.h"
#include "stream.h"
#include "workers.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_AT_A_TIME 64
#define READ_BYTES 65536
/* A connection that can always write must let the others have their turn. */
#define WRITES_AT_A_TIME 16

enum phase { REQUEST, BURST, COUNT };

struct connection {
	int descriptor;
	enum phase phase; /* what the next bytes from the server belong to */
	bool watches_space;
	struct cycle cycle;
	uint64_t seed;
	uint64_t sent; /* positions in the cycle */
	uint64_t received;
	uint64_t step_end;    /* of the request or the burst under way */
	size_t left_of_write; /* of a write that the socket took in part */
	uint64_t started;     /* when the request under way was */
	unsigned char count[STREAM_COUNT_BYTES];
	size_t count_received;
};

struct worker {
	const struct options *options;
	struct connection *connections;
	unsigned int count;
	unsigned int open;
	int queue;
	unsigned char *outgoing;
	unsigned char *incoming;
	uint64_t start;
	uint64_t deadline;
	uint64_t finished;
	uint64_t bytes; /* that have arrived, either way */
	struct histogram latencies;
};

uint64_t cycle_length(const struct cycle *cycle)
{
	return be64toh(cycle->echoed) + be64toh(cycle->taken);
}

/* Put the part of the header that lies in [position, position + length) where it belongs. */
static void overlay_header(const struct connection *connection, uint64_t position,
			   unsigned char *bytes, size_t length)
{
	const unsigned char *header = (const unsigned char *)&connection->cycle;

	for (uint64_t at = position; at < CYCLE_HEADER_BYTES && at < position + length; at++)
		bytes[at - position] = header[at];
}

static bool write_once(const struct worker *worker, struct connection *connection)
{
	size_t size = connection->left_of_write ? connection->left_of_write : worker->options->size;
	ssize_t count;

	if (connection->step_end - connection->sent < size)
		size = connection->step_end - connection->sent;
	if (worker->options->verify)
		pattern_fill(connection->seed, connection->sent, worker->outgoing, size);
	overlay_header(connection, connection->sent, worker->outgoing, size);
	count = send(connection->descriptor, worker->outgoing, size, MSG_NOSIGNAL);
	if (count < 0 && errno == EAGAIN)
		return false;
	if (count < 0)
		fail_system("send");
	connection->sent += (uint64_t)count;
	connection->left_of_write = size - (size_t)count;
	return true;
}

static void write_some(struct worker *worker, struct connection *connection)
{
	bool has_more;

	for (int index = 0; index < WRITES_AT_A_TIME; index++)
		if (connection->sent == connection->step_end || !write_once(worker, connection))
			break;
	has_more = connection->sent < connection->step_end;
	if (!has_more && connection->phase == BURST)
		connection->phase = COUNT;
	if (has_more == connection->watches_space)
		return;
	connection->watches_space = has_more;
	change_watch(worker->queue, connection->descriptor, has_more ? EPOLLIN | EPOLLOUT : EPOLLIN,
		     connection);
}

static void begin_cycle(const struct worker *worker, struct connection *connection)
{
	connection->seed = pattern_seed();
	connection->cycle = (struct cycle){
		.echoed = htobe64(worker->options->requests * worker->options->size),
		.taken = htobe64(worker->options->burst),
		.seed = htobe64(connection->seed),
	};
	connection->sent = 0;
	connection->received = 0;
	connection->count_received = 0;
	connection->phase = REQUEST;
}

/* Go on with the next request or the burst, or end when the time is over. */
static void begin_step(struct worker *worker, struct connection *connection)
{
	uint64_t current = now();

	if (current >= worker->deadline) {
		close(connection->descriptor);
		worker->open--;
		return;
	}
	connection->started = current;
	if (connection->sent < be64toh(connection->cycle.echoed)) {
		connection->step_end = connection->sent + worker->options->size;
	} else {
		connection->phase = BURST;
		connection->step_end = cycle_length(&connection->cycle);
	}
	write_some(worker, connection);
}

static void check_reply(const struct worker *worker, const struct connection *connection,
			size_t count)
{
	unsigned char header[CYCLE_HEADER_BYTES];
	uint64_t position = connection->received;
	size_t header_part = 0;
	size_t right;

	if (count > connection->sent - position)
		fail("bytes came back that were not sent, after byte %llu of a cycle",
		     (unsigned long long)connection->sent);
	if (!worker->options->verify)
		return;
	if (position < CYCLE_HEADER_BYTES) {
		header_part = CYCLE_HEADER_BYTES - position < count ? CYCLE_HEADER_BYTES - position
								    : count;
		overlay_header(connection, position, header, header_part);
		if (memcmp(header, worker->incoming, header_part))
			fail("the head of a cycle came back changed");
	}
	right = header_part + pattern_matching(connection->seed, position + header_part,
					       worker->incoming + header_part, count - header_part);
	if (right < count)
		fail("byte %llu of the replies in a cycle is wrong",
		     (unsigned long long)(position + right));
}

static void receive_reply(struct worker *worker, struct connection *connection, size_t count)
{
	check_reply(worker, connection, count);
	connection->received += count;
	if (connection->received < connection->step_end)
		return;
	histogram_record(&worker->latencies, now() - connection->started);
	worker->bytes += 2 * worker->options->size;
	begin_step(worker, connection);
}

static void receive_count(struct worker *worker, struct connection *connection, size_t received)
{
	uint64_t count;

	if (received > STREAM_COUNT_BYTES - connection->count_received)
		fail("more than a count came back after a burst");
	memcpy(connection->count + connection->count_received, worker->incoming, received);
	connection->count_received += received;
	if (connection->count_received < STREAM_COUNT_BYTES)
		return;
	memcpy(&count, connection->count, sizeof(count));
	if (be64toh(count) != worker->options->burst)
		fail("the server read %llu bytes of a burst of %llu",
		     (unsigned long long)be64toh(count),
		     (unsigned long long)worker->options->burst);
	worker->bytes += worker->options->burst;
	begin_cycle(worker, connection);
	begin_step(worker, connection);
}

static void receive(struct worker *worker, struct connection *connection)
{
	ssize_t count = recv(connection->descriptor, worker->incoming, READ_BYTES, 0);

	if (count < 0 && errno == EAGAIN)
		return;
	if (count < 0)
		fail_system("recv");
	if (count == 0)
		fail("the server gave up after byte %llu of a cycle",
		     (unsigned long long)connection->sent);
	switch (connection->phase) {
	case REQUEST:
		receive_reply(worker, connection, (size_t)count);
		return;
	case BURST:
		fail("%zd bytes came back from the middle of a burst", count);
	case COUNT:
		receive_count(worker, connection, (size_t)count);
		return;
	}
}

/* Reading comes last: the next step may close the connection. */
static void handle_event(struct worker *worker, const struct epoll_event *event)
{
	struct connection *connection = event->data.ptr;

	if (event->events & EPOLLOUT)
		write_some(worker, connection);
	if (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		receive(worker, connection);
}

static void open_connections(void *argument)
{
	struct worker *worker = argument;

	worker->queue = make_event_queue();
	for (unsigned int index = 0; index < worker->count; index++) {
		struct connection *connection = &worker->connections[index];

		connection->descriptor =
			connect_to(worker->options->address, worker->options->port, true);
		watch(worker->queue, connection->descriptor, EPOLLIN, connection);
		begin_cycle(worker, connection);
	}
	worker->open = worker->count;
}

static void exchange(void *argument, uint64_t start)
{
	struct worker *worker = argument;
	struct epoll_event events[EVENTS_AT_A_TIME];
	uint64_t last_progress = start;

	worker->start = start;
	worker->deadline = start + nanoseconds(worker->options->duration);
	for (unsigned int index = 0; index < worker->count; index++)
		begin_step(worker, &worker->connections[index]);
	while (worker->open > 0) {
		uint64_t give_up = last_progress + nanoseconds(worker->options->patience);
		int count = wait_for_events(worker->queue, events, EVENTS_AT_A_TIME, give_up);

		for (int index = 0; index < count; index++)
			handle_event(worker, &events[index]);
		if (count > 0)
			last_progress = now();
		else if (now() >= give_up)
			fail("%u of %u connections stalled for %g s", worker->open, worker->count,
			     worker->options->patience);
	}
	worker->finished = now();
}

static struct worker *make_workers(const struct options *options)
{
	struct worker *workers = allocate(options->threads, sizeof(*workers));

	for (unsigned int index = 0; index < options->threads; index++) {
		struct worker *worker = &workers[index];

		worker->options = options;
		worker->count = share_of(options->connections, options->threads, index);
		worker->connections = allocate(worker->count, sizeof(*worker->connections));
		worker->outgoing = allocate(options->size, 1);
		worker->incoming = allocate(READ_BYTES, 1);
	}
	return workers;
}

static void print_result(const struct options *options, const struct worker *workers)
{
	struct histogram *latencies = allocate(1, sizeof(*latencies));
	uint64_t finished = 0;
	uint64_t bytes = 0;

	for (unsigned int index = 0; index < options->threads; index++) {
		histogram_add(latencies, &workers[index].latencies);
		bytes += workers[index].bytes;
		if (workers[index].finished > finished)
			finished = workers[index].finished;
	}
	printf("{\"mode\": \"%s\", \"connections\": %u, \"size\": %zu, ", options->mode_name,
	       options->connections, options->size);
	printf("\"seconds\": %.9g, \"bytes\": %llu, \"requests\": %llu, \"latency\": ",
	       (double)(finished - workers->start) / (double)NANOSECONDS_PER_SECOND,
	       (unsigned long long)bytes, (unsigned long long)latencies->count);
	histogram_print(latencies, stdout);
	puts("}");
}

void run_mixed(const struct options *options)
{
	struct worker *workers = make_workers(options);
	struct task task = {
		.prepare = open_connections,
		.run = exchange,
		.workers = workers,
		.worker_size = sizeof(*workers),
	};

	run_workers(&task, options->threads);
	print_result(options, workers);
}
