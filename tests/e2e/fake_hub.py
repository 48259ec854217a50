"""A model hub on this machine, and a second host behind its redirects, that misbehave on demand."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class File:
    content: bytes
    sha256: str | None = None  # what the listing claims; None: the true one
    lfs: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes sent before each break
    statuses: list[int] = field(default_factory=list)  # answered, in turn, before the file
    ignore_range: bool = False

    def listing(self, path):
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": "0" * 40}
        if self.lfs:
            digest = self.sha256 or hashlib.sha256(self.content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(self.content), "pointerSize": 134}
        return entry


@dataclass
class Request:
    path: str
    range: str | None
    authorization: str | None
    sent: int = 0


class FakeHub:
    """`redirect` sends downloads to `storage`, a host of its own. Requests are recorded."""

    def __init__(self):
        self.repository = "owner/repo"
        self.files: dict[str, File] = {}
        self.token: str | None = None
        self.redirect = True
        self.page_size = 1000
        self.requests: list[Request] = []
        self.storage_requests: list[Request] = []
        self._servers = [self._start(self._hub_get), self._start(self._storage_get)]
        self.url, self.storage_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def close(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def downloads(self):
        return self.storage_requests if self.redirect else self.requests[1:]

    def _start(self, get):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                get(self)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def _record(self, handler, log):
        request = Request(
            handler.path, handler.headers.get("Range"), handler.headers.get("Authorization")
        )
        log.append(request)
        return request

    def _hub_get(self, handler):
        request = self._record(handler, self.requests)
        if self.token and request.authorization != f"Bearer {self.token}":
            return self._reply(handler, 401, b"no")
        api = f"/api/models/{self.repository}/tree/main?recursive=true"
        resolve = f"/{self.repository}/resolve/main/"
        if handler.path.startswith(api):
            return self._list(handler, api)
        if not handler.path.startswith(resolve):
            return self._reply(handler, 404, b"no such repository")
        name = handler.path[len(resolve) :]
        if self.redirect:
            return self._reply(handler, 302, b"moved", Location=f"{self.storage_url}/{name}")
        return self._send_file(handler, request, name)

    def _list(self, handler, api):
        start = int(handler.path.partition("&cursor=")[2] or 0)
        entries = [file.listing(path) for path, file in self.files.items()]
        page = entries[start : start + self.page_size]
        headers = {}
        if start + self.page_size < len(entries):
            headers["Link"] = f'<{self.url}{api}&cursor={start + self.page_size}>; rel="next"'
        self._reply(handler, 200, json.dumps(page).encode(), **headers)

    def _storage_get(self, handler):
        request = self._record(handler, self.storage_requests)
        self._send_file(handler, request, handler.path[1:])

    def _send_file(self, handler, request, name):
        file = self.files.get(name)
        if file is None:
            return self._reply(handler, 404, b"no such file")
        if file.statuses:
            return self._reply(handler, file.statuses.pop(0), b"failing")
        start = 0
        if request.range and not file.ignore_range:
            start = int(request.range.removeprefix("bytes=").rstrip("-"))
        body = file.content[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(body)))
        if start:
            total = len(file.content)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        handler.end_headers()
        if file.break_after:
            body = body[: file.break_after.pop(0)]
            handler.close_connection = True
        request.sent = len(body)
        handler.wfile.write(body)

    def _reply(self, handler, status, body, **headers):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
