"""The server's end of a copy to a node: `argosy.agent.fetch` says what is on the wire.

The node gets most objects itself, by addresses that it is told a few hundred at a time. Where it cannot reach
the store, or the store gives no addresses, the bytes go through this connection, one object after another
while the next ones are read ahead.

What lay there after the last copy is remembered by the token that the node gave for it. Where the node says
that nothing has changed there, it is told what is new in the store, and the bytes at once.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import msgspec

from argosy.agent.listing import EMPTY, differing, digest_of, digests_of_groups, group_of, groups_for
from argosy.infra import border
from argosy.infra.agent_port import Channel, DataFile, DataSource, Fetched, FetchOrder

_FEW: Final = 64  # files that are told without asking what the node has
_WINDOW: Final = 1024  # addresses that the node has not used yet
_READERS: Final = 8
_AHEAD: Final = 12  # bundles of small objects that are read before their turn
_SMALL_BYTES: Final = 1 << 20  # of an object, and of a bundle but for its last one
_BUNDLE: Final = 128
_SILENT_S: Final = 300.0
_REMEMBERED: Final = 400_000  # files, about 200 bytes each
_UNREACHED_MAX: Final = 3  # so many addresses nobody answered at, before all goes through here


class Copies:
    """What lies on nodes, by the tokens that they gave for it: the last `_REMEMBERED` files."""

    def __init__(self) -> None:
        self._files: collections.OrderedDict[str, tuple[DataFile, ...]] = collections.OrderedDict()

    def get(self, token: str) -> tuple[DataFile, ...] | None:
        return () if token == EMPTY else self._files.get(token)

    def keep(self, token: str, files: tuple[DataFile, ...]) -> None:
        if token in ("", EMPTY):
            return
        self._files[token] = files
        self._files.move_to_end(token)
        # One listing goes to many nodes.
        while sum({id(each): len(each) for each in self._files.values()}.values()) > _REMEMBERED:
            self._files.popitem(last=False)

    def forget(self) -> None:
        self._files.clear()


_COPIES: Final = Copies()  # tokens are never used twice, whoever gave them


class _News(msgspec.Struct):
    """What the node says."""

    state: str | None = None
    token: str = ""
    groups: str | None = None
    need: tuple[int, ...] | None = None
    have: dict[int, int] = {}
    bytes: int = 0
    done: tuple[int, ...] = ()
    failed: int = -1
    status: int = 0
    why: str = ""
    error: str = ""
    text: str = ""
    files: int = -1
    removed: int = 0


class Fetching:
    """One order. Memory: `_AHEAD` bundles of small objects. `early`: the node was told the target before."""

    def __init__(self, channel: Channel, order: FetchOrder, source: DataSource, *, early: bool) -> None:
        self._channel, self._order, self._source, self._early = channel, order, source, early
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="data")
        self._by_url: collections.deque[int] = collections.deque()
        self._through_here: collections.deque[int] = collections.deque()
        self._outstanding: set[int] = set()
        self._left: set[int] = set()
        self._have: dict[int, int] = {}
        self._unreached, self._reached, self._relayed = 0, False, 0
        self._why, self._ended = "", False
        self._changed = asyncio.Event()

    async def run(self) -> Fetched:
        """Raises a border error, what the source raises, OSError and EOFError when the connection ends."""
        try:
            need = await self._begin()
            if need.need is None:
                raise border.Unreachable("the agent does not speak our wire")
            self._left, self._have = set(need.need), need.have
            self._total_files, self._total_bytes = len(self._left), need.bytes
            await asyncio.to_thread(self._sort, need.need)
            hearing = asyncio.ensure_future(self._hear_all())
            feeding = asyncio.ensure_future(self._feed())
            try:
                await asyncio.wait({hearing, feeding}, return_when=asyncio.FIRST_EXCEPTION)
                for task in (hearing, feeding):
                    if task.done():
                        task.result()
            finally:
                hearing.cancel()
                feeding.cancel()
                await asyncio.wait({hearing, feeding})
            if need.need and not self._ended:
                self._say({"end": True})
            while (last := await self._hear()).files < 0:
                pass
            _COPIES.keep(last.token, self._order.files)
            return Fetched(
                files=last.files, bytes=last.bytes, removed=last.removed, relayed=self._relayed, why=self._why
            )
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _begin(self) -> _News:
        """Tell what is wanted: everything when that is little, else what differs from what the node has."""
        order, files = self._order, self._order.files
        head: dict[str, object] = {
            "target": order.target, "single": order.single, "full": order.full, "md5": order.md5
        }  # fmt: skip
        head |= {"encryption": order.encryption, "key_id": order.key_id} if order.encryption else {}
        head |= {"shape": order.shape} if order.shape is not None else {}
        state = (await self._hear()).state if self._early else None
        old = _COPIES.get(state or "")
        if old is not None and not order.full and not order.single:
            return await self._tell_changes(head | {"since": state}, old)
        head["digest"] = await asyncio.to_thread(digest_of, map(_row, files))
        if order.full or len(files) <= _FEW:
            await self._list(head | {"groups": 0}, range(len(files)))
            return await self._hear()
        count = groups_for(len(files))
        self._say(head | {"groups": count, "count": 0})
        told, ours = await asyncio.gather(
            self._hear(), asyncio.to_thread(digests_of_groups, map(_row, files), count)
        )
        if told.groups is None:
            return told
        try:
            groups = frozenset(differing(ours, told.groups))
        except ValueError:
            raise border.Unreachable("the agent does not speak our wire") from None
        some = [index for index, each in enumerate(files) if group_of(each.path, count) in groups]
        await self._list({"groups": sorted(groups)}, some)
        return await self._hear()

    async def _tell_changes(self, head: dict[str, object], old: tuple[DataFile, ...]) -> _News:
        """What the node lacks is known without asking it. Only targets outside of its home, which nodes
        share, need a digest."""
        files = self._order.files
        if self._order.target.startswith("/"):
            head["digest"] = await asyncio.to_thread(digest_of, map(_row, files))
        changed, removed = await asyncio.to_thread(changes, old, files)
        await self._list(head | {"removed": removed}, changed)
        return _News(need=tuple(changed), bytes=sum(files[index].size for index in changed))

    async def _list(self, head: Mapping[str, object], indices: Sequence[int]) -> None:
        encoder, lines = msgspec.json.Encoder(), bytearray()
        for index in indices:
            each = self._order.files[index]
            encoder.encode_into((each.path, each.size, each.etag, index), lines, len(lines))
            lines += b"\n"
        self._say({**head, "count": len(indices)})
        self._channel.writer.write(bytes(lines))
        await self._channel.writer.drain()

    def _sort(self, need: tuple[int, ...]) -> None:
        """Whether the store gives addresses is asked once."""
        if need and self._source.address(need[0]):
            self._by_url.extend(need)
        else:
            self._through_here.extend(need)

    # ---- hearing

    async def _hear(self) -> _News:
        """Raises what the node says went wrong."""
        async with asyncio.timeout(_SILENT_S):
            pieces = []
            while True:  # a list of what is missing may be longer than the reader's limit
                try:
                    pieces.append(await self._channel.reader.readuntil(b"\n"))
                    break
                except asyncio.LimitOverrunError as error:
                    pieces.append(await self._channel.reader.readexactly(error.consumed))
        news = msgspec.json.decode(b"".join(pieces), type=_News)
        if news.error == "transient":
            raise border.Transient(news.text)
        if news.error:
            raise border.RequestRefused(news.error, news.text)
        return news

    async def _hear_all(self) -> None:
        while self._left:
            try:
                news = await self._hear()
            except TimeoutError:
                raise border.Transient(f"the copy to `{self._order.target}` stands still") from None
            if news.failed >= 0:
                self._failed(news)
            if news.done:
                self._reached = self._reached or any(each in self._outstanding for each in news.done)
                self._left.difference_update(news.done)
                self._outstanding.difference_update(news.done)
            done = self._total_files - len(self._left)
            self._source.told(done, news.bytes, self._total_files, self._total_bytes)
            self._changed.set()

    def _failed(self, news: _News) -> None:
        """What the node could not get goes through here; all of it, when it reaches nothing."""
        self._outstanding.discard(news.failed)
        self._through_here.append(news.failed)
        self._why = self._why or news.why
        if news.status == 0 and not self._reached:
            self._unreached += 1
            if self._unreached >= _UNREACHED_MAX:
                self._through_here.extend(self._by_url)
                self._by_url.clear()

    # ---- feeding

    async def _feed(self) -> None:
        while self._left:
            self._changed.clear()
            if self._by_url and len(self._outstanding) < _WINDOW:
                count = min(128, len(self._by_url), _WINDOW - len(self._outstanding))
                # The first few alone: they tell whether the node reaches the store at all.
                count = count if self._reached else min(count, _UNREACHED_MAX)
                if self._reached or not self._outstanding:
                    await self._send_addresses([self._by_url.popleft() for _ in range(count)])
                    continue
            if self._through_here:
                await self._relay()
                if not (self._by_url or self._outstanding or self._through_here):
                    self._say({"end": True})  # in the same packet as the last bytes
                    self._ended = True
                    return
                self._say({"tell": True})
                continue
            await self._changed.wait()

    async def _send_addresses(self, indices: list[int]) -> None:
        def signed() -> list[tuple[int, str]]:
            return [(index, self._source.address(index)) for index in indices]

        for index, href in await self._loop.run_in_executor(self._pool, signed):
            if href:
                self._outstanding.add(index)
                self._say({"url": index, "href": href})
            else:
                self._through_here.append(index)
        await self._channel.writer.drain()

    async def _relay(self) -> None:
        """All that goes through here at present; small objects are read ahead of their turn, in bundles."""
        ahead: collections.deque[tuple[int, Future[bytes] | None]] = collections.deque()
        while self._through_here or ahead:
            while self._through_here and len(ahead) < _AHEAD:
                bundle = self._next_bundle()
                if bundle:
                    ahead.append((-1, self._pool.submit(self._read_bundle, bundle)))
                else:
                    ahead.append((self._through_here.popleft(), None))
            index, reading = ahead.popleft()
            if reading is None:
                await self._stream(index)
                continue
            data = await asyncio.wrap_future(reading)
            self._channel.writer.write(data)
            await self._channel.writer.drain()

    def _next_bundle(self) -> list[int]:
        """Small objects whose turn is next; none where a large one is."""
        bundle: list[int] = []
        size = 0
        while self._through_here and len(bundle) < _BUNDLE and size < _SMALL_BYTES:
            if self._order.files[self._through_here[0]].size > _SMALL_BYTES:
                break
            bundle.append(self._through_here.popleft())
            size += self._order.files[bundle[-1]].size
        return bundle

    def _read_bundle(self, bundle: Sequence[int]) -> bytes:
        """These objects as they travel. Blocks."""
        pieces: list[bytes] = []
        for index in bundle:
            data = b"".join(self._source.read(index, 0))
            if len(data) != self._order.files[index].size:
                raise self._is_other(index)
            pieces += (b'{"data":%d,"first":0,"size":%d}\n' % (index, len(data)), data)
            self._relayed += len(data)
        return b"".join(pieces)

    def _is_other(self, index: int) -> border.Transient:
        return border.Transient(f"`{self._order.files[index].path}` changed while it was read")

    async def _stream(self, index: int) -> None:
        first, size = self._have.get(index, 0), self._order.files[index].size
        if first >= size:  # all of it is there, and was not put in its place
            await self._send(index, size, b"")
        pieces = self._source.read(index, first)
        while first < size:
            piece = await self._loop.run_in_executor(self._pool, _next, pieces)
            if not piece:
                raise self._is_other(index)
            await self._send(index, first, piece)
            first += len(piece)

    async def _send(self, index: int, first: int, data: bytes) -> None:
        if first + len(data) > self._order.files[index].size:
            raise self._is_other(index)
        self._say({"data": index, "first": first, "size": len(data)})
        self._channel.writer.write(data)
        self._relayed += len(data)
        await self._channel.writer.drain()

    def _say(self, what: dict[str, object]) -> None:
        self._channel.writer.write(msgspec.json.encode(what) + b"\n")


def changes(old: Sequence[DataFile], new: Sequence[DataFile]) -> tuple[list[int], list[str]]:
    """Indices of files that are new or others than before, and paths of those that are no more.

    >>> changes([DataFile("a", 1, "x"), DataFile("b", 2, "y")], [DataFile("b", 2, "z"), DataFile("c", 3, "")])
    ([0, 1], ['a'])
    """
    if len(old) == len(new):  # mostly the same files in the same order
        differing_ones = [
            index for index, (one, other) in enumerate(zip(old, new, strict=True)) if one != other
        ]
        if all(old[index].path == new[index].path for index in differing_ones):
            return differing_ones, []
    before = {each.path: each for each in old}
    changed = [index for index, each in enumerate(new) if before.pop(each.path, None) != each]
    return changed, list(before)


def _row(each: DataFile) -> tuple[object, ...]:
    return each.path, each.size, each.etag


def _next(pieces: Iterator[bytes]) -> bytes:
    return next(pieces, b"")
