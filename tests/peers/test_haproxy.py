"""haproxy: what goes through it arrives as it does without sockops, unless it is told to use splice()."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.arms import STREAM_SHARE, assert_accelerated, assert_same, compare
from tests.peers.bodies import KIBIBYTE, MEBIBYTE, Received, expected
from tests.peers.curl import at
from tests.peers.differences import accepted, differing
from tests.peers.documents import Documents
from tests.peers.haproxy import FORCED_SPLICE, FRONTS, Front, Proxied, accelerated_haproxy
from tests.support.processes import ProcessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LENGTHS = (0, 1, 1023, KIBIBYTE, 16 * KIBIBYTE, 65_537, MEBIBYTE)
SPLICED = 65_537
LARGE = 16 * MEBIBYTE
HOPS = 2

AS_CONFIGURED_BY_DEFAULT = pytest.mark.parametrize(
    "front", [front for front in FRONTS if front.options != FORCED_SPLICE], ids=lambda front: front.name
)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """One haproxy for the tests of this file."""
    documents = Documents.make(tmp_path_factory.mktemp("documents"), (*LENGTHS, LARGE))
    with accelerated_haproxy(tmp_path_factory.mktemp("haproxy"), documents) as running:
        yield running


@AS_CONFIGURED_BY_DEFAULT
def test_downloads_arrive_whole(proxied: Proxied, front: Front) -> None:
    outcome = assert_same(proxied.pod.node, lambda: download(proxied, front, *LENGTHS))
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, HOPS * sum(LENGTHS))


@AS_CONFIGURED_BY_DEFAULT
def test_uploads_arrive_whole(proxied: Proxied, front: Front) -> None:
    outcome = assert_same(proxied.pod.node, lambda: upload(proxied, front, *LENGTHS))
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, HOPS * sum(LENGTHS))


@AS_CONFIGURED_BY_DEFAULT
def test_large_bodies_arrive_whole(proxied: Proxied, front: Front) -> None:
    """nginx, which takes the upload, needs a memory limit above its length; haproxy does not."""
    with proxied.pod.changed(receive_memory_limit=2 * LARGE):
        outcome = assert_same(
            proxied.pod.node, lambda: download(proxied, front, LARGE) + upload(proxied, front, LARGE)
        )
    assert outcome.result == [expected(LARGE)] * 2
    assert_accelerated(outcome, 2 * HOPS * LARGE, STREAM_SHARE)


@AS_CONFIGURED_BY_DEFAULT
def test_a_large_download_needs_no_memory(proxied: Proxied, front: Front) -> None:
    """haproxy reads on what the backend sent by TCP because the limit was reached."""
    outcome = assert_same(proxied.pod.node, lambda: download(proxied, front, LARGE))
    assert outcome.result == [expected(LARGE)]
    assert_accelerated(outcome, HOPS * LARGE, STREAM_SHARE)


def test_forced_splice_differs_as_accepted(proxied: Proxied) -> None:
    """The body that splice() is to move never arrives; without sockops it does."""
    off, on = compare(proxied.pod.node, lambda: transfer_all(proxied))
    assert set(off.result.values()) == {"whole"}
    assert differing(off.result, on.result).keys() == accepted("haproxy").keys()
    # The requests, and what went through the fronts without splice().
    assert_accelerated(on, SPLICED)


def test_a_denied_haproxy_may_splice(proxied: Proxied) -> None:
    """Named among the denied executables, as it is by default, it stays on TCP however it is configured."""
    with proxied.pod.changed(denied_executables=["haproxy"]):
        off, on = compare(proxied.pod.node, lambda: transfer_all(proxied))
    assert set(off.result.values()) == {"whole"}
    assert on.result == off.result
    assert on.counted["skipped_mode"] > 0
    assert on.redirected_bytes == 0


def transfer_all(proxied: Proxied) -> dict[str, str]:
    """Transfer a body both ways through each front; tell how each transfer went."""
    return {
        f"{front.name} {transfer.__name__}": how_it_went(proxied, front, transfer)
        for front in FRONTS
        for transfer in (download, upload)
    }


def how_it_went(
    proxied: Proxied, front: Front, transfer: Callable[[Proxied, Front, int], list[Received]]
) -> str:
    """Transfer one body; tell whether it arrived."""
    try:
        received = transfer(proxied, front, SPLICED)
    except ProcessError:
        return "failed"
    return "whole" if received == [expected(SPLICED)] else "damaged"


def download(proxied: Proxied, front: Front, *lengths: int) -> list[Received]:
    """Fetch bodies over one connection."""
    return proxied.curl.fetch(at(front.port), [str(length) for length in lengths])


def upload(proxied: Proxied, front: Front, *lengths: int) -> list[Received]:
    """Store bodies over one connection."""
    proxied.curl.upload(at(front.port), [proxied.documents.path(length) for length in lengths])
    return [proxied.documents.take_upload(str(length)) for length in lengths]
