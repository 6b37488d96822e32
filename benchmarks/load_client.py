"""Asks one server the same thing over several connections, as fast as it answers. Standard library only.

Usage: load_client.py SOCKET TARGET CONNECTIONS SECONDS
Prints one JSON object: requests, errors, seconds, p50_ms, p99_ms.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time


class Asker:
    """One keep-alive connection with one request in flight."""

    def __init__(self, path: str, request: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.request = request
        self.buffer = bytearray()
        self.need = -1  # length of the whole reply once its head is there
        self.sent_at = 0.0

    def ask(self) -> None:
        self.buffer.clear()
        self.need = -1
        self.sent_at = time.perf_counter()
        self.socket.send(self.request)

    def hear(self) -> bool | None:
        """True: a good reply is complete. False: a bad one. None: more is to come."""
        data = self.socket.recv(1 << 20)
        if not data:
            return False
        self.buffer += data
        if self.need < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            head = bytes(self.buffer[:end]).lower()
            if b" 200" not in head.partition(b"\r\n")[0]:
                return False
            at = head.index(b"content-length:") + 15
            self.need = end + 4 + int(head[at:].partition(b"\r\n")[0])
        return True if len(self.buffer) >= self.need else None


def main() -> None:
    path, target, connections, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    request = f"GET {target} HTTP/1.1\r\nHost: argosy\r\nAccept: */*\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        asker = Asker(path, request)
        selector.register(asker.socket, selectors.EVENT_READ, asker)
        asker.ask()
    requests = errors = 0
    times = []
    started = time.perf_counter()
    end = started + seconds
    while time.perf_counter() < end and selector.get_map():
        for key, _ in selector.select(0.5):
            asker = key.data
            heard = asker.hear()
            if heard is None:
                continue
            if heard:
                requests += 1
                times.append(time.perf_counter() - asker.sent_at)
                asker.ask()
            else:
                errors += 1
                selector.unregister(asker.socket)
                asker.socket.close()
    took = time.perf_counter() - started
    times.sort()
    at = lambda share: round(times[int(share * (len(times) - 1))] * 1000, 3) if times else None  # noqa: E731
    print(
        json.dumps(
            {"requests": requests, "errors": errors, "seconds": took, "p50_ms": at(0.5), "p99_ms": at(0.99)}
        )
    )


if __name__ == "__main__":
    main()
