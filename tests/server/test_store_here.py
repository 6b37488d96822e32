"""Where nodes of this machine reach the server's own buckets: from the first mount on, and later again."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from argosy.infra.system import SystemClock, SystemIds
from argosy.server.door import Door
from argosy.server.objects import Objects
from argosy.server.store_here import StoreHere
from argosy.testing.ports import free_port


def _objects(folder: Path) -> Objects:
    return Objects(folder / "objects", SystemClock(), SystemIds())


async def _served(folder: Path, again: bool) -> tuple[str, str, bool]:
    """The address before and after a bucket is asked for a door, and whether it can be mounted then."""
    objects, doors = _objects(folder), list[Door]()
    here = StoreHere(folder / "port", objects, doors)
    objects.door = here.open
    if again:
        await here.open_again()
    before = objects.address
    bucket = objects._bucket("data")
    if bucket.traits.opens:
        bucket = await bucket.with_door()  # type: ignore[attr-defined]
    after, mounts = objects.address, bucket.traits.mounts
    for door in doors:
        await door.close()
    here.close()
    objects.close()
    return before, after, mounts


def test_it_listens_when_a_bucket_is_to_be_mounted_and_again_at_the_same_port(tmp_path: Path) -> None:
    before, after, mounts = asyncio.run(_served(tmp_path, again=True))
    assert before == "" and after.startswith("http://127.0.0.1:") and mounts
    assert asyncio.run(_served(tmp_path, again=True)) == (after, after, True)


def test_a_port_that_is_taken_meanwhile_is_another_one(tmp_path: Path) -> None:
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        (tmp_path / "port").write_text(f"{port}\n")
        before, after, mounts = asyncio.run(_served(tmp_path, again=True))
    assert before == "" and mounts and not after.endswith(f":{port}")


def test_a_note_that_is_no_port_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("x")
    assert asyncio.run(_served(tmp_path, again=True))[0] == ""
