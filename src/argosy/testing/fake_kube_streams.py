"""Watches and execs of the fake API server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from argosy.testing.fake_kube_pods import Kubelets
from argosy.testing.fake_kube_rules import JSON, Refused, selects
from argosy.testing.fake_kube_store import Key, Store


class Streams:
    """What stays open. `lag_s`: watches tell changes so late."""

    def __init__(self, store: Store, pods: Kubelets) -> None:
        self.store, self.pods, self.lag_s = store, pods, 0.0
        self.cut = asyncio.Event()

    def break_all(self) -> None:
        """Connections of watches and execs break."""
        self.cut.set()
        self.cut = asyncio.Event()

    async def watch(
        self, request: web.Request, group: str, plural: str, namespace: str
    ) -> web.StreamResponse:
        at, selector = int(request.query.get("resourceVersion") or 0), request.query.get("labelSelector", "")
        if at < self.store.compacted:
            raise Refused(410, "Expired", f"too old resource version: {at} ({self.store.compacted})")
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        cut = self.cut
        ends_s = asyncio.get_running_loop().time() + float(request.query.get("timeoutSeconds", "1800"))
        while not cut.is_set() and asyncio.get_running_loop().time() < ends_s:
            news = self.store.news
            lines = []
            for entry in self._since(at):
                at = entry.version
                mine = entry.key[:2] == (group, plural) and namespace in ("", entry.key[2])
                if mine and selects(selector, entry.object["metadata"].get("labels") or {}):
                    lines.append(msgspec.json.encode({"type": entry.type, "object": entry.object}) + b"\n")
            if lines:
                await asyncio.sleep(self.lag_s)
                with contextlib.suppress(ConnectionError):  # who asked is gone
                    await answer.write(b"".join(lines))
            waits = [asyncio.ensure_future(news.wait()), asyncio.ensure_future(cut.wait())]
            done, _ = await asyncio.wait(waits, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
            for each in waits:
                each.cancel()
            if not done:
                mark = {"metadata": {"resourceVersion": str(at)}}
                with contextlib.suppress(ConnectionError):
                    await answer.write(msgspec.json.encode({"type": "BOOKMARK", "object": mark}) + b"\n")
            if request.transport is None or request.transport.is_closing():
                break
        if cut.is_set() and request.transport is not None:
            request.transport.abort()
        return answer

    def _since(self, version: int) -> Sequence[Any]:
        log = self.store.log
        first = log[0].version if log else 0
        return log[max(0, version - first + 1) :]

    async def exec(self, request: web.Request, key: Key) -> web.StreamResponse:
        pod = self.store.objects.get(key)
        if pod is None:
            raise Refused(404, "NotFound", f'pods "{key[3]}" not found')
        if pod.get("status", {}).get("phase") != "Running":
            raise Refused(400, "BadRequest", f"pod {key[3]} does not have a host assigned or is not running")
        socket_ = web.WebSocketResponse(
            protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"), max_msg_size=0, compress=False
        )
        await socket_.prepare(request)
        for channel in (1, 2, 3):
            await socket_.send_bytes(bytes([channel]))
        if self.pods.paper:
            await self._exec_paper(socket_)
        else:
            await self._exec_real(socket_, key, request.query.getall("command"))
        return socket_

    async def _exec_paper(self, socket_: web.WebSocketResponse) -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        agent = asyncio.ensure_future(self.pods.agent(*await asyncio.open_connection(sock=theirs)))
        try:
            await self._bridge(socket_, writer, {1: reader}, agent)
        finally:
            agent.cancel()
            writer.close()

    async def _exec_real(self, socket_: web.WebSocketResponse, key: Key, words: Sequence[str]) -> None:
        try:
            process = await self.pods.exec(key, words)
        except (KeyError, OSError):  # the pod has just ended
            await socket_.close()
            return
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        try:
            ended = asyncio.ensure_future(process.wait())
            await self._bridge(socket_, process.stdin, {1: process.stdout, 2: process.stderr}, ended)
        finally:
            if process.returncode is None:
                process.kill()
        code = await process.wait()
        status: JSON = {"metadata": {}, "status": "Success"}
        if code:
            text, causes = (
                f"command terminated with exit code {code}",
                [{"reason": "ExitCode", "message": str(code)}],
            )
            status = {
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": text,
                "details": {"causes": causes},
            }
        if not socket_.closed:
            await socket_.send_bytes(b"\x03" + msgspec.json.encode(status))
            await socket_.close()

    async def _bridge(
        self,
        socket_: web.WebSocketResponse,
        into: asyncio.StreamWriter,
        out: Mapping[int, asyncio.StreamReader],
        ended: asyncio.Future[Any],
    ) -> None:
        async def pump(channel: int, reader: asyncio.StreamReader) -> None:
            while data := await reader.read(32 << 10):
                await socket_.send_bytes(bytes([channel]) + data)

        async def feed() -> None:
            async for message in socket_:
                if message.type is not WSMsgType.BINARY or message.data[:2] == b"\xff\x00":
                    into.close()
                elif message.data[:1] == b"\x00":
                    into.write(message.data[1:])
                    await into.drain()

        cut = asyncio.ensure_future(self.cut.wait())
        pumps = asyncio.gather(*(pump(channel, reader) for channel, reader in out.items()))
        feeding = asyncio.ensure_future(feed())
        every: list[asyncio.Future[Any]] = [pumps, feeding, cut]
        await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
        if not feeding.done() and not cut.done():
            await ended
        for each in (cut, pumps, feeding):
            each.cancel()
        await asyncio.gather(cut, pumps, feeding, return_exceptions=True)
