# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Explanations for a reader and for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ....model import Json
from .model import End, Explanation


def lines(explanations: Sequence[Explanation]) -> Iterator[str]:
    """Yields the explanations for a reader; at the end what concerns several connections, counted."""
    for each in explanations:
        yield from described(each)
    uses = Counter(sentence for each in explanations for sentence in {use.sentence for use in each.uses})
    for sentence, count in uses.items():
        yield f"incompatible, at {count} of them: {sentence}"
    causes = Counter(each.verdict.cause.value for each in explanations)
    counted = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    yield f"connections: {len(explanations)} ({counted})" if counted else "connections: 0"


def described(explanation: Explanation) -> Iterator[str]:
    """Yields one connection for a reader."""
    connection = explanation.connection
    socket = connection.near.socket
    arrow = "->" if connection.far is not None else "--"
    yield f"{socket.local} {arrow} {socket.remote}"
    way = "redirected" if explanation.redirected else "by TCP"
    yield f"  {way}: {explanation.verdict.sentence}"
    yield f"  bytes: {explanation.redirected_bytes} from socket to socket, {explanation.tcp_bytes} by TCP"
    for role, end in roles(explanation):
        yield f"  {role}: {who(end)}"


def roles(explanation: Explanation) -> list[tuple[str, End]]:
    """Returns the ends with what they are."""
    connection = explanation.connection
    if connection.far is None:
        return [("here", connection.near)]
    return [("client", connection.near), ("server", connection.far)]


def who(end: End) -> str:
    """Returns whose end it is, for a reader."""
    names = ", ".join(map(str, end.programs)) or "no program has it open"
    return f"{names}, {end.place}, at {end.socket.local}"


def as_json(explanation: Explanation) -> dict[str, Json]:
    """Returns one explanation as plain data."""
    return {
        "redirected": explanation.redirected,
        "cause": explanation.verdict.cause.value,
        "sentence": explanation.verdict.sentence,
        "bytes": {"redirected": explanation.redirected_bytes, "tcp": explanation.tcp_bytes},
        "ends": {role: end_as_json(end) for role, end in roles(explanation)},
        "incompatible": [
            {"use": use.use.value, "program": use.program, "sentence": use.sentence}
            for use in explanation.uses
        ],
    }


def end_as_json(end: End) -> dict[str, Json]:
    """Returns one end as plain data."""
    return {
        "local": str(end.socket.local),
        "remote": str(end.socket.remote),
        "network_namespace": end.socket.network_namespace,
        "cgroup": end.cgroup,
        "opted_in_by": end.policy.path if end.policy is not None else None,
        "programs": [{"process": program.process_id, "name": program.name} for program in end.programs],
    }
