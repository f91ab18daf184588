// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "stream.h"

#include "endpoint.h"
#include "failure.h"
#include "pattern.h"
#include "workers.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_AT_A_TIME 64
/* A connection that can always write must let the others have their turn, and see the end. */
#define WRITES_AT_A_TIME 16

struct stream {
	int descriptor;
	bool ended; /* nothing more is written, the sink's count is awaited */
	uint64_t seed;
	uint64_t sent;
	size_t left_of_write; /* of a write that the socket took in part */
	unsigned char count[STREAM_COUNT_BYTES];
	size_t count_received;
};

struct worker {
	const struct options *options;
	struct stream *streams;
	unsigned int stream_count;
	unsigned int open;
	int queue;
	unsigned char *outgoing;
	uint64_t deadline;
	uint64_t finished;
	uint64_t bytes;
};

static void fill(const struct stream *stream, unsigned char *bytes, size_t length)
{
	pattern_fill(stream->seed, stream->sent, bytes, length);
	for (uint64_t at = stream->sent; at < STREAM_SEED_BYTES && at < stream->sent + length; at++)
		bytes[at - stream->sent] = ((const unsigned char *)&stream->seed)[at];
}

static size_t next_write(const struct worker *worker, const struct stream *stream)
{
	uint64_t wanted = worker->options->bytes;
	size_t size = stream->left_of_write ? stream->left_of_write : worker->options->size;

	if (wanted && wanted - stream->sent < size)
		return (size_t)(wanted - stream->sent);
	return size;
}

static bool is_complete(const struct worker *worker, const struct stream *stream)
{
	if (worker->options->bytes)
		return stream->sent >= worker->options->bytes;
	return now() >= worker->deadline;
}

static void end_stream(struct worker *worker, struct stream *stream)
{
	stream->ended = true;
	if (shutdown(stream->descriptor, SHUT_WR))
		fail_system("shutdown");
	change_watch(worker->queue, stream->descriptor, EPOLLIN, stream);
}

static bool write_once(struct worker *worker, struct stream *stream)
{
	size_t size = next_write(worker, stream);
	ssize_t count;

	if (worker->options->verify)
		fill(stream, worker->outgoing, size);
	count = send(stream->descriptor, worker->outgoing, size, MSG_NOSIGNAL);
	if (count < 0 && errno == EAGAIN)
		return false;
	if (count < 0)
		fail_system("send after byte %llu", (unsigned long long)stream->sent);
	stream->sent += (uint64_t)count;
	stream->left_of_write = size - (size_t)count;
	return true;
}

static void write_some(struct worker *worker, struct stream *stream)
{
	for (int index = 0; index < WRITES_AT_A_TIME; index++) {
		if (is_complete(worker, stream)) {
			end_stream(worker, stream);
			return;
		}
		if (!write_once(worker, stream))
			return;
	}
}

static void check_count(const struct stream *stream)
{
	uint64_t count;

	memcpy(&count, stream->count, sizeof(count));
	count = be64toh(count);
	if (count != stream->sent)
		fail("the sink read %llu bytes of %llu", (unsigned long long)count,
		     (unsigned long long)stream->sent);
}

static void receive_count(struct worker *worker, struct stream *stream)
{
	ssize_t count = recv(stream->descriptor, stream->count + stream->count_received,
			     STREAM_COUNT_BYTES - stream->count_received, 0);

	if (count < 0 && errno == EAGAIN)
		return;
	if (count < 0)
		fail_system("recv");
	if (count == 0 || !stream->ended)
		fail("the sink gave up after %llu bytes", (unsigned long long)stream->sent);
	stream->count_received += (size_t)count;
	if (stream->count_received < STREAM_COUNT_BYTES)
		return;
	check_count(stream);
	close(stream->descriptor);
	worker->bytes += stream->sent;
	worker->open--;
}

static void handle_event(struct worker *worker, const struct epoll_event *event)
{
	struct stream *stream = event->data.ptr;

	if (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		receive_count(worker, stream);
	else
		write_some(worker, stream);
}

static void open_streams(void *argument)
{
	struct worker *worker = argument;

	worker->queue = make_event_queue();
	for (unsigned int index = 0; index < worker->stream_count; index++) {
		struct stream *stream = &worker->streams[index];

		stream->descriptor =
			connect_to(worker->options->address, worker->options->port, true);
		stream->seed = pattern_seed();
		watch(worker->queue, stream->descriptor, EPOLLIN | EPOLLOUT, stream);
	}
	worker->open = worker->stream_count;
}

static void write_streams(void *argument, uint64_t start)
{
	struct worker *worker = argument;
	struct epoll_event events[EVENTS_AT_A_TIME];
	uint64_t last_progress = start;

	worker->deadline = start + nanoseconds(worker->options->duration);
	while (worker->open > 0) {
		uint64_t give_up = last_progress + nanoseconds(worker->options->patience);
		int count = wait_for_events(worker->queue, events, EVENTS_AT_A_TIME, give_up);

		for (int index = 0; index < count; index++)
			handle_event(worker, &events[index]);
		if (count > 0)
			last_progress = now();
		else if (now() >= give_up)
			fail("%u of %u streams stalled for %g s", worker->open,
			     worker->stream_count, worker->options->patience);
	}
	worker->finished = now();
}

static struct worker *make_workers(const struct options *options)
{
	struct worker *workers = allocate(options->threads, sizeof(*workers));

	for (unsigned int index = 0; index < options->threads; index++) {
		struct worker *worker = &workers[index];

		worker->options = options;
		worker->stream_count = share_of(options->connections, options->threads, index);
		worker->streams = allocate(worker->stream_count, sizeof(*worker->streams));
		worker->outgoing = allocate(options->size, 1);
	}
	return workers;
}

static void print_result(const struct options *options, const struct worker *workers)
{
	uint64_t bytes = 0;
	uint64_t finished = 0;
	uint64_t start = workers->deadline - nanoseconds(options->duration);

	for (unsigned int index = 0; index < options->threads; index++) {
		bytes += workers[index].bytes;
		if (workers[index].finished > finished)
			finished = workers[index].finished;
	}
	printf("{\"mode\": \"%s\", \"connections\": %u, \"size\": %zu, ", options->mode_name,
	       options->connections, options->size);
	printf("\"seconds\": %.9g, \"bytes\": %llu}\n",
	       (double)(finished - start) / (double)NANOSECONDS_PER_SECOND,
	       (unsigned long long)bytes);
}

void run_stream(const struct options *options)
{
	struct worker *workers = make_workers(options);
	struct task task = {
		.prepare = open_streams,
		.run = write_streams,
		.workers = workers,
		.worker_size = sizeof(*workers),
	};

	run_workers(&task, options->threads);
	print_result(options, workers);
}
