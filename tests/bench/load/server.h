// SPDX-License-Identifier: Apache-2.0
/* The servers: echo, sink, and the one that is either in turn. */
#ifndef MESH_LOAD_SERVER_H
#define MESH_LOAD_SERVER_H

#include "options.h"

/* Serve until SIGTERM or SIGINT, then print what was served; returns the exit status. */
int run_server(const struct options *options);

#endif
