// SPDX-License-Identifier: Apache-2.0
/* Errors of the load generator: each ends the program with status 1 and a sentence. */
#ifndef MESH_LOAD_FAILURE_H
#define MESH_LOAD_FAILURE_H

/* Print "mesh_load: " and the message to standard error and end the program. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same, followed by what errno says. */
_Noreturn void fail_system(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* calloc that never returns NULL. */
void *allocate(unsigned long count, unsigned long size);

#endif
