"""The words of an order: what `instances.insert` and `instances.bulkInsert` are told. Pure.

https://cloud.google.com/compute/docs/reference/rest/v1/instances/insert
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_vendor import MachineOrder
from argosy.infra.machines import name_of
from argosy.providers.gcp.wishes import INSIDE, Wishes

_PLAIN: Final = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2204-lts"
_DRIVERS: Final = (
    "projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2204-amd64-with-nvidia-580"
)
#: Its driver is the one with closed sources, which these older models need.
_OLD_DRIVERS: Final = (
    "projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204-nvidia-570"
)
_OLD_MODELS: Final = frozenset(("P4", "P100", "V100", "K80"))
#: Models that are added to a machine of the series N1; all others come with their type.
_ADDED: Final = {
    "T4": "nvidia-tesla-t4",
    "P4": "nvidia-tesla-p4",
    "P100": "nvidia-tesla-p100",
    "V100": "nvidia-tesla-v100",
    "K80": "nvidia-tesla-k80",
}
_HYPERDISK: Final = frozenset(
    (
        "a3-ultragpu",
        "a4-highgpu",
        "a4",
        "a4x",
        "c4",
        "c4a",
        "c4d",
        "n4",
        "n4a",
        "n4d",
        "g4",
        "h4d",
        "m4",
        "x4",
    )
)
_STANDARD_PD: Final = frozenset(("n1", "n2", "n2d", "e2", "c2", "c2d", "t2d", "t2a", "m1"))
#: Series with local SSDs in every machine: what is on them is lost when it rests.
_LOCAL_SSD: Final = ("a2-ultragpu", "a3-", "a4-", "a4x-", "z3-")
_FAST: Final = {"c2": 30, "c2d": 30, "n2": 32, "n2d": 48, "c3": 44, "c3d": 60, "c4": 48, "c4a": 48, "z3": 44}
#: Series with network cards for RDMA after the first two.
_RDMA: Final = frozenset(("a3-ultragpu", "a4-highgpu"))
_GVNICS: Final = 2
_COMPACT: Final = (
    *("a2", "a3", "a4", "a4x", "c2", "c2d", "c3", "c3d", "c4", "c4d", "g2", "g4", "h3", "h4d", "n2", "n2d"),
)
_QUIET_KEYS: Final = """\
write_files:
- path: /etc/default/instance_configs.cfg
  content: |
    [InstanceSetup]
    set_host_keys = false
"""  # Google's agent would make other host keys than those that we know
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where the machines of an order stand in the network."""

    network: str  # path of the VPC
    subnets: tuple[str, ...]  # paths; several: a card in each
    tags: tuple[str, ...]


def order_of(order: MachineOrder, wishes: Wishes, site: Site, index: int) -> dict[str, Any]:
    """The body of `instances.insert`, for one node."""
    zone = f"zones/{order.zone}"
    body = _properties(order, wishes, site, zone=zone, labels=order.labels(index, wishes.user))
    if wishes.queue is not None:
        body["params"] = {"requestValidForDuration": {"seconds": str(wishes.queue.provision_timeout)}}
    return {"name": order.name(index), **body, "machineType": f"{zone}/machineTypes/{wishes.kind}"}


def gang_of(order: MachineOrder, wishes: Wishes, site: Site) -> dict[str, Any]:
    """The body of `instances.bulkInsert`: all machines of a claim, or none. All of them have the same labels:
    the index of a node is in its name."""
    labels = order.labels(0, wishes.user)
    labels.pop("argosy-node")
    properties = _properties(order, wishes, site, zone="", labels=labels)
    names = [name_of(order.claim.id, index) for index in range(wishes.count)]
    return {
        "count": str(wishes.count),
        "minCount": str(wishes.count),
        "perInstanceProperties": {name: {"name": name} for name in names},
        "instanceProperties": {**properties, "machineType": wishes.kind},
    }


def _properties(
    order: MachineOrder, wishes: Wishes, site: Site, *, zone: str, labels: Mapping[str, str]
) -> dict[str, Any]:
    """What both ways of ordering share. `zone`: what names of resources begin with ("": they are bare)."""
    prefix = f"{zone}/" if zone else ""
    own = {INSIDE: "1"} if wishes.inside else {}
    body: dict[str, Any] = {
        "labels": {**dict(wishes.labels), **labels, **own},
        "tags": {"items": list(site.tags)},
        "disks": [_disk(wishes, prefix)],
        "networkInterfaces": _cards(wishes, site),
        "scheduling": scheduling_of(wishes),
        "metadata": {"items": _metadata(order, wishes)},
        "reservationAffinity": _affinity(wishes),
    }
    added = added_type(wishes)
    if added:
        kind = f"{prefix}acceleratorTypes/{added}" if prefix else added
        body["guestAccelerators"] = [{"acceleratorType": kind, "acceleratorCount": wishes.accelerators}]
    if wishes.identity:
        body["serviceAccounts"] = [{"email": wishes.identity, "scopes": [_SCOPE]}]
    if is_fast(wishes, order.claim.choice.offer.shape.cpus_milli // 1000):
        body["networkPerformanceConfig"] = {"totalEgressBandwidthTier": "TIER_1"}
    policy = policy_of(order.claim.id, wishes)
    if policy:
        body["resourcePolicies"] = [f"regions/{wishes.region}/resourcePolicies/{policy}" if zone else policy]
    return body


def scheduling_of(wishes: Wishes) -> dict[str, Any]:
    """When machines end without us, and what happens then."""
    rules: dict[str, Any] = {"provisioningModel": "STANDARD", "automaticRestart": True}
    model = _model(wishes)
    if model != "STANDARD":
        rules |= {"automaticRestart": False, "instanceTerminationAction": "DELETE"}
        rules["provisioningModel"] = model
    if wishes.queue is not None:
        rules["maxRunDuration"] = {"seconds": str(wishes.queue.run_duration)}
    if wishes.has_gpu or model != "STANDARD":
        rules["onHostMaintenance"] = "TERMINATE"
    return rules


def _model(wishes: Wishes) -> str:
    """Provisioning model: who may end a machine, and when."""
    if wishes.spot:
        return "SPOT"
    if wishes.queue is not None:
        return "FLEX_START"
    return "RESERVATION_BOUND" if wishes.bound else "STANDARD"


def _disk(wishes: Wishes, prefix: str) -> dict[str, Any]:
    """The boot disk, which goes with its machine."""
    kind, figures = disk_of(wishes)
    made: dict[str, Any] = {
        "sourceImage": image_of(wishes),
        "diskSizeGb": str(wishes.disk_gb),
        "diskType": f"{prefix}diskTypes/{kind}" if prefix else kind,
        "labels": {"argosy": "1"},
        **figures,
    }
    disk: dict[str, Any] = {"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": made}
    if wishes.kms_key:
        disk["diskEncryptionKey"] = {"kmsKeyName": wishes.kms_key}
    return disk


def disk_of(wishes: Wishes) -> tuple[str, dict[str, str]]:
    """The kind of disk for a tier, and its figures where they are chosen: int64, so strings."""
    gb, tier = wishes.disk_gb, wishes.disk_tier
    if wishes.series in _HYPERDISK:
        figures = {"high": (10_000, 400), "ultra": (40_000, 1200), "best": (40_000, 1200)}.get(tier)
        if figures is None:
            return "hyperdisk-balanced", {}
        iops = max(3000, min(figures[0], 500 * gb))
        return "hyperdisk-balanced", {
            "provisionedIops": str(iops),
            "provisionedThroughput": str(max(140, min(figures[1], iops // 4))),
        }
    if tier == "low" and wishes.series in _STANDARD_PD:
        return "pd-standard", {}
    return ("pd-balanced" if tier in ("low", "medium") else "pd-ssd"), {}


def image_of(wishes: Wishes) -> str:
    """The path of an image: the task's own, or the newest of a family of Google's.

    Raises `RequestRefused` for what names no image.
    """
    asked = wishes.image
    if asked:
        asked = asked.removeprefix("https://www.googleapis.com/compute/v1/").removeprefix("gcp:")
        if asked.startswith("projects/") and "/images/" in asked:
            return asked
        if "/" not in asked:
            return f"global/images/{asked}"
        raise border.RequestRefused(
            "image_id",
            f"`{asked}` is no image of Google Cloud: those are called "
            "`projects/PROJECT/global/images/NAME` or `projects/PROJECT/global/images/family/FAMILY`, or by "
            "their name alone in your project; `gcloud compute images list` shows them",
        )
    if not wishes.has_gpu:
        return f"{_PLAIN}-arm64" if wishes.arch == "arm64" else _PLAIN
    if wishes.accelerator in _OLD_MODELS:
        return _OLD_DRIVERS
    return _DRIVERS.replace("amd64", "arm64") if wishes.arch == "arm64" else _DRIVERS


def added_type(wishes: Wishes) -> str:
    """The accelerator that has to be added to a machine; "": it has none, or has it already."""
    if wishes.series != "n1" or not wishes.accelerator:
        return ""
    if wishes.accelerator not in _ADDED:
        raise border.RequestRefused(
            "accelerators",
            f"{wishes.accelerator} cannot be added to {wishes.kind}: machines of the series N1 take "
            f"{', '.join(_ADDED)}",
        )
    return _ADDED[wishes.accelerator]


def _cards(wishes: Wishes, site: Site) -> list[dict[str, Any]]:
    places: Sequence[dict[str, Any]] = [{"subnetwork": each} for each in site.subnets] or [
        {"network": site.network}
    ]
    cards = []
    for number, place in enumerate(places):
        card = dict(place)
        if wishes.series in _RDMA and number >= _GVNICS:
            card["nicType"] = "MRDMA"
        elif wishes.gvnic or wishes.best_network:
            card["nicType"] = "GVNIC"
        if wishes.public and number == 0:
            card["accessConfigs"] = [
                {"type": "ONE_TO_ONE_NAT", "name": "External NAT", "networkTier": "PREMIUM"}
            ]
        cards.append(card)
    return cards


def _metadata(order: MachineOrder, wishes: Wishes) -> list[dict[str, str]]:
    items = {
        "user-data": order.user_data + _QUIET_KEYS,
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "FALSE",
    }
    if not wishes.image and wishes.accelerator in _OLD_MODELS:
        items["install-nvidia-driver"] = "True"
    return [{"key": key, "value": value} for key, value in items.items()]


def _affinity(wishes: Wishes) -> dict[str, Any]:
    if wishes.reservations:
        return {
            "consumeReservationType": "SPECIFIC_RESERVATION",
            "key": "compute.googleapis.com/reservation-name",
            "values": list(wishes.reservations),
        }
    free = wishes.spot or wishes.queue is not None
    return {"consumeReservationType": "NO_RESERVATION" if free else "ANY_RESERVATION"}


def is_fast(wishes: Wishes, cpus: int) -> bool:
    """Whether the network is bought in its faster tier (`network_tier: best`); where a machine has none,
    gVNIC is what there is."""
    return wishes.best_network and cpus >= _FAST.get(wishes.series, 10**9)


def policy_of(claim_id: str, wishes: Wishes) -> str:
    """The placement policy of a gang; "": it has none. One that is ours is made for the claim and goes with
    it."""
    if wishes.placement not in ("", "compact"):
        return wishes.placement
    wanted = wishes.placement == "compact" or wishes.best_network
    first = wishes.kind.partition("-")[0]
    if wishes.placement == "compact" and wishes.count > 1 and first not in _COMPACT:
        raise border.RequestRefused(
            "config.gcp.placement_policy",
            f"machines of the series {first.upper()} cannot be placed close together: leave "
            "`placement_policy` out, or ask for another type",
        )
    return own_policy(claim_id) if wanted and wishes.count > 1 and first in _COMPACT else ""


def own_policy(claim_id: str) -> str:
    return f"argosy-{claim_id}"


def has_local_ssd(kind: str) -> bool:
    return kind.startswith(_LOCAL_SSD) or kind.endswith("lssd")
