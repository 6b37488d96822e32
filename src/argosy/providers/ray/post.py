"""The way to the nodes of a claim where only the dashboard of their cluster is reached: our end of
`on_post.Post`.

What we say is put as numbered packages into Ray's store, where the driver of the claim's job takes it.
What it says is a file among Ray's logs, which is read while it grows. Both are one TLS connection: the key is
ours, and our certificate goes with the order that makes the driver open its end.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import tempfile
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from argosy.infra import border
from argosy.infra.agent_client import StreamChannel
from argosy.infra.agent_port import Channel
from argosy.infra.mux import Carrier
from argosy.model.ids import Ids
from argosy.providers.ray import on_post
from argosy.providers.ray.api import RayApi

INTERVAL_S: Final = 0.02  # between two looks of the dashboard at a file
_OPEN_S: Final = 20.0
_STILL_S: Final = 20.0
_SILENCE_S: Final = 45.0
_AGAIN_S: Final = 0.1
_BYE_S: Final = 2.0
_PIECE_BYTES: Final = 64 << 10
_HIGH_BYTES: Final = 1 << 20
_LIMIT_BYTES: Final = 256 << 10
_OLD: Final = (
    "Ray at {} streams its logs in an older form, by which nodes cannot be reached: upgrade the cluster, or "
    "set ARGOSY_PUBLIC_URL, or write `login` in ray.yaml"
)


class Seal(NamedTuple):
    """A key of this server, in a context that accepts with it, and the certificate that shows it."""

    context: ssl.SSLContext
    certificate: str  # PEM


def make_seal() -> Seal:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Argosy")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))  # whatever clocks there show
        .not_valid_after(datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC))
        .sign(key, hashes.SHA256())
    )
    certificate = made.public_bytes(serialization.Encoding.PEM)
    chain = certificate + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python reads keys from files only: one that nobody else can open, and that is gone at once.
    descriptor, path = tempfile.mkstemp(prefix="argosy-")
    try:
        os.write(descriptor, chain)
        os.close(descriptor)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)  # noqa: PTH108
    return Seal(context, certificate.decode())


class _Left(ValueError):
    """The connection is over, whatever is tried: the driver ends, or speaks otherwise."""


class _File:
    """A file that the driver writes, as far as it has come."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._rest = bytearray()
        self._is_known = False
        self.size = 0  # bytes that have come

    def more(self, data: bytes) -> list[bytes]:
        """Its next pieces; b"" at its end. Raises _Left for what is no such file."""
        self.size += len(data)
        self._rest += data
        if not self._is_known and len(self._rest) >= len(on_post.MAGIC):
            if not self._rest.startswith(on_post.MAGIC):
                raise _Left(_OLD.format(self._url))
            del self._rest[: len(on_post.MAGIC)]
            self._is_known = True
        return list(on_post.split(self._rest)) if self._is_known else []


class Post:
    """One connection to the driver of a claim's job. It ends when the driver says nothing any more."""

    def __init__(self, api: RayApi, claim_id: str, own_id: str, seal: Seal) -> None:
        self._api, self._claim_id, self._id, self._seal = api, claim_id, own_id, seal
        self._wire = on_post.Wire(seal.context, accepts=True)
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._pipes: dict[int, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: asyncio.Task[None] | None = None
        self._count = 0
        self._ends = False
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_over = False

    async def begin(self) -> None:
        """Returns when the driver has answered. Raises a border error."""
        node = await self._driver_node()
        order = {"post": {"id": self._id, "ca": self._seal.certificate}}
        await self._api.put_package(f"argosy-{self._claim_id}.json", msgspec.json.encode(order))
        self._start(self._hear(node))
        self._sending = self._start(self._send())
        try:
            async with asyncio.timeout(_OPEN_S):
                await asyncio.shield(self._opened)
        except TimeoutError:
            error = border.Unreachable(f"the driver of {self._claim_id} does not answer yet")
            self._end(error)
            raise error from None

    async def _driver_node(self) -> str:
        job = await self._api.job(self._claim_id)
        if job is None or job.is_over:
            raise border.Unreachable(f"the job {self._claim_id} does not run")
        if job.driver_node_id:
            return job.driver_node_id
        return next((each.node_id for each in await self._api.nodes() if each.is_head_node), "")

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:  # Any: as asyncio has it
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def join(self, node: int) -> Channel:
        """A channel to `connect --mux` at a node."""
        if self.is_over:
            raise border.Unreachable(f"the connection to the driver of {self._claim_id} is over")
        self._count += 1
        number = self._count
        near, far = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=far, limit=_LIMIT_BYTES)
        self._pipes[number] = writer
        self._say(on_post.DATA, number, node)  # opens it
        self._start(self._give(number, node, reader))
        return StreamChannel(*await asyncio.open_unix_connection(sock=near, limit=_LIMIT_BYTES))

    async def _give(self, number: int, node: int, reader: asyncio.StreamReader) -> None:
        """Carry what is said to a node, and the end of it."""
        try:
            while data := await reader.read(_PIECE_BYTES):
                self._say(on_post.DATA, number, node, data)
                while self._wire.waiting > _HIGH_BYTES:
                    self._room.clear()
                    await self._room.wait()
        except OSError:
            pass  # its end, too
        if (writer := self._pipes.pop(number, None)) is not None:
            writer.close()
            self._say(on_post.END, number, node)

    def _say(self, kind: int, pipe: int = 0, node: int = 0, data: bytes = b"") -> None:
        self._wire.say(kind, pipe, node, data)
        self._wake.set()

    async def _send(self) -> None:
        """What waits goes as one package; more gathers meanwhile."""
        number = 0
        try:
            while True:
                try:
                    async with asyncio.timeout(_STILL_S):
                        await self._wake.wait()
                except TimeoutError:
                    self._wire.say(on_post.STILL)
                self._wake.clear()
                if data := self._wire.take():
                    await self._api.put_package(f"argosy-{self._id}-{number}", data)
                    number += 1
                    self._room.set()
                if self._ends:
                    return
        except border.BorderError as error:
            self._end(error)

    async def _hear(self, node: str) -> None:
        number = 0
        try:
            while True:
                await self._read(node, f"argosy-{self._id}.{number}")
                number += 1
                self._say(on_post.TAKEN, number)
        except (border.BorderError, ssl.SSLError, ValueError) as error:
            self._end(error)

    async def _read(self, node: str, name: str) -> None:
        """A file to its end. Where a stream of it breaks off another one follows, and what is known is passed
        over. Raises a border error."""
        file, loop = _File(self._api.url), asyncio.get_running_loop()
        heard_s = loop.time()
        while True:
            known, read = file.size, 0
            stream = self._api.follow(node, name, INTERVAL_S)
            try:
                while True:
                    async with asyncio.timeout(_SILENCE_S):
                        piece = await anext(stream)
                    new = piece[max(0, known - read) :]
                    read += len(piece)
                    heard_s = loop.time() if new else heard_s
                    if not self._obey(file.more(new)):
                        return
            except StopAsyncIteration:
                error: border.BorderError = border.Unreachable(f"{self._api.url} ended the stream")
            except TimeoutError:
                error = border.Unreachable(f"the driver of {self._claim_id} is silent")
            except border.Transient as refused:  # it is not there yet, or the way to Ray is cut
                error = refused
            finally:
                await stream.aclose()
            if loop.time() - heard_s > (_SILENCE_S if self._opened.done() else _OPEN_S):
                raise error
            await asyncio.sleep(_AGAIN_S)

    def _obey(self, pieces: Sequence[bytes]) -> bool:
        """False: the file ended."""
        for piece in pieces:
            if not piece:
                return False
            for kind, pipe, _, data in self._wire.heard(piece):
                if not self._opened.done():
                    self._opened.set_result(None)
                if kind == on_post.BYE:
                    raise _Left(f"the driver of {self._claim_id} has ended")
                writer = self._pipes.get(pipe)
                if writer is not None and kind == on_post.DATA:
                    writer.write(data)
                elif writer is not None and kind == on_post.END:
                    self._pipes.pop(pipe).close()
        self._wake.set()  # the handshake may have something to say
        return True

    def _end(self, error: Exception) -> None:
        """Nothing goes either way any more."""
        self.is_over = True
        if not self._opened.done():
            self._opened.set_exception(
                error if isinstance(error, border.BorderError) else border.Unreachable(str(error))
            )
            self._opened.exception()  # who waits for it may have gone
        for writer in self._pipes.values():
            writer.close()
        self._pipes.clear()
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    async def close(self) -> None:
        """The driver is told, if it still can be."""
        if not self.is_over and self._sending is not None:
            self._ends = True
            self._say(on_post.BYE)
            await asyncio.wait({self._sending}, timeout=_BYE_S)
            self._end(border.Unreachable("this server has closed the connection"))


class Posts:
    """Of one cluster: streams to agents of nodes, over one post for each claim, which is opened when a stream
    is first asked for."""

    def __init__(self, api: RayApi, ids: Ids) -> None:
        self._api, self._ids = api, ids
        self._seal: Seal | None = None
        self._posts: dict[str, Post] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._carriers: dict[str, Carrier] = {}

    async def open(self, node: str) -> Channel:
        """A stream to the agent of `<claim>-<index>`. Raises a border error."""
        if node not in self._carriers:
            claim_id, _, index = node.rpartition("-")

            async def join() -> Channel:
                return await (await self._post(claim_id)).join(int(index))

            self._carriers[node] = Carrier(join)
        return await self._carriers[node].open()

    async def _post(self, claim_id: str) -> Post:
        async with self._opening.setdefault(claim_id, asyncio.Lock()):
            post = self._posts.get(claim_id)
            if post is None or post.is_over:
                self._seal = self._seal or make_seal()
                post = self._posts[claim_id] = Post(self._api, claim_id, self._ids.new("post"), self._seal)
                await post.begin()
            return post

    async def forget(self, claim_id: str) -> None:
        """Of a claim that is released."""
        self._opening.pop(claim_id, None)
        for node in [each for each in self._carriers if each.rpartition("-")[0] == claim_id]:
            await self._carriers.pop(node).close()
        if (post := self._posts.pop(claim_id, None)) is not None:
            await post.close()

    async def close(self) -> None:
        for claim_id in list(self._posts):
            await self.forget(claim_id)
