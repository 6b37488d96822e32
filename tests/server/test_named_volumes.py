"""Volumes of places that have a name here: made once, named by tasks, deleted when nothing needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from raw_requests import Raw

from argosy.api.location import Location
from argosy.client.client import Client
from argosy.infra import border
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.errors import ArgosyError
from argosy.model.kinds import task_of
from argosy.model.own_volumes import OwnVolume
from argosy.model.resources import Infra
from argosy.model.task import Task, VolumeMount
from argosy.testing.builders import an_offer
from argosy.testing.idle_server import IdleServer, StaticProvider

CLAIM = {"name": "data", "type": "k8s-pvc", "infra": "k8s/lab", "size_bytes": 5 << 30, "user": "ann"}


class Keeper(StaticProvider):
    """A place that has volumes. `broken`: what it says instead of making one."""

    def __init__(self) -> None:
        can = Capabilities(owned=True)
        offer = an_offer(provider="kubernetes", region="lab")
        super().__init__(Manifest(name="kubernetes", title="Kubernetes", capabilities=can), [offer])
        self.held: dict[str, tuple[Infra, OwnVolume]] = {}
        self.foreign: set[str] = set()
        self.broken: border.BorderError | None = None

    async def make_volume(self, infra: Infra, volume: OwnVolume) -> bool:
        if self.broken is not None:
            raise self.broken
        self.held.setdefault(volume.name, (infra, volume))
        return volume.name not in self.foreign

    async def remove_volume(self, infra: Infra, volume: OwnVolume) -> None:
        self.held.pop(volume.name, None)


@pytest.fixture
def place() -> Keeper:
    return Keeper()


@pytest.fixture
def house(place: Keeper) -> Iterator[IdleServer]:
    with IdleServer(place) as server:
        yield server


def launched(house: IdleServer, **mount: object) -> Task:
    volume = VolumeMount(target="/data", folder="data", **mount)  # type: ignore[arg-type]
    with Client(Location(socket=house.socket)) as client:
        client.launch(Task(run="x", volumes=(volume,)), user="ann")
    rows = house.do(house.store.snapshot()).workloads.values()
    return next(task for each in rows if (task := task_of(each)) is not None)


def test_a_volume_is_made_where_it_is_and_a_task_names_it(house: IdleServer, place: Keeper) -> None:
    raw = Raw(house.socket)
    made = raw.ask("PUT", "/named-volumes", CLAIM)
    assert made.status == 200, made.body
    assert (made.json["infra"], made.json["is_ours"], made.json["owner"]) == ("kubernetes/lab", True, "ann")
    infra, volume = place.held["data"]
    assert (infra.region, volume.size_bytes) == ("lab", 5 << 30)
    meant = launched(house, sub_path="a")
    (wish,), (mount,) = meant.resources, meant.volumes
    assert (wish.infra.provider, wish.infra.region) == ("kubernetes", "lab")
    assert (mount.type, mount.name, mount.folder, mount.sub_path) == ("k8s-pvc", "data", "", "a")
    with pytest.raises(ArgosyError, match="`data` is a volume of kubernetes, which is mounted to write"):
        launched(house, read_only=True)
    refused = raw.ask("DELETE", "/named-volumes/data")
    assert refused.status == 409 and "`data` is in use by job " in refused.json["what"]
    assert raw.ask("PUT", "/named-volumes", {**CLAIM, "infra": "k8s/other"}).json["what"] == (
        "the volume `data` is there, with `infra: kubernetes/lab`, and that cannot become kubernetes/other"
    )


def test_what_was_there_before_stays_when_it_is_deleted(house: IdleServer, place: Keeper) -> None:
    raw = Raw(house.socket)
    place.foreign.add("data")
    assert raw.ask("PUT", "/named-volumes", CLAIM).json.get("is_ours", False) is False
    assert raw.ask("DELETE", "/named-volumes/data").status == 200
    assert "data" in place.held
    assert raw.ask("DELETE", "/named-volumes/data").json["what"] == "there is no volume `data` in default"
    assert raw.ask("GET", "/named-volumes").json == {"volumes": []}
    place.foreign.clear()
    raw.ask("PUT", "/named-volumes", CLAIM)
    raw.ask("DELETE", "/named-volumes/data")
    assert place.held == {}


def test_what_fails_is_listed_and_applied_again(house: IdleServer, place: Keeper) -> None:
    raw = Raw(house.socket)
    place.broken = border.Transient("the API server does not answer")
    assert raw.ask("PUT", "/named-volumes", CLAIM).json["what"] == "the API server does not answer"
    (listed,) = raw.ask("GET", "/named-volumes").json["volumes"]
    assert listed.get("made_ms", 0) == 0
    place.broken = border.RequestRefused("volumes", "there is no storage class `x`")
    refused = raw.ask("PUT", "/named-volumes", CLAIM)
    assert (refused.json["code"], refused.json["what"]) == ("usage", "there is no storage class `x`")
    place.broken = None
    assert raw.ask("PUT", "/named-volumes", CLAIM).json["made_ms"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"type": "ebs"}, "`type: ebs` is no kind of volume"),
        ({"infra": "aws"}, "`k8s-pvc` is a volume of kubernetes, not of aws"),
        ({"name": ".data"}, "`.data`: a dot first is for folders"),
        ({"name": "train"}, "`train` is a folder in default"),
        (
            {"type": "runpod-network-volume", "infra": ""},
            "`data`: this server does not use runpod, which has `runpod-network-volume`",
        ),
    ],
)
def test_what_cannot_be_applied(house: IdleServer, changed: dict[str, object], what: str) -> None:
    raw = Raw(house.socket)
    raw.ask("POST", "/folders", {"name": "train", "user": "ann"})
    refused = raw.ask("PUT", "/named-volumes", CLAIM | changed)
    assert refused.json["what"] == what and refused.json["hint"]


def test_a_folder_does_not_take_the_name_of_a_volume(house: IdleServer) -> None:
    raw = Raw(house.socket)
    raw.ask("PUT", "/named-volumes", CLAIM)
    refused = raw.ask("POST", "/folders", {"name": "data", "user": "ann"})
    assert refused.json["what"] == "there is a folder or volume `data` already"
