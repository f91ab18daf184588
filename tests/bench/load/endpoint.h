// SPDX-License-Identifier: Apache-2.0
/* Sockets, clock and event queue: thin wrappers that do not return on an error. */
#ifndef MESH_LOAD_ENDPOINT_H
#define MESH_LOAD_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#define NANOSECONDS_PER_SECOND 1000000000ULL

/* Nanoseconds of the monotonic clock. */
uint64_t now(void);

/* A duration in seconds as nanoseconds. */
uint64_t nanoseconds(double seconds);

/* A non-blocking listening socket. */
int listen_at(const char *address, const char *port);

/* A non-blocking socket whose connection is under way, or established when `wait` is set. */
int connect_to(const char *address, const char *port, bool wait);

/* Accept one connection; -1 when none is waiting any more. */
int accept_from(int listener);

/* Fail when the connection attempt under way on the socket has failed. */
void check_connected(int descriptor);

int make_event_queue(void);
void watch(int queue, int descriptor, uint32_t events, void *owner);
void change_watch(int queue, int descriptor, uint32_t events, void *owner);

/* Wait for events until the moment `until` of the monotonic clock; 0 when it came first. */
int wait_for_events(int queue, struct epoll_event *events, int capacity, uint64_t until);

/* Allow as many open files as the hard limit does. */
void raise_open_file_limit(void);

#endif
