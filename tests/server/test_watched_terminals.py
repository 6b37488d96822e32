"""Terminals that others watch: what they send goes nowhere, and they are out when the share ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from test_app_attacks import a_session
from test_session_shares import NOW_MS, member

from argosy.model.kinds.session import session_state
from argosy.model.rows import Workload
from argosy.server import session_doors
from argosy.server.session_shares import is_shared, is_watched, with_share


class Seat:
    """The agent's side of a terminal."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self._says: asyncio.Queue[bytes] = asyncio.Queue()
        self._says.put_nowait(b'{"id": "t", "from": 0}\n')
        self._says.put_nowait(b"secret of the shell")

    async def read(self) -> bytes:
        return await self._says.get()

    async def write(self, data: bytes) -> None:
        self.heard.append(data)

    async def end(self) -> None: ...

    async def resize(self, rows: int, columns: int) -> None:
        self.heard.append((rows, columns))

    async def acknowledge(self, seen: int) -> None:
        self.heard.append(seen)

    async def close(self) -> int | None:
        return None


class Viewer:
    """The client's side."""

    def __init__(self, caller: object, *says: dict[str, Any]) -> None:
        self.caller, self.answered, self.told = caller, False, list[Any]()
        self._says = [{"type": "websocket.connect"}, *says]

    async def receive(self) -> dict[str, Any]:
        if not self._says:
            await asyncio.Event().wait()
        return self._says.pop(0)

    async def send(self, message: dict[str, Any]) -> None:
        self.told.append(message.get("text") or message.get("bytes") or message.get("code"))


def watch(viewer: Viewer, session: Workload, *, is_guest: bool, monkeypatch: pytest.MonkeyPatch) -> Seat:
    seat = Seat()

    async def opened(*_: object) -> Seat:
        return seat

    async def snapshot() -> object:
        return SimpleNamespace(workloads={session.id: session})

    monkeypatch.setattr(session_doors, "open_door", opened)
    monkeypatch.setattr(session_doors, "_GUEST_EVERY_S", 0.001)
    services = SimpleNamespace(
        store=SimpleNamespace(snapshot=snapshot), clock=SimpleNamespace(now_ms=lambda: NOW_MS)
    )
    asyncio.run(
        asyncio.wait_for(
            session_doors.serve_gallery(viewer, services, session, None, is_guest=is_guest),  # type: ignore[arg-type]
            20,
        )
    )
    return seat


def test_what_a_viewer_sends_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    says = (
        {"type": "websocket.receive", "bytes": b"rm -rf ~\n"},
        {"type": "websocket.receive", "text": '{"rows": 1, "columns": 1}'},
        {"type": "websocket.receive", "text": '{"seen": 19}'},
        {"type": "websocket.disconnect"},
    )
    viewer = Viewer(member("ben", "vision"), *says)
    session = with_share(a_session("one"), "ben", 60, NOW_MS, watch=True)
    seat = watch(viewer, session, is_guest=True, monkeypatch=monkeypatch)
    assert seat.heard == [19]
    assert None in viewer.told and '{"id": "t", "from": 0}' in viewer.told


def test_a_guest_is_out_when_the_share_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = Viewer(member("ben", "vision"))
    session = with_share(a_session("one"), "ben", 0, NOW_MS, watch=True)
    watch(viewer, session, is_guest=True, monkeypatch=monkeypatch)
    assert b"secret of the shell" in viewer.told and 4401 in viewer.told


def test_who_may_watch_opens_no_app_and_who_may_open_watches_nothing() -> None:
    ben = member("ben", "vision")
    watched = with_share(a_session("one"), "ben", 60, NOW_MS, watch=True)
    opened = with_share(a_session("one"), "ben", 60, NOW_MS)
    assert (is_watched(watched, ben, NOW_MS), is_shared(watched, ben, NOW_MS)) == (True, False)
    assert (is_watched(opened, ben, NOW_MS), is_shared(opened, ben, NOW_MS)) == (False, True)
    both = with_share(watched, "ben", 600, NOW_MS)
    assert is_watched(both, ben, NOW_MS + 59_999) and is_shared(both, ben, NOW_MS + 599_999)
    assert not is_watched(both, ben, NOW_MS + 60_000)
    assert session_state(with_share(both, "ben", 0, NOW_MS)).shares == ()
