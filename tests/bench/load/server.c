// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "server.h"

#include "endpoint.h"
#include "failure.h"
#include "mixed.h"
#include "pattern.h"
#include "stream.h"
#include "workers.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_AT_A_TIME 64
#define READ_BYTES 131072

struct connection {
	int descriptor;
	uint64_t received;
	uint64_t seed;		/* sink: from the first bytes of a verified stream */
	struct cycle cycle;	/* mixed: from its first bytes */
	uint64_t position;	/* mixed: in the cycle */
	unsigned char *pending; /* echo: what the client has not taken yet */
	size_t pending_sent;
	size_t pending_size;
};

struct worker {
	const struct options *options;
	int listener;
	int stop; /* readable when the server is to end */
	int queue;
	unsigned char *buffer;
	uint64_t connections;
	uint64_t bytes;
	uint64_t corrupted; /* connections with a wrong byte */
};

static void close_connection(struct connection *connection)
{
	close(connection->descriptor);
	free(connection->pending);
	free(connection);
}

static void accept_connections(struct worker *worker)
{
	int descriptor;

	while ((descriptor = accept_from(worker->listener)) >= 0) {
		struct connection *connection = allocate(1, sizeof(*connection));

		connection->descriptor = descriptor;
		worker->connections++;
		watch(worker->queue, descriptor, EPOLLIN, connection);
	}
}

/* Keep what the socket did not take, and read no more until it has. */
static void keep_pending(struct worker *worker, struct connection *connection,
			 const unsigned char *bytes, size_t size)
{
	connection->pending = allocate(size, 1);
	memcpy(connection->pending, bytes, size);
	connection->pending_size = size;
	connection->pending_sent = 0;
	change_watch(worker->queue, connection->descriptor, EPOLLOUT, connection);
}

/* Return how much of it was sent, or -1 when the client is gone. */
static ssize_t send_back(const struct connection *connection, const unsigned char *bytes,
			 size_t size)
{
	ssize_t count = send(connection->descriptor, bytes, size, MSG_NOSIGNAL);

	return count < 0 && errno == EAGAIN ? 0 : count;
}

static void echo_pending(struct worker *worker, struct connection *connection)
{
	ssize_t count = send_back(connection, connection->pending + connection->pending_sent,
				  connection->pending_size - connection->pending_sent);

	if (count < 0) {
		close_connection(connection);
		return;
	}
	connection->pending_sent += (size_t)count;
	if (connection->pending_sent < connection->pending_size)
		return;
	free(connection->pending);
	connection->pending = NULL;
	change_watch(worker->queue, connection->descriptor, EPOLLIN, connection);
}

static void echo_received(struct worker *worker, struct connection *connection, size_t size)
{
	ssize_t count = send_back(connection, worker->buffer, size);

	if (count < 0)
		close_connection(connection);
	else if ((size_t)count < size)
		keep_pending(worker, connection, worker->buffer + count, size - (size_t)count);
}

static bool has_expected_bytes(struct connection *connection, const unsigned char *bytes,
			       size_t size)
{
	uint64_t position = connection->received;

	for (; position < STREAM_SEED_BYTES && size > 0; position++, bytes++, size--)
		((unsigned char *)&connection->seed)[position] = *bytes;
	return pattern_matching(connection->seed, position, bytes, size) == size;
}

static void refuse(struct worker *worker, struct connection *connection, uint64_t position)
{
	fprintf(stderr, "mesh_load: a wrong byte after byte %llu of a stream\n",
		(unsigned long long)position);
	worker->corrupted++;
	close_connection(connection);
}

static void sink_received(struct worker *worker, struct connection *connection, size_t size)
{
	if (!worker->options->verify || has_expected_bytes(connection, worker->buffer, size)) {
		connection->received += size;
		return;
	}
	refuse(worker, connection, connection->received);
}

static void answer_count(const struct connection *connection, uint64_t bytes)
{
	uint64_t count = htobe64(bytes);

	/* The client checks that it comes; that it may be gone is not this side's failure. */
	(void)!send(connection->descriptor, &count, STREAM_COUNT_BYTES, MSG_NOSIGNAL);
}

static void read_cycle_header(struct connection *connection, const unsigned char *bytes,
			      size_t size)
{
	size_t missing;

	if (connection->position >= CYCLE_HEADER_BYTES)
		return;
	missing = CYCLE_HEADER_BYTES - connection->position;
	memcpy((unsigned char *)&connection->cycle + connection->position, bytes,
	       size < missing ? size : missing);
}

/*
 * The client waits for the echo of all requests before the burst, and for the burst's count before
 * the next cycle: no read holds bytes of two phases.
 */
static void mixed_received(struct worker *worker, struct connection *connection, size_t size)
{
	const struct cycle *cycle = &connection->cycle;
	uint64_t begin = connection->position;
	uint64_t end = begin + size;

	read_cycle_header(connection, worker->buffer, size);
	connection->position = end;
	if (end <= CYCLE_HEADER_BYTES || end <= be64toh(cycle->echoed)) {
		echo_received(worker, connection, size);
		return;
	}
	if (begin < be64toh(cycle->echoed) || end > cycle_length(cycle) ||
	    (worker->options->verify &&
	     pattern_matching(be64toh(cycle->seed), begin, worker->buffer, size) < size)) {
		refuse(worker, connection, begin);
		return;
	}
	if (end < cycle_length(cycle))
		return;
	answer_count(connection, be64toh(cycle->taken));
	connection->position = 0;
}

static void receive(struct worker *worker, struct connection *connection)
{
	ssize_t count = recv(connection->descriptor, worker->buffer, READ_BYTES, 0);
	enum mode mode = worker->options->mode;

	if (count < 0 && errno == EAGAIN)
		return;
	if (count <= 0) {
		if (count == 0 && mode == MODE_SINK)
			answer_count(connection, connection->received);
		close_connection(connection);
		return;
	}
	worker->bytes += (uint64_t)count;
	if (mode == MODE_MIXED_SERVER)
		mixed_received(worker, connection, (size_t)count);
	else if (mode == MODE_SINK)
		sink_received(worker, connection, (size_t)count);
	else
		echo_received(worker, connection, (size_t)count);
}

static void handle_event(struct worker *worker, const struct epoll_event *event)
{
	struct connection *connection = event->data.ptr;

	if (!connection)
		accept_connections(worker);
	else if (connection->pending)
		echo_pending(worker, connection);
	else
		receive(worker, connection);
}

static void prepare(void *argument)
{
	struct worker *worker = argument;

	worker->queue = make_event_queue();
	worker->buffer = allocate(READ_BYTES, 1);
	watch(worker->queue, worker->listener, EPOLLIN | EPOLLEXCLUSIVE, NULL);
	watch(worker->queue, worker->stop, EPOLLIN, worker);
}

static void serve(void *argument, uint64_t start)
{
	struct worker *worker = argument;
	struct epoll_event events[EVENTS_AT_A_TIME];

	(void)start;
	for (;;) {
		int count = wait_for_events(worker->queue, events, EVENTS_AT_A_TIME, UINT64_MAX);

		for (int index = 0; index < count; index++) {
			if (events[index].data.ptr == worker)
				return;
			handle_event(worker, &events[index]);
		}
	}
}

/* Runs in a thread of its own: turns the signal into an event that every worker sees. */
static void *wait_for_signal(void *argument)
{
	int stop = *(int *)argument;
	uint64_t one = 1;
	sigset_t signals;
	int number;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigwait(&signals, &number);
	if (write(stop, &one, sizeof(one)) != sizeof(one))
		fail_system("write to eventfd");
	return NULL;
}

static void start_signal_thread(int *stop)
{
	sigset_t signals;
	pthread_t thread;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	/* Before any thread is made, so that all of them inherit it. */
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	*stop = eventfd(0, EFD_CLOEXEC);
	if (*stop < 0)
		fail_system("eventfd");
	errno = pthread_create(&thread, NULL, wait_for_signal, stop);
	if (errno)
		fail_system("pthread_create");
}

static int print_result(const struct options *options, const struct worker *workers)
{
	uint64_t connections = 0;
	uint64_t bytes = 0;
	uint64_t corrupted = 0;

	for (unsigned int index = 0; index < options->threads; index++) {
		connections += workers[index].connections;
		bytes += workers[index].bytes;
		corrupted += workers[index].corrupted;
	}
	printf("{\"mode\": \"%s\", \"connections\": %llu, \"bytes\": %llu, \"corrupted\": %llu}\n",
	       options->mode_name, (unsigned long long)connections, (unsigned long long)bytes,
	       (unsigned long long)corrupted);
	return corrupted ? EXIT_FAILURE : EXIT_SUCCESS;
}

int run_server(const struct options *options)
{
	struct worker *workers = allocate(options->threads, sizeof(*workers));
	struct task task = {
		.prepare = prepare,
		.run = serve,
		.workers = workers,
		.worker_size = sizeof(*workers),
	};
	int listener = listen_at(options->address, options->port);
	int stop;

	start_signal_thread(&stop);
	for (unsigned int index = 0; index < options->threads; index++) {
		workers[index].options = options;
		workers[index].listener = listener;
		workers[index].stop = stop;
	}
	run_workers(&task, options->threads);
	return print_result(options, workers);
}
