// SPDX-License-Identifier: Apache-2.0
/* Threads that each run the same function on a part of the connections. */
#ifndef MESH_LOAD_WORKERS_H
#define MESH_LOAD_WORKERS_H

#include <stddef.h>
#include <stdint.h>

struct task {
	void (*prepare)(void *worker); /* before the common start, such as connecting */
	void (*run)(void *worker, uint64_t start);
	void *workers; /* one after the other */
	size_t worker_size;
};

/* How many of `total` the worker `index` of `count` takes. */
unsigned int share_of(unsigned int total, unsigned int count, unsigned int index);

/* Prepare all workers, run each in a thread of its own and wait for all. */
void run_workers(const struct task *task, unsigned int count);

#endif
