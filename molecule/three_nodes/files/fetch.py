"""Fetches a path many times over one connection and tells, as JSON, how much came and its digest."""

from __future__ import annotations

import hashlib
import http.client
import json
import sys

TIMES = 40


def fetch(connection: http.client.HTTPConnection, path: str) -> bytes:
    """Return one answer, whole."""
    connection.request("GET", path)
    with connection.getresponse() as response:
        if response.status != http.HTTPStatus.OK:
            sys.exit(f"{path}: status {response.status}")
        return response.read()


def main(host: str, port: str, path: str) -> None:
    """Fetch; all answers must be the same."""
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    answers = [fetch(connection, path) for _ in range(TIMES)]
    digests = {hashlib.sha256(answer).hexdigest() for answer in answers}
    if len(digests) != 1:
        sys.exit(f"{path}: {len(digests)} different answers")
    print(json.dumps({"bytes": sum(map(len, answers)), "sha256": digests.pop()}))


main(*sys.argv[1:])
