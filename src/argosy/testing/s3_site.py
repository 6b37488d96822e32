"""The embedded store behind its S3 address, in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from argosy.facades.s3.app import S3
from argosy.facades.s3.ports import Doorkeeper, Holder
from argosy.infra.system import SystemClock, SystemIds
from argosy.server.door import Door, Limits
from argosy.server.listeners import bind_tcp
from argosy.server.raw_bodies import App, with_files
from argosy.server.s3_holders import holder_of
from argosy.storage.shelf import Shelf

T = TypeVar("T")


class _Keeper:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def holder_of(self, key_id: str, token: str) -> Holder | None:
        return await holder_of(self._shelf, key_id, token)


class Site:
    """`address`: where it listens; `key`: id and secret of an owner; `app`: what answers, in S3's place."""

    def __init__(self, root: Path, keeper: Doorkeeper | None = None, app: App | None = None) -> None:
        self._keeper, self._app = keeper, app
        self.root = root
        self.shelf = Shelf(root, SystemClock(), SystemIds())
        self._socket = bind_tcp("127.0.0.1:0")
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait(10)
        self.key = self.ask(self.shelf.make_key("owner"))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def act() -> None:
            with self._socket as sock:
                self.port = sock.getsockname()[1]
                app = self._app or S3(self.shelf, SystemClock(), keeper=self._keeper or _Keeper(self.shelf))
                door = Door(with_files(app), [sock], Limits(headers=200))
                await door.open()
                self._done = asyncio.Event()
                self._ready.set()
                await self._done.wait()
                await door.close()

        self._loop.run_until_complete(act())

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"
