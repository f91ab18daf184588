// SPDX-License-Identifier: Apache-2.0
#include "failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_message(const char *format, va_list arguments)
{
	fputs("mesh_load: ", stderr);
	vfprintf(stderr, format, arguments);
}

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	print_message(format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	/* Not exit(): other threads still run and use what it would take down. */
	_Exit(EXIT_FAILURE);
}

void fail_system(const char *format, ...)
{
	int number = errno;
	va_list arguments;

	va_start(arguments, format);
	print_message(format, arguments);
	va_end(arguments);
	fprintf(stderr, ": %s\n", strerror(number));
	_Exit(EXIT_FAILURE);
}

void *allocate(unsigned long count, unsigned long size)
{
	void *memory = calloc(count, size);

	if (!memory)
		fail("no memory for %lu x %lu bytes", count, size);
	return memory;
}
