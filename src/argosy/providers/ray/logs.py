"""The output of Ray's jobs as it grows. Ray gives a log as a whole, or tells it from its beginning on over a
WebSocket: that is listened to while the job runs, and only what nobody has taken yet is held."""

from __future__ import annotations

import asyncio
from typing import Final

from argosy.infra import border
from argosy.providers.ray.api import Job, RayApi
from argosy.providers.ray.states import reason_of

PIECE_BYTES: Final = 256 << 10  # of a job, in one look
_HELD_BYTES: Final = 1 << 20  # then Ray waits
_SMALL_BYTES: Final = (
    1 << 20
)  # a log that ended no larger is asked for as a whole: the WebSocket ends seconds later


class JobLog:
    """One job's output."""

    def __init__(self, api: RayApi, job_id: str) -> None:
        self._api, self._job_id = api, job_id
        self._data = bytearray()
        self._start = 0  # offset of its first byte
        self._listening: asyncio.Task[None] | None = None
        self._is_heard_out = False  # Ray has closed the WebSocket: nothing more comes
        self._taken = asyncio.Event()
        self._is_whole = False
        self._most = 0  # bytes that were ever known

    @property
    def size(self) -> int:
        """Bytes of output that are known."""
        return self._start + len(self._data)

    async def read(self, offset: int, job: Job) -> tuple[bytes, bool]:
        """Bytes from `offset` on, and whether the output ends with them. Raises a border error."""
        if offset < self._start:
            self.close()  # somebody reads it again from the beginning
        elif offset > self._start:
            taken = min(offset - self._start, len(self._data))
            del self._data[:taken]
            self._start += taken
            self._taken.set()
        if job.is_over and not self._is_whole:
            await self._finish(job)
        elif job.status == "RUNNING":
            self._listen()
        at = offset - self._start
        piece = bytes(self._data[at : at + PIECE_BYTES]) if at >= 0 else b""
        return piece, self._is_whole and offset + len(piece) >= self.size

    async def _finish(self, job: Job) -> None:
        """The rest of what a job that is over has said, then why Ray ended it."""
        if self._is_heard_out or self._most > _SMALL_BYTES:
            self._listen()
            if not self._is_heard_out:
                return
        else:
            text = await self._api.logs(self._job_id)
            rest = text.encode("utf-8", "surrogateescape")[self.size :]
            self._stop_listening()
            self._data += rest
        if why := reason_of(job):
            line_break = b"\n" if self._data and not self._data.endswith(b"\n") else b""
            self._data += line_break + f"argosy: {why}\n".encode()
        self._is_whole = True

    def _listen(self) -> None:
        if self._listening is None or (self._listening.done() and not self._is_heard_out):
            self._listening = asyncio.get_running_loop().create_task(self._hear())

    async def _hear(self) -> None:
        known = self.size
        try:
            async for text in self._api.tail(self._job_id):
                data = text.encode("utf-8", "surrogateescape")
                new = data[known:]
                known = max(0, known - len(data))
                while len(self._data) > _HELD_BYTES:
                    self._taken.clear()
                    await self._taken.wait()
                self._data += new
                self._most = max(self._most, self.size)
        except border.BorderError:
            return  # the next look listens anew
        self._is_heard_out = True

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()

    def close(self) -> None:
        """Nothing is held any more; who reads again begins anew."""
        self._stop_listening()
        self._data.clear()
        self._listening, self._start = None, 0
        self._is_heard_out = self._is_whole = False
