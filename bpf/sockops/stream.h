/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Streams: a writer that stays ahead of its reader. TCP joins small writes into
 * large segments, which is cheaper than handing each of them over; and a writer
 * that fills the reader's memory again and again goes by TCP for the most part,
 * with the cost of this program for nothing. Such a connection is given back.
 */
#ifndef MESHACCEL_SOCKOPS_STREAM_H
#define MESHACCEL_SOCKOPS_STREAM_H

#include "maps.h"

/*
 * Set by a socket that leaves, read by its peer: nothing is to be redirected to
 * it any more. The kernel has one byte of a socket that a sock_ops program can
 * write and any other program can read; of its flags this one asks for a call
 * at each retransmission, of which a connection within a node has none.
 */
#define LEAVING_CALLBACK_FLAG BPF_SOCK_OPS_RETRANS_CB_FLAG

/* Of tcp_sock->nonagle. */
#define NAGLE_OFF 1

/*
 * A stream is so many writes more to a reader that has some unread than to one
 * that has not, none above the largest. Nagle's algorithm joins writes at once;
 * without it TCP does so under a backlog only. Above the largest size handing
 * over is the cheaper way. All measured with tests/bench, sockops-grid.
 */
#define STREAM_SCORE 1024
#define NAGLE_LARGEST_WRITE 24576
#define NO_DELAY_LARGEST_WRITE 12288
#define NO_DELAY_UNREAD_WRITES 32

static __always_inline bool reader_is_behind(struct tcp_sock *sender, __u32 unread, __u32 size)
{
	if (!(OWN_BITFIELD(sender, nonagle, NAGLE_OFF) & NAGLE_OFF))
		return size <= NAGLE_LARGEST_WRITE;
	return size <= NO_DELAY_LARGEST_WRITE && unread > NO_DELAY_UNREAD_WRITES * size;
}

/*
 * Looks at one more write; returns whether the socket is to leave. It does while
 * nothing waits unread: bytes of TCP behind redirected ones would be past a
 * short read, which some programs take for the end of what there is.
 */
static __always_inline bool is_stream(struct sockops_socket_state *state, struct tcp_sock *sender,
				      int receive_memory, __u32 size)
{
	if (receive_memory <= 0) {
		if (state->stream_score >= STREAM_SCORE)
			return state->has_callbacks;
		if (state->stream_score)
			state->stream_score--;
		return false;
	}
	if (reader_is_behind(sender, receive_memory, size)) {
		if (state->stream_score < 2 * STREAM_SCORE)
			state->stream_score++;
	} else if (state->stream_score) {
		state->stream_score--;
	}
	return false;
}

/* So many bytes by TCP, and not a fraction of them redirected meanwhile, make a stretch. */
#define STRETCH_BYTES 33554432
#define STRETCH_FRACTION 4

/* For a message that goes by TCP because others did before. */
static __always_inline bool mostly_by_tcp(struct sockops_socket_state *state, __u32 size)
{
	bool mostly;

	state->stretch_tcp_bytes += size;
	if (state->stretch_tcp_bytes < STRETCH_BYTES)
		return false;
	mostly = state->redirected_bytes - state->stretch_redirected_bytes <
		 state->stretch_tcp_bytes / STRETCH_FRACTION;
	state->stretch_tcp_bytes = 0;
	state->stretch_redirected_bytes = state->redirected_bytes;
	return mostly && state->has_callbacks;
}

#endif
