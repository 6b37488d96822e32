"""Streams of log frames: from bytes to frames, and from frames to what a terminal shows. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from argosy.api.jobs import LogFrame
from argosy.model.errors import ArgosyError

HEADER_LIMIT_BYTES: Final = 64 << 10
FRAME_LIMIT_BYTES: Final = 256 << 20
LINE_LIMIT_BYTES: Final = 16 << 10  # a longer unfinished line is shown in pieces

_DECODER: Final = msgspec.json.Decoder(LogFrame)


class LogPiece(NamedTuple):
    """One whole frame: what is said about it, and the bytes that a rank wrote."""

    frame: LogFrame
    data: bytes


class FrameDecoder:
    """Bytes of `application/x-argosy-log` in, whole frames out.

    A frame comes out only when it is complete: so its cursor stands for exactly what was shown, and going on
    from it after a lost connection neither loses nor repeats a byte.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._frame: LogFrame | None = None
        self._parts: list[bytes] = []
        self._left = 0

    def feed(self, data: bytes) -> Iterator[LogPiece]:
        at = 0
        size = len(data)
        while at < size:
            if self._frame is None:
                end = data.find(b"\n", at)
                if end < 0:
                    self._header += data[at:]
                    if len(self._header) > HEADER_LIMIT_BYTES:
                        raise ArgosyError("version-mismatch", "the server's log stream is not understood")
                    return
                line = bytes(self._header) + data[at:end]
                self._header.clear()
                at = end + 1
                try:
                    frame = _DECODER.decode(line)
                except msgspec.DecodeError as error:
                    raise ArgosyError(
                        "version-mismatch", f"the server's log stream is not understood ({error})"
                    ) from None
                if not 0 <= frame.size <= FRAME_LIMIT_BYTES:
                    raise ArgosyError("version-mismatch", "the server's log stream is not understood")
                if frame.size == 0:
                    yield LogPiece(frame, b"")
                    continue
                self._frame, self._left = frame, frame.size
            taken = min(self._left, size - at)
            self._parts.append(data if taken == size else data[at : at + taken])
            at += taken
            self._left -= taken
            if self._left == 0 and self._frame is not None:
                piece = LogPiece(
                    self._frame, self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                )
                self._frame, self._parts = None, []
                yield piece


class Prefixer:
    """Puts `(name, rank=1) ` before each line, so that the ranks of a gang can be told apart.

    Only whole lines come out, else lines of two ranks would run into each other; `rest` gives what is left.

    >>> prefixer = Prefixer("train")
    >>> prefixer.add(1, b"loss 2.0\\nloss"), prefixer.add(1, b" 1.5\\n")
    (b'(train, rank=1) loss 2.0\\n', b'(train, rank=1) loss 1.5\\n')
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest: dict[int, bytes] = {}
        self._prefixes: dict[int, bytes] = {}

    def add(self, rank: int, data: bytes) -> bytes:
        end = data.rfind(b"\n") + 1
        held = self._rest.pop(rank, b"")
        if end == 0:
            held += data
            if len(held) <= LINE_LIMIT_BYTES:
                self._rest[rank] = held
                return b""
            return self._prefix(rank) + held + b"\n"
        if end < len(data):
            self._rest[rank] = data[end:]
        prefix = self._prefix(rank)
        return prefix + held + data[: end - 1].replace(b"\n", b"\n" + prefix) + b"\n"

    def rest(self) -> bytes:
        """The unfinished last line of each rank; afterwards nothing is held."""
        rest = b"".join(self._prefix(rank) + data + b"\n" for rank, data in sorted(self._rest.items()))
        self._rest.clear()
        return rest

    def _prefix(self, rank: int) -> bytes:
        prefix = self._prefixes.get(rank)
        if prefix is None:
            prefix = self._prefixes[rank] = f"({self._name}, rank={rank}) ".encode()
        return prefix
