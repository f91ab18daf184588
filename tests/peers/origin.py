"""An HTTP/1.1 server that answers in every way a proxy has to cope with.

GET /length/N     N bytes with their length announced
GET /chunked/N    N bytes in chunks of many sizes
GET /until-end/N  N bytes that end with the connection
GET /cut/N        N bytes announced, half of them sent, then the end of the connection
GET /silence/0    the end of the connection, without an answer
POST /            what was uploaded, told as JSON: length and sha256
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.peers.bodies import Received, body

CHUNK_SIZES = (1, 17, 1000, 4096, 16_384, 70_000)
SECONDS = 20.0


def told(upload: Received) -> bytes:
    """Return the answer to an upload."""
    return json.dumps(asdict(upload)).encode()


class Handler(BaseHTTPRequestHandler):
    """One connection. With a timeout its socket polls, as those of most servers do."""

    protocol_version = "HTTP/1.1"
    timeout = SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer in the way, and of the length, that the path says."""
        _, way, word = self.path.split("/")
        length = int(word)
        answers = {
            "length": self._send_length,
            "chunked": self._send_chunked,
            "until-end": self._send_until_end,
            "cut": self._send_cut,
            "silence": self._send_nothing,
        }
        answers[way](length)

    def do_POST(self) -> None:
        """Answer what was uploaded."""
        content = told(Received.of(self._read_upload()))
        self._send_headers({"Content-Length": str(len(content))})
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Write no line for each request."""

    def _read_upload(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        return b"".join(iter(self._read_chunk, b""))

    def _read_chunk(self) -> bytes:
        chunk = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return chunk

    def _send_headers(self, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_length(self, length: int) -> None:
        self._send_headers({"Content-Length": str(length)})
        self.wfile.write(body(length))

    def _send_chunked(self, length: int) -> None:
        self._send_headers({"Transfer-Encoding": "chunked"})
        rest = body(length)
        for size in itertools.cycle(CHUNK_SIZES):
            chunk, rest = rest[:size], rest[size:]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            if not chunk:
                return

    def _send_until_end(self, length: int) -> None:
        self._send_headers({"Connection": "close"})
        self.wfile.write(body(length))

    def _send_cut(self, length: int) -> None:
        self._send_headers({"Content-Length": str(length)})
        self.wfile.write(body(length)[: length // 2])
        self.close_connection = True

    def _send_nothing(self, _length: int) -> None:
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Takes the connections of many clients that come at once."""

    request_queue_size = 1024


if __name__ == "__main__":
    Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
