"""Replicas of services as this machine reaches them: directly where they run here, else through their
node's agent.

A replica on another machine gets a unix socket in the state folder. What connects there is carried over the
node's channel to the port, so that no program has to listen on a network for Argosy's sake, and hosts
behind a firewall serve as well as others.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Final

from argosy.infra.agent_port import AgentDirectory, Duplex
from argosy.infra.border import BorderError, Transient
from argosy.infra.replica_port import Answer
from argosy.model.rows import Node
from argosy.model.serving import Probe

_PIECE_BYTES: Final = 64 << 10
_LISTENING_S: Final = 5.0
_HEAD_BYTES: Final = 64 << 10
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class ReplicaDoors:
    """Implements `infra.replica_port.ReplicaPort`."""

    def __init__(self, agents: AgentDirectory, folder: Path) -> None:
        """`folder`: for sockets of replicas on other machines; made when one is needed."""
        self._agents, self._folder = agents, folder
        self._relays: dict[tuple[str, int], asyncio.AbstractServer] = {}
        self._opening: dict[tuple[str, int], asyncio.Task[asyncio.AbstractServer]] = {}
        self._carrying: set[asyncio.Task[None]] = set()
        self._boot = _read_boot()

    async def open(self, node: Node, port: int) -> str:
        if self._is_here(node):
            return f"127.0.0.1:{port}"
        key, path = (node.id, port), self._path(node.id, port)
        if key not in self._relays:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            relay = await asyncio.start_unix_server(
                lambda reader, writer: self._carry(node, port, reader, writer), path
            )
            if key in self._relays:
                relay.close()
            else:
                path.chmod(0o600)
                self._relays[key] = relay
        return str(path)

    def _is_here(self, node: Node) -> bool:
        return node.ip.startswith("127.") and bool(self._boot) and node.facts.boot_id == self._boot

    def _path(self, node_id: str, port: int) -> Path:
        """Short: a unix address holds 107 bytes."""
        name = hashlib.sha256(f"{node_id}:{port}".encode()).hexdigest()[:16]
        return self._folder / f"{name}.sock"

    def close(self, node_id: str, port: int) -> None:
        relay = self._relays.pop((node_id, port), None)
        if relay is not None:
            relay.close()
            self._path(node_id, port).unlink(missing_ok=True)

    async def close_all(self) -> None:
        """Nothing is reached any more."""
        for node_id, port in list(self._relays):
            self.close(node_id, port)
        for task in list(self._carrying):
            task.cancel()
        if self._carrying:
            await asyncio.wait(self._carrying, timeout=2.0)

    async def _carry(
        self, node: Node, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        try:
            duplex = await (await self._agents.get(node)).forward(port)
        except (BorderError, OSError):
            writer.close()
            return
        sending = asyncio.ensure_future(_send(reader, duplex))
        try:
            while data := await duplex.read():
                writer.write(data)
                await writer.drain()
        except (BorderError, OSError):
            pass
        finally:
            sending.cancel()
            writer.close()
            with contextlib.suppress(BorderError, OSError):
                await duplex.close()

    async def listening(self, node: Node, rank_id: str) -> Sequence[int]:
        try:
            async with asyncio.timeout(_LISTENING_S):
                return await (await self._agents.get(node)).listening([rank_id])
        except (BorderError, OSError, TimeoutError):
            return ()

    async def ask(self, address: str, probe: Probe, secrets: Mapping[str, str]) -> Answer:
        try:
            async with asyncio.timeout(probe.timeout_ms / 1000):
                return await _ask(address, probe, secrets)
        except TimeoutError:
            return Answer(good=False, why=f"no answer to {probe.path} within {probe.timeout_ms / 1000:g} s")
        except ConnectionRefusedError:
            return Answer(
                good=False, why=f"nothing listens on port {address.rpartition(':')[2]}", refused=True
            )
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError, Transient) as error:
            return Answer(good=False, why=f"{probe.path}: {error or type(error).__name__}", refused=True)


def _read_boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


async def _send(reader: asyncio.StreamReader, duplex: Duplex) -> None:
    try:
        while data := await reader.read(_PIECE_BYTES):
            await duplex.write(data)
        await duplex.end()
    except (BorderError, OSError):
        pass  # the other direction sees the end


async def _ask(address: str, probe: Probe, secrets: Mapping[str, str]) -> Answer:
    if address.startswith("/"):
        reader, writer = await asyncio.open_unix_connection(address, limit=_HEAD_BYTES)
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=_HEAD_BYTES)
    try:
        writer.write(render_probe(probe, secrets))
        line = await reader.readline()
        status = parse_status(line)
    finally:
        writer.close()
    if status is None:
        refused = not line
        what = "the connection was closed without an answer" if refused else "what answers speaks no HTTP"
        return Answer(good=False, why=what, refused=refused)
    if 200 <= status < 300:
        return Answer(good=True)
    return Answer(good=False, why=f"{probe.path} answers {status}")


def render_probe(probe: Probe, secrets: Mapping[str, str]) -> bytes:
    """The request. Header values may name secrets: `$NAME`.

    >>> render_probe(Probe(path="/health"), {})[:23]
    b'GET /health HTTP/1.1\\r\\nH'
    """
    body = probe.body.encode()
    lines = [f"{'POST' if body else 'GET'} {probe.path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += ["User-Agent: argosy-probe", "Accept: */*"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    for name, value in probe.headers.items():
        filled = Template(value).safe_substitute(secrets)
        if not {"\r", "\n"} & set(name + filled):
            lines.append(f"{name}: {filled}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def parse_status(line: bytes) -> int | None:
    """
    >>> parse_status(b"HTTP/1.1 204 No Content"), parse_status(b"SSH-2.0-OpenSSH")
    (204, None)
    """
    words = line.split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return None
    return int(words[1])
