"""An HTTP client whose connections come from a cgroup and a namespace of the test's choice."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers.bodies import Received

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.socket_maker import SocketMaker

SECONDS = 20.0
UPLOAD_PIECE = 50_000


@dataclass(frozen=True)
class Answer:
    """What a client made of an answer; an incomplete one ended before its announced length."""

    status: int
    body: Received
    complete: bool = True


class Client(http.client.HTTPConnection):
    """One connection at a time, opened anew when the server has closed it."""

    def __init__(self, maker: SocketMaker, address: str, port: int) -> None:
        """Prepare; the connection is made on the first request."""
        super().__init__(address, port)
        self._maker = maker

    def connect(self) -> None:
        """Make the connection where the maker is."""
        self.sock = self._maker.connect(self.host, self.port)
        # Poll before every call, as HTTP clients do that bound their time.
        self.sock.settimeout(SECONDS)

    def get(self, path: str) -> Answer:
        """Fetch a path."""
        self.request("GET", path)
        return self._answer()

    def post(self, path: str, content: bytes | Iterator[bytes]) -> Answer:
        """Send a payload with its length announced, or pieces of one in chunks."""
        self.request("POST", path, content)
        return self._answer()

    def put(self, path: str, content: bytes) -> Answer:
        """Store a payload at a path."""
        self.request("PUT", path, content)
        return self._answer()

    def _answer(self) -> Answer:
        response = self.getresponse()
        try:
            return Answer(response.status, Received.of(response.read()))
        except http.client.IncompleteRead as cut:
            self.close()
            return Answer(response.status, Received.of(cut.partial), complete=False)


def pieces(content: bytes) -> Iterator[bytes]:
    """Cut a payload for a chunked upload."""
    for begin in range(0, len(content), UPLOAD_PIECE):
        yield content[begin : begin + UPLOAD_PIECE]
