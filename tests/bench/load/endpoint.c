// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "endpoint.h"

#include "failure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 4096

uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * NANOSECONDS_PER_SECOND + (uint64_t)time.tv_nsec;
}

uint64_t nanoseconds(double seconds)
{
	return (uint64_t)(seconds * (double)NANOSECONDS_PER_SECOND);
}

union target {
	struct sockaddr any;
	struct sockaddr_in ipv4;
	struct sockaddr_in6 ipv6;
};

/* Not getaddrinfo(), which takes libc's shared libraries even for a number. The port was checked before. */
static union target numeric(const char *address, const char *port)
{
	in_port_t number = htons((in_port_t)strtoul(port, NULL, 10));
	union target found = {.ipv4 = {.sin_family = AF_INET, .sin_port = number}};

	if (inet_pton(AF_INET, address, &found.ipv4.sin_addr) == 1)
		return found;
	found.ipv6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = number};
	if (inet_pton(AF_INET6, address, &found.ipv6.sin6_addr) != 1)
		fail("%s is no numeric address", address);
	return found;
}

static socklen_t size_of(const union target *target)
{
	return target->any.sa_family == AF_INET ? sizeof(target->ipv4) : sizeof(target->ipv6);
}

static void set_flag(int descriptor, int level, int name)
{
	int one = 1;

	if (setsockopt(descriptor, level, name, &one, sizeof(one)))
		fail_system("setsockopt %d %d", level, name);
}

static int make_socket(const union target *target, int flags)
{
	int descriptor = socket(target->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (descriptor < 0)
		fail_system("socket");
	return descriptor;
}

int listen_at(const char *address, const char *port)
{
	union target target = numeric(address, port);
	int listener = make_socket(&target, SOCK_NONBLOCK);

	set_flag(listener, SOL_SOCKET, SO_REUSEADDR);
	if (bind(listener, &target.any, size_of(&target)) || listen(listener, BACKLOG))
		fail_system("listen at %s port %s", address, port);
	return listener;
}

int connect_to(const char *address, const char *port, bool wait)
{
	union target target = numeric(address, port);
	int descriptor = make_socket(&target, wait ? 0 : SOCK_NONBLOCK);

	set_flag(descriptor, IPPROTO_TCP, TCP_NODELAY);
	if (connect(descriptor, &target.any, size_of(&target)) && errno != EINPROGRESS)
		fail_system("connect to %s port %s", address, port);
	if (wait && fcntl(descriptor, F_SETFL, O_NONBLOCK))
		fail_system("fcntl");
	return descriptor;
}

int accept_from(int listener)
{
	int descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (descriptor >= 0) {
		set_flag(descriptor, IPPROTO_TCP, TCP_NODELAY);
		return descriptor;
	}
	/* A connection may be reset before it is accepted; that is not the server's failure. */
	if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
		fail_system("accept");
	return -1;
}

void check_connected(int descriptor)
{
	int error;
	socklen_t size = sizeof(error);

	if (getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size))
		fail_system("getsockopt SO_ERROR");
	errno = error;
	if (error)
		fail_system("connect");
}

int make_event_queue(void)
{
	int queue = epoll_create1(EPOLL_CLOEXEC);

	if (queue < 0)
		fail_system("epoll_create1");
	return queue;
}

static void control(int queue, int operation, int descriptor, uint32_t events, void *owner)
{
	struct epoll_event event = {.events = events, .data.ptr = owner};

	if (epoll_ctl(queue, operation, descriptor, &event))
		fail_system("epoll_ctl");
}

void watch(int queue, int descriptor, uint32_t events, void *owner)
{
	control(queue, EPOLL_CTL_ADD, descriptor, events, owner);
}

void change_watch(int queue, int descriptor, uint32_t events, void *owner)
{
	control(queue, EPOLL_CTL_MOD, descriptor, events, owner);
}

int wait_for_events(int queue, struct epoll_event *events, int capacity, uint64_t until)
{
	uint64_t current = now();
	uint64_t left = until > current ? until - current : 0;
	struct timespec timeout = {
		.tv_sec = (time_t)(left / NANOSECONDS_PER_SECOND),
		.tv_nsec = (long)(left % NANOSECONDS_PER_SECOND),
	};
	int count = epoll_pwait2(queue, events, capacity, &timeout, NULL);

	if (count < 0 && errno != EINTR)
		fail_system("epoll_pwait2");
	return count < 0 ? 0 : count;
}

void raise_open_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		fail_system("getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		fail_system("setrlimit");
}
