"""Streams of folders whose reader goes away."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from argosy.server.folder_transfers import _pieces


def test_who_goes_away_while_a_piece_is_read_leaves_nothing_open() -> None:
    reads, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def made() -> Iterator[bytes]:
        try:
            reads.set()
            assert go_on.wait(90)
            yield b"x" * 10
        finally:
            closed.set()

    async def main() -> None:
        pieces = _pieces(made(), [0])
        reader = asyncio.ensure_future(anext(pieces))
        assert await asyncio.to_thread(reads.wait, 90)
        reader.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        assert reader.cancelled()
        await pieces.aclose()
        assert closed.is_set()

    asyncio.run(main())
