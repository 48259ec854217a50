#!/usr/bin/env python3
"""Measures the time from exec to the first token of a 16-token prompt, and the CPU of an idle server.

  .venv/bin/python tests/soak/start_and_idle.py
"""

import json
import os
import pathlib
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from conftest import Server  # noqa: E402

SETTLE_SECONDS = 2  # what the start still does beside the first request is not idleness
IDLE_SECONDS = 10


def first_token(url):
    """Over a plain socket: what a client library costs is not the server's."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"prompt": list(range(100, 116)), "max_tokens": 1, "stream": True}).encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        received = b""
        while b"data: " not in received:
            received += connection.recv(4096)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    for start in ("first", "second"):
        begin = time.monotonic()
        server = Server()
        ready = time.monotonic()
        first_token(server.url)
        print(
            f"{start} start: listening after {ready - begin:.2f} s, "
            f"first token after {time.monotonic() - begin:.2f} s"
        )
        if start == "second":
            time.sleep(SETTLE_SECONDS)
            before = cpu_seconds(server.process.pid)
            time.sleep(IDLE_SECONDS)
            used = cpu_seconds(server.process.pid) - before
            print(f"idle: {100 * used / IDLE_SECONDS:.2f} % of a CPU over {IDLE_SECONDS} s")
        server.stop()


if __name__ == "__main__":
    main()
