"""Buckets that are folders on a node: real FUSE, a real rclone, the embedded store at its S3 address."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from agent_process import AgentProcess

from argosy.facades.s3.ports import Holder
from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import MountOrder
from argosy.infra.buckets import GivesKeys, StoreSettings
from argosy.infra.system import SystemClock
from argosy.server.s3_holders import holder_of
from argosy.storage.buckets import open_bucket
from argosy.storage.shelf import Shelf
from argosy.storage.shelf_bucket import ShelfBucket
from argosy.testing.s3_site import Site

T = TypeVar("T")
CANNOT = [
    what
    for what, missing in (
        ("rclone", shutil.which("rclone") is None),
        ("fuse3", shutil.which("fusermount3") is None),
        ("/dev/fuse", not os.access("/dev/fuse", os.R_OK | os.W_OK)),
    )
    if missing
]
pytestmark = pytest.mark.skipif(
    bool(CANNOT), reason=f"buckets cannot be mounted here: no {', '.join(CANNOT)}"
)


class Keeper:
    """Lets in who has a key, until it is `revoked`; notes which keys were used."""

    def __init__(self) -> None:
        self.shelf: Shelf | None = None
        self.revoked: set[str] = set()
        self.used: set[str] = set()

    async def holder_of(self, key_id: str, token: str) -> Holder | None:
        assert self.shelf is not None
        self.used.add(key_id)
        return None if key_id in self.revoked else await holder_of(self.shelf, key_id, token)


KEEPER = Keeper()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("shelf"), keeper=KEEPER)
    KEEPER.shelf = made.shelf
    made.ask(made.shelf.make_bucket("data"))
    made.ask(made.shelf.make_bucket("other"))
    yield made
    made.close()


def order(site: Site, url: str = "own://data/run", **more: object) -> MountOrder:
    environ = {"OWN_ACCESS_KEY_ID": site.key[0], "OWN_SECRET_ACCESS_KEY": site.key[1]}
    sections = {"own": f'{{"endpoint": "{site.address}"}}'}
    opened = open_bucket(
        url, StoreSettings(environ=environ, home=Path("/none"), clock=SystemClock(), sections=sections)
    )
    assert opened.bucket.traits.mounts
    bucket: GivesKeys = opened.bucket  # type: ignore[assignment]
    keys = bucket.mount_keys(opened.key, writes=True)
    return MountOrder(target="~/data", path=keys.path, settings=keys.settings, **more)  # type: ignore[arg-type]


def lent(site: Site, **more: object) -> MountOrder:
    """An order with temporary keys of the embedded store, for what lies below `run/`."""
    bucket = ShelfBucket(site.shelf.folder, "data", None, site.address, SystemClock())
    keys = bucket.mount_keys("run", writes=True)
    assert keys.scoped and keys.expires_s
    return MountOrder(
        target="~/data",
        path=keys.path,
        settings=keys.settings,
        door=keys.door,
        fresh=keys.fresh,
        expires_s=keys.expires_s,
        options=("dir-cache-time=0s",),
        **more,  # type: ignore[arg-type]
    )


def objects(site: Site, bucket: str = "data") -> dict[str, int]:
    return {each.key: each.size for each in site.ask(site.shelf.page(bucket)).objects}


def use(agent: AgentProcess, scenario: Callable[[AgentClient], Awaitable[T]]) -> T:
    return agent.use(scenario)


def settle(agent: AgentProcess, *, patience_s: float = 20.0, unmount: bool = True) -> dict[str, list[str]]:
    async def scenario(client: AgentClient) -> dict[str, list[str]]:
        left = await client.settle(["~/data"], patience_s, unmount=unmount)
        return {target: list(paths) for target, paths in left.items()}

    return use(agent, scenario)


@pytest.fixture
def mounted(agent: AgentProcess) -> Iterator[Callable[[MountOrder], Path]]:
    def mount(order: MountOrder) -> Path:
        use(agent, lambda client: client.mount(order))
        return agent.root / "home" / "data"

    yield mount
    from argosy.agent.mounting import Mounts

    Mounts(str(agent.root), str(agent.root / "home"), "node-7").release(0.5)


@pytest.mark.parametrize("cached", [False, True])
def test_what_is_written_is_in_the_bucket_when_it_is_settled(
    agent: AgentProcess, site: Site, mounted: Callable[[MountOrder], Path], cached: bool
) -> None:
    place = mounted(order(site, cached=cached, options=("transfers=8",)))
    (place / "deep").mkdir(exist_ok=True)
    for number in range(20):
        (place / "deep" / f"{cached}-{number}").write_bytes(b"x" * number)
    assert settle(agent, unmount=False) == {}
    found = objects(site)
    assert [found[f"run/deep/{cached}-{number}"] for number in range(20)] == list(range(20))
    assert (place / "deep" / f"{cached}-7").read_bytes() == b"x" * 7
    assert settle(agent) == {}
    assert not place.exists()
    assert list((agent.root / "mounts").glob("*.json")) == []


def test_secrets_are_in_the_environment_of_one_process_only(
    agent: AgentProcess, site: Site, mounted: Callable[[MountOrder], Path]
) -> None:
    mounted(order(site))
    secret = site.key[1].encode()
    holders = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                assert secret not in (process / "cmdline").read_bytes()
                environ = (process / "environ").read_bytes()
            except OSError:
                continue
            if secret in environ:
                holders.append((process / "comm").read_text().strip())
    assert holders == ["rclone"]
    kept = [path for path in agent.root.rglob("*") if path.is_file() and "home/data" not in str(path)]
    assert [path for path in kept if secret in path.read_bytes()] == []
    assert secret.decode() not in repr(order(site))


def test_temporary_keys_are_on_no_disk_in_no_argument_and_in_no_environment(
    agent: AgentProcess, site: Site, mounted: Callable[[MountOrder], Path]
) -> None:
    asked = lent(site)
    place = mounted(asked)
    (place / "short").write_text("lived")
    assert (place / "short").read_text() == "lived"
    assert asked.fresh["AccessKeyId"] in KEEPER.used
    secrets = [str(asked.fresh[name]).encode() for name in ("SecretAccessKey", "Token")]
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            assert not any(secret in told for secret in secrets), process
    kept = [path for path in agent.root.rglob("*") if path.is_file() and "home/data" not in str(path)]
    assert [path for path in kept if any(secret in path.read_bytes() for secret in secrets)] == []
    assert not any(secret.decode() in repr(asked) for secret in secrets)


@pytest.mark.parametrize("restarts", [False, True])
def test_keys_are_renewed_while_the_mount_goes_on(
    agent: AgentProcess, site: Site, mounted: Callable[[MountOrder], Path], restarts: bool
) -> None:
    """Keys that end within five minutes are asked for again with every call: so new ones are seen at once."""
    first = msgspec.structs.replace(lent(site), fresh={**lent(site).fresh, "Expiration": SOON})
    place = mounted(first)
    (place / "before").write_text("x")
    assert settle(agent, unmount=False) == {}  # without an agent there are no keys to send it with
    rclone = mounting_pid(agent)
    with (place / "before").open() as busy:
        if restarts:
            agent.end(signal.SIGKILL)
            agent.start()
        second = lent(site, renews=True)
        assert use(agent, lambda client: client.mount(second)) is True
        KEEPER.revoked.add(str(first.fresh["AccessKeyId"]))
        (place / "after").write_text("y")
        assert settle(agent, unmount=False) == {}
        assert busy.read() == "x"
    assert objects(site)["run/after"] == 1
    assert second.fresh["AccessKeyId"] in KEEPER.used
    assert mounting_pid(agent) == rclone


def test_what_must_be_mounted_anew_for_new_keys_waits_until_nobody_is_in_it(
    agent: AgentProcess, site: Site, mounted: Callable[[MountOrder], Path]
) -> None:
    assert use(agent, lambda client: client.mount(order(site, renews=True))) is False  # nothing is there
    place = mounted(order(site))
    (place / "held").write_text("x")
    rclone = mounting_pid(agent)
    with (place / "held").open():
        assert use(agent, lambda client: client.mount(order(site, renews=True))) is False
        assert mounting_pid(agent) == rclone
    settle(agent, unmount=False)
    deadline_s = time.monotonic() + 20  # a file that was closed is let go a moment later
    while not use(agent, lambda client: client.mount(order(site, renews=True))):
        assert time.monotonic() < deadline_s
    assert mounting_pid(agent) != rclone
    assert (place / "held").read_text() == "x"


SOON = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 200))


def mounting_pid(agent: AgentProcess) -> int:
    (record,) = (agent.root / "mounts").glob("*.json")
    return int(json.loads(record.read_text())["pid"])


def test_it_outlives_the_agent_and_the_same_order_is_harmless(
    agent: AgentProcess, site: Site, mounted: Callable[[MountOrder], Path]
) -> None:
    place = mounted(order(site))
    agent.end(signal.SIGKILL)
    agent.start()
    (place / "after").write_text("a restart")
    mounted(order(site))
    with pytest.raises(border.RequestRefused, match="`~/data` on node-7 has another bucket mounted; choose"):
        mounted(order(site, "own://other"))
    assert settle(agent) == {}
    assert objects(site)["run/after"] == 9
    mounted(order(site, "own://other"))
    assert list(place.iterdir()) == []


def test_reading_only_and_wrong_places_are_told(
    agent: AgentProcess, site: Site, mounted: Callable[[MountOrder], Path]
) -> None:
    place = agent.root / "home" / "data"
    place.mkdir(parents=True)
    (place / "mine").touch()
    with pytest.raises(
        border.RequestRefused,
        match=r"`~/data` on node-7 is not empty \(`mine`\): a mount would hide that; choose another path",
    ):
        mounted(order(site))
    (place / "mine").unlink()
    mounted(order(site, read_only=True))
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").write_text("no")


def test_what_does_not_get_there_is_named(
    agent: AgentProcess, site: Site, mounted: Callable[[MountOrder], Path]
) -> None:
    site.ask(site.shelf.make_bucket("closing"))
    place = mounted(order(site, "own://closing", cached=True))
    with (place / "lost").open("wb", buffering=0) as file:
        file.write(b"data")
        site.ask(site.shelf.make_key("owner"))  # the key of the mount lets nobody in any longer
    try:
        assert settle(agent, patience_s=1.0) == {"~/data": ["closing/lost"]}
    finally:
        site.key = site.ask(site.shelf.make_key("owner"))
    assert os.path.ismount(place)  # nothing is thrown away


def test_a_machine_that_cannot_mount_says_why(
    make_agent: Callable[..., AgentProcess], site: Site, folder: Path
) -> None:
    agent = make_agent()
    agent.environ["PATH"] = str(folder)
    agent.start()
    with pytest.raises(border.RequestRefused) as told:
        use(agent, lambda client: client.mount(order(site)))
    assert told.value.field == "fuse"
    assert str(told.value) == ("node-7 cannot mount buckets: fusermount (the package fuse3) is not installed")
