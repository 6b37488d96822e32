"""Refreshes of prices through the real API: from a provider's price service to the plan that shows the new
price."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.api.location import Location
from argosy.api.prices import RefreshReply
from argosy.client.async_client import AsyncClient
from argosy.client.client import Client
from argosy.model.errors import ArgosyError, render_error
from argosy.model.resources import Infra, Resources
from argosy.model.task import Task
from argosy.providers import price_services
from argosy.providers.nebius.sample import FakeNebius, Platform, Preset
from argosy.testing.fake_prices import FakePrices
from argosy.testing.idle_server import IdleServer


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[IdleServer, FakePrices]]:
    """One server, and price services with something of each cloud."""
    with FakePrices() as fake, pytest.MonkeyPatch.context() as patch:
        fake["azure"].page_size = 100
        _point_at(fake, patch)
        with IdleServer() as running:
            yield running, fake


@pytest.fixture
def service() -> Iterator[FakePrices]:
    with FakePrices() as fake:
        yield fake


@pytest.fixture
def idle(service: FakePrices, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdleServer]:
    _point_at(service, monkeypatch)
    with IdleServer() as running:
        yield running


def _point_at(fake: FakePrices, patch: pytest.MonkeyPatch) -> None:
    for name, one in FETCHERS.items():
        patch.setenv(f"ARGOSY_PRICES_OF_{name.upper()}", fake.url)
        for key in one.keys:
            patch.setenv(key, "s3cret-key")
    aws = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}
    for key, value in aws.items():
        patch.setenv(key, value)


@pytest.fixture
def client(idle: IdleServer) -> Client:
    return Client(Location(socket=idle.socket))


def price_of(client: Client, provider: str, machine: str, region: str) -> float:
    """What a plan says a machine costs an hour on demand."""
    wish = Resources(infra=Infra(provider=provider, region=region), instance_type=machine, use_spot=False)
    offers = client.plan(Task(run="x", resources=(wish,)), prices=True, limit=1).offers
    return offers[0].price.micro_usd / 1e6


def folder(client: Client) -> Path:
    return Path(client.catalog().folder)


FETCHERS = {name: one.source for name, one in price_services().items() if one.source is not None}
with FakePrices() as recorded:
    CLOUDS: dict[str, tuple[str, str, float]] = recorded.gives()


@pytest.mark.parametrize("provider", CLOUDS)
def test_a_new_price_reaches_the_plan(shared: tuple[IdleServer, FakePrices], provider: str) -> None:
    if provider == "aws":
        pytest.importorskip("boto3", reason="boto3 is not installed (`pip install .[aws]`)")
    client = Client(Location(socket=shared[0].socket))
    machine, region, usd = CLOUDS[provider]
    told: list[str] = []
    done = client.refresh_prices(provider, force=True, tell=told.append)
    assert (done.provider, done.state, done.progress) == (provider, "done", "")
    assert done.after > 0
    assert told[0] == ""
    assert price_of(client, provider, machine, region) == pytest.approx(usd)
    ages = {age.provider: age for age in client.catalog().providers}
    assert (ages[provider].source, ages[provider].refreshable) == ("refreshed", True)
    assert (folder(client) / "live" / f"{provider}.prices").exists()


def test_the_same_with_nebius(idle: IdleServer, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nebius", reason="the SDK is not installed (`pip install .[nebius]`)")
    with FakeNebius() as fake:
        fake.token = "s3cret-key"
        preset = Preset(name="1gpu-16vcpu-200gb", vcpus=16, memory_gib=200, gpus=1, usd="2.22")
        fake.regions = {"eu-north1": [Platform(name="gpu-h100-sxm", gpu_memory_gb=80, presets=(preset,))]}
        monkeypatch.setenv("ARGOSY_PRICES_OF_NEBIUS", fake.address)
        assert client.refresh_prices("nebius", force=True).state == "done"
    assert price_of(client, "nebius", "gpu-h100-sxm_1gpu-16vcpu-200gb", "eu-north1") == 2.22


def test_every_service_is_tried() -> None:
    assert {*CLOUDS, "nebius"} == {*FETCHERS}


def test_what_fails_says_so_and_keeps_the_old_prices(client: Client, service: FakePrices) -> None:
    before = price_of(client, "lambda", "gpu_1x_a10", "us-east-1")
    service.secret = "Bearer another"
    with pytest.raises(ArgosyError) as refused:
        client.refresh_prices("lambda")
    assert render_error(refused.value) == (
        "error: the price service of lambda does not let us in (401); the old prices are kept\n"
        "hint: check LAMBDA_API_KEY: the service does not accept it"
    )
    service.secret = None
    with pytest.raises(ArgosyError, match="17 instead of 408 before; the old ones are kept"):
        client.refresh_prices("lambda")
    with pytest.raises(ArgosyError, match="its public API tells which machines are available"):
        client.refresh_prices("paperspace")
    with pytest.raises(ArgosyError, match="the prices of `gcp` are not being refreshed"):
        client.catalog_refreshing("gcp")
    assert price_of(client, "lambda", "gpu_1x_a10", "us-east-1") == before
    assert not (folder(client) / "live").exists()


def test_what_a_service_needs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in FETCHERS["verda"].keys:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("LAMBDA_API_KEY", "x")
    with IdleServer() as idle:
        ages = {age.provider: age for age in Client(Location(socket=idle.socket)).catalog().providers}
    assert ages["verda"].needs == ("VERDA_CLIENT_ID", "VERDA_CLIENT_SECRET")
    assert ages["lambda"].refreshable and not ages["lambda"].needs
    assert not ages["scp"].refreshable


def _slow(service: FakePrices) -> None:
    """Forty pages."""
    service.slow_s = 0.05
    service["digitalocean"].sizes = [
        {"slug": f"s-{n}", "memory": 1024, "vcpus": 1, "price_hourly": 0.01, "regions": ["fra1"]}
        for n in range(40)
    ]


def test_ctrl_c_calls_it_off(client: Client, service: FakePrices) -> None:
    _slow(service)

    def leave(text: str) -> None:
        if text == "3 answers":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.refresh_prices("digitalocean", force=True, tell=leave)
    assert client.catalog_refreshing("digitalocean").state == "cancelled"
    asked = len(service.requests)
    time.sleep(0.3)
    assert len(service.requests) <= asked + 1  # the request under way is the last one
    assert not (folder(client) / "live").exists()
    # And it can be started again.
    assert client.refresh_prices("digitalocean", force=True).after == 40


def test_two_who_wait_for_the_same(idle: IdleServer, client: Client, service: FakePrices) -> None:
    _slow(service)
    replies: list[RefreshReply | ArgosyError] = []

    def wait() -> None:
        try:
            replies.append(Client(Location(socket=idle.socket)).refresh_prices("digitalocean", force=True))
        except ArgosyError as error:
            replies.append(error)

    both = [threading.Thread(target=wait) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert [reply.after for reply in replies if isinstance(reply, RefreshReply)] == [40, 40]
    assert len(service.requests) == 40  # one refresh, two who waited
    replies.clear()
    waiting = threading.Thread(target=wait)
    waiting.start()
    while len(service.requests) < 45:
        time.sleep(0.01)
    idle_client = Client(Location(socket=idle.socket))
    with pytest.raises(KeyboardInterrupt):
        idle_client.refresh_prices("digitalocean", tell=_interrupt)
    waiting.join()
    (error,) = replies
    assert isinstance(error, ArgosyError)
    assert render_error(error) == (
        "error: the refresh of digitalocean was cancelled; the old prices are kept\n"
        "hint: `argosy catalog refresh digitalocean` starts it again"
    )


def _interrupt(text: str) -> None:
    raise KeyboardInterrupt


def test_the_other_client(idle: IdleServer, service: FakePrices) -> None:
    _slow(service)

    async def act() -> RefreshReply:
        async with AsyncClient(Location(socket=idle.socket)) as client:
            refreshing = asyncio.create_task(client.refresh_prices("digitalocean", force=True))
            while len(service.requests) < 3:
                await asyncio.sleep(0.01)
            refreshing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await refreshing
            assert (await client.catalog_refreshing("digitalocean")).state == "cancelled"
            return await client.refresh_prices("digitalocean", force=True)

    assert asyncio.run(act()).after == 40


def test_a_server_that_stops_does_not_wait(service: FakePrices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOSY_PRICES_OF_DIGITALOCEAN", service.url)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "x")
    _slow(service)
    service.slow_s = 1.0
    with IdleServer() as idle:
        client = Client(Location(socket=idle.socket))
        waiting = threading.Thread(target=lambda: _quietly(client), daemon=True)
        waiting.start()
        while not service.requests:
            time.sleep(0.01)
        place = folder(client)
    waiting.join(20)
    assert not waiting.is_alive()
    assert not (place / "live").exists()


def _quietly(client: Client) -> None:
    try:
        client.refresh_prices("digitalocean", force=True)
    except ArgosyError:
        return
