"""What a machine is told about its own end reaches whoever watches it, at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from argosy.agent import notices
from argosy.infra.agent_client import AgentClient, unix_channel
from argosy.infra.boot import agent_command, agent_zipapp
from argosy.model.facts import Notice

SPOT = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
AT_MS = 1893499200_000  # 2030-01-01T12:00:00Z


class FakeMetadata:
    """A metadata service: answers by path, tokens that run out, and Google's waiting for a change."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.seen: list[str] = []
        self.tokens = 0
        self.etag = 1
        self.url = ""
        self._changed = asyncio.Event()

    def change(self, path: str, text: str) -> None:
        self.answers[path] = text
        self.etag += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split()
        given = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head[1:]}
        path, _, query = target.partition("?")
        self.seen.append(f"{method} {path}")
        if "wait_for_change" in query and query.endswith(f"last_etag={self.etag}"):
            await self._changed.wait()
        status, text = self.answer(method, path, given)
        writer.write(
            f"HTTP/1.1 {status} X\r\nETag: {self.etag}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
        )
        await writer.drain()
        writer.close()

    def answer(self, method: str, path: str, given: dict[str, str]) -> tuple[int, str]:
        if path == "/latest/api/token":
            self.tokens += 1
            return (
                (200, f"t{self.tokens}")
                if method == "PUT" and given["x-aws-ec2-metadata-token-ttl-seconds"]
                else (400, "")
            )
        if path.startswith("/latest/") and given.get("x-aws-ec2-metadata-token") != f"t{self.tokens}":
            return 401, ""
        if path.startswith("/computeMetadata/") and given.get("metadata-flavor") != "Google":
            return 403, ""
        if path.startswith("/metadata/") and given.get("metadata") != "true":
            return 400, ""
        return (200, self.answers[path]) if path in self.answers else (404, "")


@asynccontextmanager
async def metadata() -> AsyncIterator[FakeMetadata]:
    fake = FakeMetadata()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield fake


def test_an_interruption_reaches_the_watcher_of_the_agent(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("n")

    async def body() -> None:
        async with metadata() as fake:
            zipapp = agent_zipapp(folder / "z")
            command = agent_command(zipapp, folder / "root", folder / "s", name="n")
            agent = await asyncio.create_subprocess_exec(
                *command, f"--notice=aws={fake.url}", stdout=asyncio.subprocess.PIPE
            )
            assert agent.stdout is not None and b"listening" in await agent.stdout.readline()
            client = AgentClient(lambda: unix_channel(folder / "s"))
            try:
                seen: list[Notice | None] = []
                async for report in client.watch({}):
                    if report.node is None:
                        continue
                    seen.append(report.node.notice)
                    if len(seen) == 1:
                        fake.change(REBALANCE, json.dumps({"noticeTime": "2030-01-01T12:00:00Z"}))
                    elif seen[-1] is not None and seen[-1].code == "rebalance":
                        fake.tokens += 1  # the token that it has is not taken any more
                        fake.change(SPOT, json.dumps({"action": "terminate", "time": "2030-01-01T12:00:00Z"}))
                    elif seen[-1] is not None:
                        break
                rebalance = Notice(code="rebalance", at_ms=AT_MS, text="rebalance recommendation")
                text = "spot instance: terminate at 2030-01-01T12:00:00Z"
                assert seen == [None, rebalance, Notice(code="terminate", at_ms=AT_MS, text=text)]
                assert (await client.node()).notice == seen[-1], "who connects later is told as well"
            finally:
                await client.close()
                agent.terminate()
                await agent.wait()

    asyncio.run(body())


async def first_news(name: str, fake: FakeMetadata, count: int) -> list[dict[str, object] | None]:
    told: list[dict[str, object] | None] = []
    done = asyncio.Event()

    def tell(notice: dict[str, object] | None) -> None:
        told.append(notice)
        done.set()

    task = asyncio.ensure_future(notices.follow(name, fake.url, tell))
    try:
        while len(told) < count:
            done.clear()
            async with asyncio.timeout(90):
                await done.wait()
    finally:
        task.cancel()
    return told


def test_google_answers_when_there_is_news() -> None:
    async def body() -> None:
        async with metadata() as fake:
            path = "/computeMetadata/v1/instance/"
            fake.answers[path] = json.dumps({"preempted": "FALSE", "maintenanceEvent": "NONE"})
            waiting = asyncio.ensure_future(first_news("gcp", fake, 1))
            while len(fake.seen) < 2:  # it knows the present state and waits for a change
                await asyncio.sleep(0.01)
            fake.change(path, json.dumps({"preempted": "TRUE", "maintenanceEvent": "NONE"}))
            (notice,) = await waiting
            assert notice is not None and (notice["code"], notice["text"]) == ("terminate", "preempted")

    asyncio.run(body())


def test_azure_tells_of_neighbours_too() -> None:
    async def body() -> None:
        async with metadata() as fake:
            event = {
                "EventType": "Preempt",
                "Resources": ["other"],
                "NotBefore": "Tue, 01 Jan 2030 12:00:00 GMT",
            }
            mine = {**event, "Resources": ["mine"], "EventType": "Redeploy"}
            freeze = {**mine, "EventType": "Freeze"}
            fake.answers["/metadata/instance/compute/name"] = "mine"
            fake.answers["/metadata/scheduledevents"] = json.dumps({"Events": [event, freeze, mine]})
            assert await first_news("azure", fake, 1) == [
                {"code": "maintenance", "at_ms": AT_MS, "text": "scheduled event: Redeploy"}
            ]

    asyncio.run(body())


def test_who_else_could_tell_is_said() -> None:
    with pytest.raises(ValueError, match="--notice takes one of aws, azure, file, gcp"):
        notices.source_of("ec2=http://x")
    assert notices.source_of("aws") == ("aws", "http://169.254.169.254")
