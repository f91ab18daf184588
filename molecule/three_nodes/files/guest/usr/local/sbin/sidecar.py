"""A sidecar: passes /node/PATH on to this node's service, /backend/PATH to the backend's.

Its connections to them stand, so that they can be looked at. It is no nginx, which as a proxy stalls on
accelerated connections of Linux 6.1: docs/sockops.md.
"""

from __future__ import annotations

import http.client
import http.server

PORT = 8080
SERVICES = {
    "node": http.client.HTTPConnection("127.0.0.1", 8081),
    "backend": http.client.HTTPConnection("backend", 8081),
}


class Sidecar(http.server.BaseHTTPRequestHandler):
    """Passes requests of one connection on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Ask the service and pass its answer back."""
        _, name, path = self.path.split("/", 2)
        service = SERVICES[name]
        service.request("GET", f"/{path}")
        with service.getresponse() as response:
            body = response.read()
        self.send_response(response.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.HTTPServer(("", PORT), Sidecar).serve_forever()
