// SPDX-License-Identifier: Apache-2.0
/* The clients that send a request and wait for its echo: pingpong and connect. */
#ifndef MESH_LOAD_REQUESTS_H
#define MESH_LOAD_REQUESTS_H

#include "options.h"

/* Run the load and print its result; does not return on an error. */
void run_requests(const struct options *options);

#endif
