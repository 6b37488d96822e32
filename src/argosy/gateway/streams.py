"""A stream of events that began before its replica was there: comments first, then what the replica says."""

from __future__ import annotations

from typing import Final

from argosy.gateway.heads import CHUNKED, AnswerHead

_LAST: Final = b"0\r\n\r\n"


class EarlyStream:
    """Renders the replica's answer into a stream whose status 200 the client has already."""

    __slots__ = ("_fails", "_passes")

    def __init__(self) -> None:
        self._passes = False  # the replica's chunks are ours
        self._fails = False  # the replica answered with an error: its body is told as an event

    def head(self, request_id: bytes) -> bytes:
        return (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n"
            b"transfer-encoding: chunked\r\nx-argosy-request-id: " + request_id + b"\r\n\r\n"
        )

    def chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""

    def render(self, head: AnswerHead | None, piece: bytes, done: bool) -> bytes:
        """What the client gets for a piece of the answer."""
        if head is not None:
            self._passes = head.status == 200 and head.length == CHUNKED
            self._fails = head.status != 200
            if self._fails:
                return self.end_with(b'{"error":{"code":"replica-failed","status":%d}}' % head.status)
        if self._passes:
            return piece
        if self._fails:
            return b""
        return self.chunk(piece) + (_LAST if done else b"")

    def end_with(self, error: bytes) -> bytes:
        """The end, with an error as the last event."""
        return self.chunk(b"event: error\ndata: " + error.strip() + b"\n\n") + _LAST
