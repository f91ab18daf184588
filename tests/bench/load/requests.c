// SPDX-License-Identifier: Apache-2.0
#include "requests.h"

#include "endpoint.h"
#include "failure.h"
#include "histogram.h"
#include "pattern.h"
#include "workers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_AT_A_TIME 64
#define READ_BYTES 65536

struct connection {
	int descriptor;
	bool busy;	      /* a request is under way */
	bool connecting;      /* its connection as well */
	bool waits_for_space; /* the socket's send buffer is full */
	size_t to_send;
	size_t to_receive;
	uint64_t seed;
	uint64_t sent; /* position in the stream of this connection, each way */
	uint64_t received;
	uint64_t started; /* of the request under way */
	uint64_t due;	  /* of the next request, when a rate is asked for */
};

struct worker {
	const struct options *options;
	struct connection *connections;
	unsigned int count;
	unsigned int busy;
	int queue;
	unsigned char *outgoing;
	unsigned char *incoming;
	uint64_t interval; /* between two requests on a connection, 0: no rate */
	uint64_t record_from;
	uint64_t deadline;
	uint64_t finished;
	struct histogram latencies;
};

static void watch_connection(struct worker *worker, struct connection *connection)
{
	uint32_t events = connection->waits_for_space ? EPOLLIN | EPOLLOUT : EPOLLIN;

	change_watch(worker->queue, connection->descriptor, events, connection);
}

static void send_request(struct worker *worker, struct connection *connection)
{
	bool had_to_wait = connection->waits_for_space;

	connection->waits_for_space = false;
	while (connection->to_send > 0) {
		ssize_t count;

		if (worker->options->verify)
			pattern_fill(connection->seed, connection->sent, worker->outgoing,
				     connection->to_send);
		count = send(connection->descriptor, worker->outgoing, connection->to_send,
			     MSG_NOSIGNAL);
		if (count < 0 && errno == EAGAIN) {
			connection->waits_for_space = true;
			break;
		}
		if (count < 0)
			fail_system("send");
		connection->to_send -= (size_t)count;
		connection->sent += (uint64_t)count;
	}
	if (connection->waits_for_space != had_to_wait)
		watch_connection(worker, connection);
}

static void open_connection(struct worker *worker, struct connection *connection, bool wait)
{
	const struct options *options = worker->options;

	connection->descriptor = connect_to(options->address, options->port, wait);
	connection->seed = pattern_seed();
	connection->sent = 0;
	connection->received = 0;
	connection->connecting = !wait;
	connection->waits_for_space = !wait;
	watch(worker->queue, connection->descriptor, wait ? EPOLLIN : EPOLLIN | EPOLLOUT,
	      connection);
}

/* `started` is when the request was due: waiting for its turn is part of its latency. */
static void begin_request(struct worker *worker, struct connection *connection, uint64_t started)
{
	connection->busy = true;
	connection->started = started;
	connection->to_send = worker->options->size;
	connection->to_receive = worker->options->size;
	worker->busy++;
	if (worker->options->mode == MODE_CONNECT)
		open_connection(worker, connection, false);
	else
		send_request(worker, connection);
}

static void begin_next_request(struct worker *worker, struct connection *connection,
			       uint64_t current)
{
	if (current >= worker->deadline)
		return;
	if (!worker->interval) {
		begin_request(worker, connection, current);
		return;
	}
	connection->due += worker->interval;
	if (connection->due <= current)
		begin_request(worker, connection, connection->due);
}

static void end_request(struct worker *worker, struct connection *connection)
{
	uint64_t current = now();

	if (connection->started >= worker->record_from)
		histogram_record(&worker->latencies, current - connection->started);
	connection->busy = false;
	worker->busy--;
	if (worker->options->mode == MODE_CONNECT)
		close(connection->descriptor);
	begin_next_request(worker, connection, current);
}

static void check_reply(const struct worker *worker, const struct connection *connection,
			size_t count)
{
	size_t right;

	if (count > connection->to_receive)
		fail("%zu bytes more than were sent came back after byte %llu",
		     count - connection->to_receive, (unsigned long long)connection->received);
	if (!worker->options->verify)
		return;
	right = pattern_matching(connection->seed, connection->received, worker->incoming, count);
	if (right < count)
		fail("byte %llu of the replies is wrong",
		     (unsigned long long)(connection->received + right));
}

static void receive_reply(struct worker *worker, struct connection *connection)
{
	ssize_t count = recv(connection->descriptor, worker->incoming, READ_BYTES, 0);

	if (count < 0 && errno == EAGAIN)
		return;
	if (count < 0)
		fail_system("recv");
	if (count == 0)
		fail("the server closed a connection after byte %llu of the replies",
		     (unsigned long long)connection->received);
	check_reply(worker, connection, (size_t)count);
	connection->received += (uint64_t)count;
	connection->to_receive -= (size_t)count;
	if (connection->to_receive == 0)
		end_request(worker, connection);
}

static void handle_event(struct worker *worker, const struct epoll_event *event)
{
	struct connection *connection = event->data.ptr;

	if (connection->connecting && (event->events & (EPOLLOUT | EPOLLERR))) {
		check_connected(connection->descriptor);
		connection->connecting = false;
	}
	if (event->events & EPOLLOUT)
		send_request(worker, connection);
	if (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		receive_reply(worker, connection);
}

/* Send what is due by now and return when the next request will be. */
static uint64_t begin_due_requests(struct worker *worker)
{
	uint64_t current = now();
	uint64_t next = worker->deadline;

	if (!worker->interval || current >= worker->deadline)
		return next;
	for (unsigned int index = 0; index < worker->count; index++) {
		struct connection *connection = &worker->connections[index];

		if (connection->busy)
			continue;
		if (connection->due <= current)
			begin_request(worker, connection, connection->due);
		else if (connection->due < next)
			next = connection->due;
	}
	return next;
}

static void open_connections(void *argument)
{
	struct worker *worker = argument;

	worker->queue = make_event_queue();
	if (worker->options->mode == MODE_CONNECT)
		return;
	for (unsigned int index = 0; index < worker->count; index++)
		open_connection(worker, &worker->connections[index], true);
}

static void begin_first_requests(struct worker *worker, uint64_t start)
{
	for (unsigned int index = 0; index < worker->count; index++) {
		struct connection *connection = &worker->connections[index];

		/* Spread over the interval, or all connections would send at the same moment. */
		connection->due = start + worker->interval * index / worker->count;
		if (!worker->interval)
			begin_request(worker, connection, start);
	}
}

static void exchange(void *argument, uint64_t start)
{
	struct worker *worker = argument;
	struct epoll_event events[EVENTS_AT_A_TIME];
	uint64_t give_up;

	worker->record_from = start + nanoseconds(worker->options->warmup);
	worker->deadline = worker->record_from + nanoseconds(worker->options->duration);
	give_up = worker->deadline + nanoseconds(worker->options->patience);
	begin_first_requests(worker, start);
	while (worker->busy > 0 || now() < worker->deadline) {
		uint64_t next = begin_due_requests(worker);
		uint64_t until = now() < worker->deadline ? next : give_up;
		int count = wait_for_events(worker->queue, events, EVENTS_AT_A_TIME, until);

		for (int index = 0; index < count; index++)
			handle_event(worker, &events[index]);
		if (now() >= give_up)
			fail("%u of %u connections got no reply within %g s after the end",
			     worker->busy, worker->count, worker->options->patience);
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
		if (options->rate > 0)
			worker->interval = nanoseconds(options->connections / options->rate);
	}
	return workers;
}

static void print_result(const struct options *options, const struct worker *workers)
{
	struct histogram *latencies = allocate(1, sizeof(*latencies));
	uint64_t finished = 0;

	for (unsigned int index = 0; index < options->threads; index++) {
		histogram_add(latencies, &workers[index].latencies);
		if (workers[index].finished > finished)
			finished = workers[index].finished;
	}
	printf("{\"mode\": \"%s\", \"connections\": %u, \"size\": %zu, \"seconds\": %.9g, ",
	       options->mode_name, options->connections, options->size,
	       (double)(finished - workers->record_from) / (double)NANOSECONDS_PER_SECOND);
	printf("\"requests\": %llu, \"latency\": ", (unsigned long long)latencies->count);
	histogram_print(latencies, stdout);
	puts("}");
}

void run_requests(const struct options *options)
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
