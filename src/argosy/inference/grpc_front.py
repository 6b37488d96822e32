"""gRPC at the port of HTTP: a connection that begins as HTTP/2 is led to a server of grpcio, which is started
with the first one. Needs `grpcio`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from argosy.inference import grpc_messages as messages
from argosy.inference import protobuf
from argosy.inference.front import VERSION, Front
from argosy.inference.tensors import BadRequest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SERVICE = "inference.GRPCInferenceService"
_HEALTH = "grpc.health.v1.Health"
_SERVING, _NOT_SERVING = 1, 2
_HIGH = 256 * 1024  # bytes that may wait for one side


class Grpc:
    """The server behind a socket in a folder of its own."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._folder = tempfile.TemporaryDirectory(prefix="argosy-grpc-")
        self._path = str(Path(self._folder.name) / "grpc.sock")
        self._server: Any = None
        self._starting: asyncio.Future[None] | None = None

    async def path(self) -> str:
        """Of its socket, once it listens. Raises ImportError without grpcio."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)
        return self._path

    async def _start(self) -> None:
        import grpc.aio

        unlimited = -1
        options = [
            ("grpc.max_receive_message_length", self._front.body_limit),
            ("grpc.max_send_message_length", unlimited),
        ]
        self._server = grpc.aio.server(options=options)
        methods = {
            name: grpc.unary_unary_rpc_method_handler(self._method(call))
            for name, call in _calls(self._front).items()
        }
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        health = {"Check": grpc.unary_unary_rpc_method_handler(self._method(self._health))}
        handlers = [grpc.method_handlers_generic_handler(_SERVICE, methods)]
        handlers.append(grpc.method_handlers_generic_handler(_HEALTH, health))
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self._server.add_insecure_port("unix:" + self._path)
        await self._server.start()

    async def close(self, grace_s: float) -> None:
        """Nothing new is accepted; calls that have begun are answered."""
        if self._server is not None:
            await self._server.stop(grace_s)
        self._folder.cleanup()

    @staticmethod
    def _method(call: Callable[[bytes], Awaitable[bytes]]) -> Any:
        async def answer(message: bytes, context: Any) -> bytes:
            try:
                return await call(message)
            except BadRequest as error:
                await context.abort(_status(error), str(error))
                raise

        return answer

    async def _stream(self, given: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """One answer for each request; one that fails does not end the stream."""
        async for message in given:
            try:
                yield messages.write_stream(await _infer(self._front, message))
            except BadRequest as error:
                yield messages.write_stream(error=str(error))

    async def _health(self, _message: bytes) -> bytes:
        return protobuf.number(1, _SERVING if self._front.ready else _NOT_SERVING)


def _status(error: BadRequest) -> Any:
    import grpc

    code = grpc.StatusCode
    known = {404: code.NOT_FOUND, 413: code.RESOURCE_EXHAUSTED, 500: code.INTERNAL, 503: code.UNAVAILABLE}
    return known.get(error.status, code.INVALID_ARGUMENT)


def _calls(front: Front) -> dict[str, Callable[[bytes], Awaitable[bytes]]]:
    """What can be asked, by name."""
    models = front.models

    async def live(_message: bytes) -> bytes:
        return protobuf.number(1, True)

    async def ready(_message: bytes) -> bytes:
        return protobuf.number(1, front.ready)

    async def model_ready(message: bytes) -> bytes:
        models.get(*messages.read_named(message))
        return protobuf.number(1, True)

    async def server(_message: bytes) -> bytes:
        return messages.write_server("argosy-inference", VERSION, ("model_repository",))

    async def metadata(message: bytes) -> bytes:
        model = models.get(*messages.read_named(message))
        versions = sorted(models.known[model.name], key=int)
        specs = [model.engine.inputs, model.engine.outputs]
        return messages.write_metadata(model.name, versions, model.engine.platform, specs)

    async def index(_message: bytes) -> bytes:
        return messages.write_index((each.name, each.version) for each in models.all())

    async def infer(message: bytes) -> bytes:
        return await _infer(front, message)

    return {
        "ServerLive": live,
        "ServerReady": ready,
        "ModelReady": model_ready,
        "ServerMetadata": server,
        "ModelMetadata": metadata,
        "RepositoryIndex": index,
        "ModelInfer": infer,
    }


async def _infer(front: Front, message: bytes) -> bytes:
    request = messages.read_infer(message)
    model = front.models.get(request.model, request.version)
    found = await model.infer(request.inputs, request.datatypes, request.wanted)
    return messages.write_infer(request, model.name, model.version, found)


# --- both protocols at one port --------------------------------------------------------------------------


class Door(asyncio.Protocol):
    """A connection whose first bytes say what it speaks."""

    def __init__(self, http: Callable[[], asyncio.Protocol], grpc: Grpc) -> None:
        self._http, self._grpc = http, grpc
        self._seen = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._seen.startswith(PREFACE):
            self._transport.pause_reading()
            asyncio.ensure_future(self._lead())
        elif not PREFACE.startswith(self._seen):
            protocol = self._http()
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            protocol.data_received(self._seen)

    async def _lead(self) -> None:
        near = _Half()
        try:
            path = await self._grpc.path()
            loop = asyncio.get_running_loop()
            _, far = await loop.create_unix_connection(_Half, path)
        except (OSError, ImportError):  # HTTP/2 is not spoken here then
            self._transport.abort()
            return
        assert isinstance(far, _Half)
        if self._transport.is_closing():
            far.transport.abort()
            return
        near.other, far.other = far.transport, self._transport
        self._transport.set_protocol(near)
        near.connection_made(self._transport)
        far.flow(near)
        near.flow(far)
        near.data_received(self._seen)
        self._transport.resume_reading()


class _Half(asyncio.Protocol):
    """One side of a connection that is led on."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.other: asyncio.Transport
        self._peer: _Half | None = None
        self._early: list[bytes] = []

    def flow(self, peer: _Half) -> None:
        """Both sides are there."""
        self._peer = peer
        for data in self._early:
            self.other.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_HIGH)

    def data_received(self, data: bytes) -> None:
        if self._peer is None:
            self._early.append(data)
        else:
            self.other.write(data)

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._peer is not None and not self._peer.transport.is_closing():
            self._peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._peer is not None:
            self.other.close()
