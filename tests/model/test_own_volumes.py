"""Volumes that a place has itself: where they bind a task, and what cannot be meant."""

from __future__ import annotations

import json

import pytest

from argosy.model.errors import ArgosyError
from argosy.model.own_volumes import with_own_volumes
from argosy.model.resources import Infra, Resources
from argosy.model.task import Task, VolumeMount


def volume(kind: str = "k8s-pvc", target: str = "/data", name: str = "data", **more: object) -> VolumeMount:
    return VolumeMount(target=target, folder="", type=kind, name=name, **more)  # type: ignore[arg-type]


def task(*volumes: VolumeMount, infra: Infra = Infra(), config: str = "") -> Task:  # noqa: B008  frozen
    return Task(volumes=volumes, resources=(Resources(infra=infra),), config=config)


def test_a_volume_of_a_place_binds_its_task_there_and_is_in_its_configuration() -> None:
    extra = '{"infra": "k8s/lab", "config": {"storage_class_name": "fast"}}'
    given = task(volume(size_bytes=5 << 30, extra=extra), config='{"kubernetes": {"namespace": "ml"}}')
    made = with_own_volumes(given)
    (wish,) = made.resources
    assert (wish.infra.provider, wish.infra.region) == ("kubernetes", "lab")
    section = json.loads(made.config)["kubernetes"]
    assert section["namespace"] == "ml"
    assert section["volumes"] == [
        {
            "type": "k8s-pvc",
            "path": "/data",
            "name": "data",
            "size_bytes": 5 << 30,
            "config": {"storage_class_name": "fast"},
        }
    ]
    assert json.loads(wish.config)["kubernetes"]["volumes"] == section["volumes"]
    assert with_own_volumes(made) == made, "said twice it is the same"
    host = VolumeMount(target="/h", folder="", extra='{"config": {"host_path": "/srv"}}')
    assert (
        json.loads(with_own_volumes(task(host)).config)["kubernetes"]["volumes"][0]["type"] == "k8s-hostpath"
    )
    plain = task(VolumeMount(target="/d", folder="train"))
    assert with_own_volumes(plain) is plain


@pytest.mark.parametrize(
    ("given", "what", "hint"),
    [
        (
            task(volume("ebs")),
            "`/data`: `type: ebs` is no kind of volume that can be mounted",
            "one of k8s-hostpath, k8s-pvc, runpod-network-volume; without `type` it is a folder of",
        ),
        (
            task(volume(), infra=Infra(provider="aws")),
            "`/data` is a volume of kubernetes, and the task is to run on aws",
            "leave `infra` away, or write `infra: kubernetes`",
        ),
        (
            task(volume(), volume("runpod-network-volume", "/m")),
            "the task has volumes of kubernetes and of runpod, and runs in one place",
            "keep those of one place",
        ),
        (task(volume(target="~/d")), "`~/d`: a volume of k8s-pvc is at a whole path", "with a `/` first"),
        (task(volume(name="")), "`/data`: which volume is meant?", "write `name`, or `size` for a new one"),
        (
            task(volume(extra='{"infra": "runpod"}')),
            "`/data`: `k8s-pvc` is a volume of kubernetes, not of runpod",
            "correct `infra`",
        ),
        (task(volume(extra='{"config": {"host_path": 7}}')), "`/data`: Expected `str`", "SkyPilot"),
    ],
)
def test_what_cannot_be_meant_is_told(given: Task, what: str, hint: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        with_own_volumes(given)
    assert caught.value.what.startswith(what) and hint in (caught.value.hint or "")
    assert caught.value.code == "spec-invalid"
