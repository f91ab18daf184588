// SPDX-License-Identifier: Apache-2.0
#include "workers.h"

#include "endpoint.h"
#include "failure.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct thread {
	pthread_t handle;
	const struct task *task;
	void *worker;
	uint64_t start;
};

unsigned int share_of(unsigned int total, unsigned int count, unsigned int index)
{
	return total / count + (index < total % count ? 1 : 0);
}

static void *run_thread(void *argument)
{
	struct thread *thread = argument;

	thread->task->run(thread->worker, thread->start);
	return NULL;
}

void run_workers(const struct task *task, unsigned int count)
{
	struct thread *threads = allocate(count, sizeof(*threads));
	uint64_t start;

	for (unsigned int index = 0; index < count; index++) {
		threads[index].task = task;
		threads[index].worker = (char *)task->workers + index * task->worker_size;
		task->prepare(threads[index].worker);
	}
	start = now();
	for (unsigned int index = 0; index < count; index++) {
		threads[index].start = start;
		errno = pthread_create(&threads[index].handle, NULL, run_thread, &threads[index]);
		if (errno)
			fail_system("pthread_create");
	}
	for (unsigned int index = 0; index < count; index++)
		pthread_join(threads[index].handle, NULL);
	free(threads);
}
