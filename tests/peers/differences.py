"""What programs are known to do differently over accelerated connections, and why the kernel has it so.

docs/sockops.md says the same to operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcomes = dict[str, str]
"""By the name of a case, how it went."""

Suite = Literal["system calls", "nginx", "haproxy", "cpython"]


@dataclass(frozen=True)
class Difference:
    """Cases of a suite that differ for one reason, and the words that docs/sockops.md has for them."""

    suite: Suite
    cases: tuple[str, ...]
    documented: str
    reason: str


#: Where nginx reads bodies that are longer than `receive_memory_limit`.
NGINX_AS_READER = (
    ("upload", "files"),
    ("upload", "proxy"),
    ("download", "proxy"),
)

ACCEPTED = (
    Difference(
        "system calls",
        ("wait_for_all",),
        "MSG_WAITALL",
        "recvmsg() of a socket in a sockhash returns after the first message; nothing there asks for more",
    ),
    Difference(
        "system calls",
        ("wait_for_a_least_number", "poll_for_a_least_number"),
        "SO_RCVLOWAT",
        "only TCP compares what waits in its own queue with this; a redirected message alone wakes a reader",
    ),
    Difference(
        "system calls",
        ("cork",),
        "TCP_CORK",
        "holding back is done where TCP makes segments, which a redirected message never reaches",
    ),
    Difference(
        "system calls",
        ("zero_copy",),
        "MSG_ZEROCOPY",
        "tcp_bpf_sendmsg() copies and tells nobody; completions come with TCP's own buffers only",
    ),
    Difference(
        "system calls",
        ("splice_in",),
        "splice()",
        "splice() looks into TCP's own queue only, where nothing is, though poll() says there are bytes",
    ),
    Difference(
        "system calls",
        ("urgent_data",),
        "urgent data",
        "the urgent mark is a field of TCP's header; a redirected message has none, so its bytes are in line",
    ),
    Difference(
        "system calls",
        ("close_with_unread_bytes",),
        "closes with unread data",
        "close() looks into TCP's own queue only, finds nothing unread there and sends FIN instead of RST",
    ),
    Difference(
        "system calls",
        ("throw_away",),
        "MSG_TRUNC",
        "the recvmsg() of a socket in a sockhash does not know this flag and copies the bytes",
    ),
    Difference(
        "system calls",
        ("ask_how_much_is_left", "ask_when"),
        "TCP_INQ",
        "control messages are made from TCP's own buffers; the recvmsg() of a socket in a sockhash has none",
    ),
    Difference(
        "nginx",
        tuple(f"{transfer} {server}" for transfer, server in NGINX_AS_READER),
        "edge-triggered",
        "recvmsg() and FIONREAD of a socket in a sockhash tell of redirected bytes or of TCP's, never of "
        "both; those of TCP that lie behind the others wake nobody again, and nginx waits for ever",
    ),
    Difference(
        "haproxy",
        tuple(
            f"{mode}-splice-request-splice-response {transfer}"
            for mode in ("tcp", "http")
            for transfer in ("download", "upload")
        ),
        "option splice-request",
        "splice(), as above; haproxy tries again without rest until its timeout",
    ),
    Difference(
        "cpython",
        tuple(
            f"test.test_asyncio.test_sendfile.{loop}EventLoopTests."
            "test_sendfile_close_peer_in_the_middle_of_receiving"
            for loop in ("Select", "Poll", "EPoll")
        ),
        "test_sendfile_close_peer_in_the_middle_of_receiving",
        "close() with unread data, as above: the sender waits for an error that never comes",
    ),
    Difference(
        "cpython",
        tuple(
            f"test.test_asyncore.TestAPI_Use{family}{call}.test_handle_expt"
            for family in ("IPv4", "IPv6")
            for call in ("Select", "Poll")
        ),
        "test_handle_expt",
        "urgent data, as above: poll() never tells of it",
    ),
)


def accepted(suite: Suite) -> dict[str, str]:
    """Return the reason of each case of a suite that is known to differ."""
    return {case: each.reason for each in ACCEPTED if each.suite == suite for case in each.cases}


def differing(off: Outcomes, on: Outcomes) -> dict[str, tuple[str | None, str | None]]:
    """Return the cases whose outcome is not the same, or that only one of the two has."""
    cases = sorted(off.keys() | on.keys())
    return {case: (off.get(case), on.get(case)) for case in cases if off.get(case) != on.get(case)}
