"""What a launch says of a place that cannot be used so; accelerators as people call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from argosy.api.location import Location
from argosy.catalog import Catalog
from argosy.client.client import Client
from argosy.infra.provider import Limits
from argosy.model.errors import ArgosyError, render_error
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.task import Task
from argosy.planning.market import rank
from argosy.testing.idle_server import IdleServer, a_pool


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    pool = a_pool(nodes_max=1000)
    limits = Limits(nodes_max=128, text="this machine runs at most 128 nodes")
    pool.manifest = msgspec.structs.replace(pool.manifest, limits=limits)
    with IdleServer(pool) as running:
        yield Client(Location(socket=running.socket))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ArgosyError) as caught:
        call()
    return render_error(caught.value)


@pytest.mark.parametrize("name", ["seeweb", "hyperbolic"])
def test_a_place_without_a_driver_says_what_is_missing(client: Client, name: str) -> None:
    task = Task(run="x", resources=(Resources(infra=Infra(provider=name)),))
    for launch in (lambda: client.launch(task), lambda: client.jobs_launch([task])):
        assert refused(launch) == (
            f"error: Argosy cannot run on {name} yet: it has no driver\nhint: available: pool"
        )


def test_a_driver_that_is_not_in_use_says_so(client: Client) -> None:
    task = Task(run="x", resources=(Resources(infra=Infra(provider="local")),))
    assert refused(lambda: client.launch(task)) == (
        "error: local is not in use on this server\nhint: available: pool"
    )


def test_a_place_without_machines_says_where_to_look() -> None:
    """A pool of hosts to which nobody has added one: `infra: ssh/lab` was told to ask for less."""
    hosts = a_pool()
    hosts.manifest, hosts.offers = msgspec.structs.replace(hosts.manifest, name="ssh"), []
    task = Task(run="x", resources=(Resources(infra=Infra(provider="ssh", region="lab")),))
    with IdleServer(a_pool(), hosts) as running:
        here = Client(Location(socket=running.socket))
        for launch in (lambda: here.launch(task), lambda: here.jobs_launch([task])):
            assert refused(launch) == (
                "error: ssh has no machine now\nhint: `argosy check ssh` says what is missing"
            )


def test_limits_of_a_provider_are_in_the_plan(client: Client) -> None:
    """More nodes than one claim may have were queued for ever, with the reason in the server's log alone."""
    (said,) = [
        each for each in client.plan(Task(run="x", num_nodes=200)).plan.rejected if each.provider == "pool"
    ]
    assert (said.code, said.text) == ("nodes", "this machine runs at most 128 nodes, asked for 200")
    assert client.plan(Task(run="x", num_nodes=128)).plan.choices
    told = refused(lambda: client.launch(Task(run="x", num_nodes=200)))
    assert "this machine runs at most 128 nodes, asked for 200" in told
    assert client.status().clusters == ()


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("TPU-v5e", {"tpu-v5litepod-1", "tpu-v5litepod-4"}),
        ("tpu-v5e-4", {"tpu-v5litepod-4"}),
        ("tpu-v5litepod", {"tpu-v5litepod-1", "tpu-v5litepod-4"}),
        ("Trillium", {f"tpu-v6e-{size}" for size in (1, 4, 8, 16, 32, 64, 128, 256)}),
    ],
)
def test_tpus_as_people_call_them(client: Client, name: str, models: set[str]) -> None:
    assert {row.accelerator for row in client.gpus(name).gpus} == models


def test_a_slice_that_nobody_offers_names_its_own_family(client: Client) -> None:
    told = refused(lambda: client.gpus("tpu-v5e-9"))
    assert "no known provider offers `tpu-v5e-9` (16 GB a chip)" in told
    assert told.endswith(
        "hint: the nearest are `tpu-v5litepod-1` (16 GB a chip), `tpu-v5litepod-4` (16 GB a chip)"
    )


@pytest.mark.parametrize(
    ("use_spot", "model", "text"),
    [(True, "A100", "has no A100 as spot"), (True, "A900", "has no A900"), (None, "A900", "has no A900")],
)
def test_what_is_there_and_not_as_spot_is_told_so(use_spot: bool | None, model: str, text: str) -> None:
    wish = Resources(accelerator=Accelerator(model=model, milli=8000), use_spot=use_spot)
    rejected = rank((wish,), 1, Catalog.load().market, limit=1).plan.rejected
    assert text in {each.text for each in rejected if each.provider == "oci"}
