"""One thread for one database connection, so that the event loop never waits for a disk.

Requests that wait at the same time are performed together, in one transaction: a disk or a network is paid
for once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

from argosy.model.errors import ArgosyError

R = TypeVar("R")
A = TypeVar("A")
T = TypeVar("T")

BATCH_MAX: Final = 64


class _Waiter(Generic[T]):
    """Who waits for an answer, and in which event loop."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self._loop.create_future()

    @property
    def left(self) -> bool:
        return self._future.cancelled()

    async def wait(self) -> T:
        return await self._future

    def answer(self, result: T | BaseException) -> None:
        try:
            self._loop.call_soon_threadsafe(self._set, result)
        except RuntimeError:  # the loop was closed: nobody waits any more
            pass

    def _set(self, result: T | BaseException) -> None:
        if self._future.done():
            return
        if isinstance(result, BaseException):
            self._future.set_exception(result)
        else:
            self._future.set_result(result)


class _Call(Generic[T]):
    __slots__ = ("waiter", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.waiter: _Waiter[T] = _Waiter()

    def perform(self) -> None:
        if self.waiter.left:
            return
        try:
            result: T | BaseException = self.work()
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller, not in this thread
            result = error
        self.waiter.answer(result)


class _Joined(Generic[R, A]):
    __slots__ = ("request", "waiter")

    def __init__(self, request: R) -> None:
        self.request = request
        self.waiter: _Waiter[A] = _Waiter()


class _Stop:
    __slots__ = ()


class Lane(Generic[R, A]):
    """Performs calls one after another: in a thread of its own, or `inline` in whoever calls.

    `perform` gets the requests of `join`, up to `BATCH_MAX` at once, and returns an answer or an error for
    each."""

    def __init__(
        self, perform: Callable[[Sequence[R]], Sequence[A | Exception]], *, inline: bool, name: str
    ) -> None:
        self._perform = perform
        self._queue: SimpleQueue[_Call[A] | _Joined[R, A] | _Stop] = SimpleQueue()
        self._closed = False
        self._thread: threading.Thread | None = None
        if not inline:
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    async def call(self, work: Callable[[], T]) -> T:
        """The result of `work()`. When cancelled before its turn, it is not done at all."""
        self._refuse_when_closed()
        if self._thread is None:
            return work()
        call = _Call(work)
        self._queue.put(call)  # type: ignore[arg-type]
        return await call.waiter.wait()

    async def join(self, request: R) -> A:
        """The answer to one request of a batch. When cancelled in mid-batch, it may still be performed."""
        self._refuse_when_closed()
        if self._thread is None:
            answer = self._perform([request])[0]
            if isinstance(answer, Exception):
                raise answer
            return answer
        joined: _Joined[R, A] = _Joined(request)
        self._queue.put(joined)
        return await joined.waiter.wait()

    @property
    def is_closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        """Perform what waits, then end."""
        self._closed = True
        if self._thread is not None:
            self._queue.put(_Stop())
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ArgosyError("store-busy", "the store is closed", hint="start the server again")

    def _run(self) -> None:
        held: _Call[A] | _Joined[R, A] | _Stop | None = None
        while True:
            item = held or self._queue.get()
            held = None
            if isinstance(item, _Joined):
                batch = [item]
                while len(batch) < BATCH_MAX and not self._queue.empty():
                    held = self._queue.get_nowait()
                    if not isinstance(held, _Joined):
                        break
                    batch.append(held)
                    held = None
                self._perform_batch([one for one in batch if not one.waiter.left])
            elif isinstance(item, _Call):
                item.perform()
            else:
                return

    def _perform_batch(self, batch: Sequence[_Joined[R, A]]) -> None:
        if not batch:
            return
        try:
            answers: Sequence[A | BaseException] = self._perform([one.request for one in batch])
        except BaseException as error:  # noqa: BLE001 - it belongs to those who wait, not to this thread
            answers = [error] * len(batch)
        for one, answer in zip(batch, answers, strict=True):
            one.waiter.answer(answer)
