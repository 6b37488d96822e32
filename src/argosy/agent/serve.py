"""The agent's answers: HTTP/1.1 as `wire` says, on whatever connection `daemon` gives it."""

from __future__ import annotations

import asyncio
import errno
import json

from argosy.agent import venv, wire
from argosy.agent.kept_calls import KeptCalls
from argosy.agent.node import Node, boot_id
from argosy.agent.orders import Busy, Refused, base_env
from argosy.agent.rank import warn
from argosy.agent.ranks import Ranks
from argosy.agent.sharing import Sharing
from argosy.agent.tree_calls import TreeCalls
from argosy.agent.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from argosy.agent.trees import Trees

    Streaming = Callable[[dict[str, object], asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_UNREAD_PATIENCE_S = 30.0  # how long we take in what a refused request still sends
_DEVICES_PATIENCE_S = 10.0  # a driver that does not answer must not keep the node from being used

_STATUS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    409: "Conflict",
    413: "Too Large",
    503: "Unavailable",
}


_DATA = ("fetch", "fetch/early", "send", "lend")


class BadRequest(Exception):
    """What came is not HTTP as we speak it; the connection ends."""


class Request:
    def __init__(self, method: str, path: str, headers: dict[str, str], length: int) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.length = length


class Agent:
    """Binds requests to ranks, trees and terminals."""

    def __init__(
        self, root: str, name: str, own_devices: list[int] | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._loop = loop
        self._root = root
        self._node = Node(root, name, own_devices)
        self._sharing = Sharing(self._node)
        self._ranks = Ranks(root, boot_id(), loop, self._sharing, self._node)
        self._ranks.adopt()
        self._tree_calls = TreeCalls(self._make_trees, loop)
        kept = KeptCalls(self._ranks.home, loop, UPGRADED, lambda rank: self._ranks.apps.home_of(rank))
        self._devices_known: asyncio.Future[None] = self._discovered()
        if venv.must_be_asked():
            loop.run_in_executor(None, venv.look_ahead)
        self.done = asyncio.Event()
        self._calls: dict[tuple[str, str], Callable[[dict[str, object]], Awaitable[dict[str, object]]]] = {
            ("GET", "/node"): lambda _: self.facts(),
            ("POST", "/prepare"): self._prepare,
            ("POST", "/run"): self._run,
            ("POST", "/stop"): self._stop,
            ("POST", "/forget"): self._forget,
            ("POST", "/listening"): self._ranks.listening,
            **self._tree_calls.calls,
            ("POST", "/kept"): kept.scan,
            ("POST", "/shutdown"): self._shutdown,
            **{
                ("POST", "/" + verb): _mounts(verb, root, name, self._ranks.home)
                for verb in ("mount", "settle")
            },
        }
        self._streams: dict[tuple[str, str], Streaming] = {
            ("POST", "/watch"): self._watch,
            ("POST", "/shell"): self._shell,
            ("POST", "/forward"): self._forward,
            ("POST", "/kept/chunks"): kept.send,
            ("POST", "/ssh"): self._ssh,
            ("POST", "/copy"): self._copy,
            **{("POST", "/" + path): _data(path, root, self._node.name, self._ranks.home) for path in _DATA},
            ("POST", "/enter"): lambda asked, *streams: self._ranks.apps.enter(asked, streams, UPGRADED),
        }

    def told(self, notice: dict[str, object] | None) -> None:
        """What the machine was told of its own end goes to all watchers at once."""
        self._node.notice = notice
        for observer in self._ranks.observers:
            observer.node_changed()

    def _discovered(self) -> asyncio.Future[None]:
        """Which devices there are: at once where there is no driver that would have to wake up."""
        if self._node.may_have_devices:
            return self._loop.run_in_executor(None, self._discover)
        self._discover()
        known = self._loop.create_future()
        known.set_result(None)
        return known

    def _discover(self) -> None:
        self._node.discover_devices()
        self._sharing.sweep()

    def _make_trees(self) -> Trees:
        from argosy.agent.trees import Trees  # large, and not needed where no files are placed

        return Trees(self._root, self._ranks.home, self._node.name)

    # ---- connections

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the other side is done. Whatever a request does wrong ends here."""
        try:
            while await self._one_request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:  # the supervisor: one broken connection must not end the agent
            warn("a connection failed: %s: %s" % (type(error).__name__, error))
        finally:
            writer.close()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True when the connection can carry another request."""
        answer: dict[str, object]
        try:
            request = await read_head(reader)
            if request is None:
                return False
            if request.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            taking = self._tree_calls.packs.get((request.method, request.path))
            if taking is not None:
                await reply(writer, 200, await taking(request.length, reader))
                return True
            if request.length > wire.BODY_LIMIT_BYTES:
                raise BadRequest("the body is larger than %d bytes" % wire.BODY_LIMIT_BYTES)
            body = await reader.readexactly(request.length)
        except BadRequest as error:
            status, answer = 400, {"error": "refused", "field": "request", "text": str(error)}
            return await _break_off(reader, writer, status, answer)
        except Refused as error:  # a pack of chunks that was not read to its end
            status, answer = 400, {"error": "refused", "field": error.field, "text": str(error)}
            return await _break_off(reader, writer, status, answer)
        except Busy as error:
            return await _break_off(reader, writer, 409, {"error": "transient", "text": str(error)})
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            return await _break_off(reader, writer, 503, _failure(self._node.name, error))
        key = (request.method, request.path)
        try:
            arguments = json.loads(body) if body else {}
            if not isinstance(arguments, dict):
                raise ValueError("not an object")
        except ValueError as error:  # also text that is not UTF-8
            await reply(writer, 400, {"error": "refused", "field": "body", "text": "not JSON: %s" % error})
            return True
        try:
            if key in self._streams:
                await self._streams[key](arguments, reader, writer)
                return False
            if key not in self._calls:
                text = "this agent (wire %d) does not know %s %s" % (wire.VERSION, *key)
                await reply(writer, 404, {"error": "refused", "field": "path", "text": text})
                return True
            status, answer = 200, await self._calls[key](arguments)
        except Refused as error:
            status, answer = 400, {"error": "refused", "field": error.field, "text": str(error)}
        except Busy as error:
            status, answer = 409, {"error": "transient", "text": str(error)}
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            status, answer = 503, _failure(self._node.name, error)
        except (RecursionError, MemoryError, TypeError, ValueError, KeyError, AttributeError) as error:
            text = "%s: %s" % (type(error).__name__, error)
            warn("%s %s failed: %s" % (*key, text))
            status, answer = 400, {"error": "refused", "field": "body", "text": text}
        await reply(writer, status, answer)
        return True

    # ---- calls

    async def facts(self) -> dict[str, object]:
        """Never longer than the patience that we have with drivers; then with what was known before."""
        if self._devices_known.done() and self._node.has_devices:
            self._devices_known = self._loop.run_in_executor(None, self._node.sample_devices)
        if not self._node.knows_levels():
            await self._loop.run_in_executor(None, self._node.levels)
        await self._devices()
        return self._node.facts()

    async def _devices(self) -> None:
        if not self._devices_known.done():
            await asyncio.wait({self._devices_known}, timeout=_DEVICES_PATIENCE_S)

    async def _prepare(self, arguments: dict[str, object]) -> dict[str, object]:
        orders = arguments.get("orders")
        if not isinstance(orders, list):
            raise Refused("orders", "`orders` must be a list")
        await self._devices()
        await self._ranks.prepare(orders)
        return {}

    async def _run(self, arguments: dict[str, object]) -> dict[str, object]:
        await self._ranks.run(_ids(arguments))
        return {}

    async def _stop(self, arguments: dict[str, object]) -> dict[str, object]:
        await self._ranks.stop(_ids(arguments), _grace(arguments, 10.0), str(arguments.get("why") or ""))
        return {}

    async def _forget(self, arguments: dict[str, object]) -> dict[str, object]:
        await self._ranks.forget(_ids(arguments))
        return {}

    async def end_ranks(self) -> None:
        await self._ranks.end_all(0.0)

    async def _shutdown(self, arguments: dict[str, object]) -> dict[str, object]:
        await self._ranks.end_all(_grace(arguments, 5.0))
        await self._loop.run_in_executor(None, self._sharing.sweep)
        self._loop.call_later(0.05, self.done.set)  # the answer goes first
        return {}

    # ---- streams

    async def _watch(
        self, arguments: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        cursors = arguments.get("cursors", {})
        if not isinstance(cursors, dict) or not all(isinstance(value, int) for value in cursors.values()):
            raise Refused("cursors", "`cursors` must be an object of numbers")
        writer.write(UPGRADED)
        watch = Watch(self._ranks, {key: max(0, value) for key, value in cursors.items()})

        async def until_gone() -> None:
            try:
                while data := await reader.read(4096):
                    watch.hear(data)
            except ConnectionError:
                pass
            watch.hang_up()

        async def send(pieces: list[bytes]) -> None:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

        listener = asyncio.ensure_future(until_gone())
        try:
            await watch.run(send, self.facts)
        finally:
            listener.cancel()

    async def _shell(
        self, arguments: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        from argosy.agent import terminal

        command, extra = arguments.get("command", ""), arguments.get("env", {})
        rows, columns = arguments.get("rows", 24), arguments.get("columns", 80)
        if not isinstance(command, str) or not isinstance(extra, dict):
            raise Refused("command", "`command` must be text and `env` an object")
        if not all(isinstance(value, int) and 0 <= value < 65536 for value in (rows, columns)):
            raise Refused("rows", "`rows` and `columns` must be numbers below 65536")
        env = base_env(self._ranks.home)
        env.pop("PYTHONUNBUFFERED", None)
        env.setdefault("TERM", "xterm-256color")
        env.update({str(key): str(value) for key, value in extra.items()})
        shell = terminal.Shell(self._ranks, command, int(str(rows)), int(str(columns)), env)
        writer.write(UPGRADED)
        await terminal.serve_shell(shell, reader, writer)

    async def _forward(
        self, arguments: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        from argosy.agent.joining import join
        from argosy.agent.terminal import open_port

        port = arguments.get("port")
        if not isinstance(port, int) or not 0 < port < 65536:
            raise Refused("port", "`port` must be between 1 and 65535")
        other = await open_port(port, self._node.name)
        writer.write(UPGRADED)
        await join((reader, writer), other)

    async def _ssh(
        self, arguments: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        from argosy.agent import sshd

        endpoint = sshd.Endpoint(self._root, self._node.name, self._ranks.home, self._ranks.shell)
        key, reaper = str(arguments.get("key", "")), self._ranks.reaper
        await sshd.serve(endpoint, reaper, key, (reader, writer), UPGRADED)

    async def _copy(
        self, arguments: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        from argosy.agent import copying

        await copying.serve(self._ranks.home, arguments, (reader, writer), UPGRADED)


_TARGET_MAX = 4096
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
    + wire.UPGRADE.encode()
    + b"\r\n\r\n"
)


def _failure(node: str, error: OSError) -> dict[str, object]:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"error": "refused", "field": "disk", "text": "disk full on " + node}
    return {"error": "transient", "text": "%s: %s" % (node, error.strerror or type(error).__name__)}


def _data(path: str, root: str, name: str, home: str) -> Streaming:
    """Answers calls about data: copies by a process of its own."""

    async def serve(
        asked: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        from argosy.agent import data_calls

        target = asked.get("target", "")
        if not isinstance(target, str) or len(target) > _TARGET_MAX:
            raise Refused("target", "`target` must be a path")
        if path == "lend":
            await data_calls.lend(root, home, name, target, (reader, writer), UPGRADED)
        else:
            verb = path.partition("/")[0]
            await data_calls.serve(verb, root, name, (reader, writer), UPGRADED, target)

    return serve


def _mounts(
    verb: str, root: str, name: str, home: str
) -> Callable[[dict[str, object]], Awaitable[dict[str, object]]]:
    async def call(arguments: dict[str, object]) -> dict[str, object]:
        from argosy.agent import data_calls

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, data_calls.mounts, verb, root, home, name, arguments)

    return call


def _ids(arguments: dict[str, object]) -> list[str]:
    ids = arguments.get("ids")
    if not isinstance(ids, list) or not all(isinstance(rank_id, str) for rank_id in ids):
        raise Refused("ids", "`ids` must be a list of rank ids")
    return ids


def _grace(arguments: dict[str, object], default: float) -> float:
    grace_s = arguments.get("grace_s", default)
    if not isinstance(grace_s, (int, float)) or not 0 <= grace_s <= 7 * 86400:
        raise Refused("grace_s", "`grace_s` must be a number of seconds, 0 or more")
    return float(grace_s)


async def read_head(reader: asyncio.StreamReader) -> Request | None:
    """The next request's head; None at the end of the connection. Raises BadRequest."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise BadRequest("the request ends in its head") from None
        return None
    except asyncio.LimitOverrunError:
        raise BadRequest("the request's head is longer than %d bytes" % wire.HEAD_LIMIT_BYTES) from None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest("this is not HTTP/1.1")
    headers = {}
    for line in lines[1:]:
        if line:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequest("a header without a colon")
            headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > 15 or "transfer-encoding" in headers:
        raise BadRequest("a body needs a Content-Length")
    path = words[1].partition("?")[0]
    prefix = wire.PREFIX if path.startswith(wire.PREFIX + "/") else ""
    return Request(words[0], path[len(prefix) :] if prefix else "?" + path, headers, int(length))


async def reply(writer: asyncio.StreamWriter, status: int, answer: dict[str, object]) -> None:
    body = json.dumps(answer).encode()
    head = "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
        status,
        _STATUS[status],
        len(body),
    )
    writer.write(head.encode() + body)
    await writer.drain()


async def _break_off(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, answer: dict[str, object]
) -> bool:
    """Answer a request that was not read to its end; False: the connection ends. What still comes is taken in
    and thrown away, because closing at once breaks a sender off before it reads the answer."""
    await reply(writer, status, answer)
    writer.write_eof()

    async def take_in() -> None:
        while await reader.read(256 << 10):
            pass

    try:
        await asyncio.wait_for(take_in(), _UNREAD_PATIENCE_S)
    except asyncio.TimeoutError:
        pass
    return False
