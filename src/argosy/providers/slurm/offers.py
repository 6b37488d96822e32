"""Offers of a cluster: each partition and each kind of node in it, as Slurm lists them now. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from argosy.infra import border
from argosy.model.offer import Capacity, Offer, Shape
from argosy.providers.slurm.listing import Gres, NodeGroup
from argosy.providers.slurm.settings import ClusterSettings
from argosy.providers.slurm.words import refusal
from argosy.spec.accelerators import canonical_accelerator

_LONG_S: Final = 7 * 86400  # of a wait that is not known
_MIB: Final = 1 << 20
#: States in which a node runs jobs, or will when they end.
USABLE: Final = frozenset(
    {
        *(
            "idle",
            "mixed",
            "mix",
            "allocated",
            "alloc",
            "completing",
            "comp",
            "planned",
            "reserved",
            "blocked",
        ),
        *("powered_down", "powering_down", "powering_up", "power_down", "power_up"),
        *("maint", "reboot", "rebooting"),
    }
)
_DEVICES: Final = ("gpu", "npu", "tpu", "mic")


class NodeKind(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one partition that are alike, whatever they do at present."""

    partition: str
    gres: Gres | None
    cpus: int
    memory_mib: int
    features: tuple[str, ...]
    total: int
    usable: int  # of them up
    idle: int  # of them free as a whole
    nodes_max: int | None
    time_limit_s: int | None
    default_time_s: int | None
    is_default: bool
    is_up: bool
    groups: tuple[str, ...]
    is_any: bool = False  # not one kind, but all nodes of the partition
    told_by: str = ""  # the feature that says what its devices are, where GRES does not
    shards: Gres | None = None  # parts of its GPUs that jobs may ask for, all GPUs of a node together

    @property
    def type(self) -> str:
        """How offers and claims name it: devices, CPUs and memory of a node."""
        plain = "any" if self.is_any else "cpu"
        devices = f"{self.gres.text}:{self.gres.count}" if self.gres else plain
        devices += f"@{self.told_by}" if self.told_by else ""
        return f"{devices}-{self.cpus}c-{round(self.memory_mib / 1024) or 1}g"

    @property
    def most(self) -> int:
        """Nodes that one job can have."""
        return self.usable if self.nodes_max is None else min(self.usable, self.nodes_max)


def node_kinds(groups: Sequence[NodeGroup]) -> list[NodeKind]:
    """Sums over the states of like nodes, in the order of partitions."""
    alike: dict[tuple[object, ...], list[NodeGroup]] = {}
    for group in groups:
        device = device_of(group.gres)
        text = (device.text, device.count, _telling(device, group.features)) if device else ()
        alike.setdefault((group.partition, text, group.cpus, group.memory_mib), []).append(group)
    kinds = [_kind(members) for members in alike.values()]
    return kinds + [
        _any_of(mine)
        for name in dict.fromkeys(kind.partition for kind in kinds)
        if len(mine := [kind for kind in kinds if kind.partition == name]) > 1
    ]


def _any_of(kinds: Sequence[NodeKind]) -> NodeKind:
    """All nodes of a partition, for jobs that need no devices: each has at least so much."""
    first = kinds[0]
    return msgspec.structs.replace(
        first,
        is_any=True,
        gres=None,
        shards=None,
        told_by="",
        cpus=min(kind.cpus for kind in kinds),
        memory_mib=min(kind.memory_mib for kind in kinds),
        features=tuple(sorted({feature for kind in kinds for feature in kind.features})),
        total=sum(kind.total for kind in kinds),
        usable=sum(kind.usable for kind in kinds),
        idle=sum(kind.idle for kind in kinds),
    )


def _kind(members: Sequence[NodeGroup]) -> NodeKind:
    first = members[0]
    up = [group for group in members if group.state in USABLE and group.answers]
    device = device_of(first.gres)
    return NodeKind(
        partition=first.partition,
        gres=device,
        told_by=_telling(device, first.features) if device else "",
        shards=_shards_of(members) if device else None,
        cpus=first.cpus,
        memory_mib=first.memory_mib,
        features=tuple(sorted({feature for group in members for feature in group.features})),
        total=sum(len(group.nodes) for group in members),
        usable=sum(len(group.nodes) for group in up),
        idle=sum(len(group.nodes) for group in up if group.state == "idle"),
        nodes_max=first.nodes_max,
        time_limit_s=first.time_limit_s,
        default_time_s=first.default_time_s,
        is_default=first.is_default,
        is_up=first.is_up,
        groups=first.groups,
    )


def device_of(gres: Sequence[Gres]) -> Gres | None:
    """The accelerators of a node; of several types the most numerous."""
    devices = [each for each in gres if each.name in _DEVICES and each.count]
    return max(devices, key=lambda each: each.count) if devices else None


def _shards_of(members: Sequence[NodeGroup]) -> Gres | None:
    """The shards of the GPUs of these nodes (`gres/shard`); None: not all have the same."""
    found = {next((each for each in group.gres if each.name == "shard"), None) for group in members}
    shards = found.pop() if len(found) == 1 else None
    return shards if shards is not None and shards.count else None


def accelerator_of(gres: Gres, told_by: str, named: Mapping[str, str]) -> str:
    """The catalog's name of what a site calls so. Types are the site's words: `named` translates them, else
    they are
    read; of GRES without a type a feature of the node may tell.

    >>> accelerator_of(Gres(name="gpu", type="nvidia_h100_80gb_hbm3"), "", {})
    'H100'
    >>> accelerator_of(Gres(name="gpu"), "a100", {}), accelerator_of(Gres(name="gpu"), "", {})
    ('A100', 'GPU')
    >>> accelerator_of(Gres(name="gpu", type="big"), "", {"big": "H200"})
    'H200'
    """
    word = gres.type or told_by or gres.name
    if word in named:
        return named[word]
    return _known(word) or gres.type or gres.name.upper()


def _telling(gres: Gres, features: Sequence[str]) -> str:
    """The feature that says what devices without a type are; "" when none does."""
    return "" if gres.type else next((feature for feature in features if _known(feature)), "")


def _known(word: str) -> str | None:
    """The catalog's name of the longest beginning of a word that it knows."""
    parts = re.split(r"[_\s]+|-(?=\d+g)", word)
    for end in range(len(parts), 0, -1):
        name = canonical_accelerator(" ".join(parts[:end]))
        if name is not None:
            return name
    return None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What Slurm says to a job of one node of a kind."""

    wait_s: int | None = None  # until it would start; None: it does not say
    refused: str = ""  # why such a job is not taken: in Slurm's words, with our fix


def test_options(kind: NodeKind, ours: ClusterSettings) -> list[str]:
    """Of the job that asks for an estimate: one node, with all its devices."""
    gres = f"{kind.gres.text}:{kind.gres.count}" if kind.gres else ""
    pairs = (
        ("partition", kind.partition),
        ("gres", gres),
        ("constraint", kind.told_by),
        ("account", ours.account),
        ("qos", ours.qos),
        ("time", "5"),
    )
    return ["--nodes=1", "--mem=1M", *(f"--{name}={value}" for name, value in pairs if value)]


def estimate_of(answer: str, now: str, scope: str) -> Estimate:
    """
    >>> said = "sbatch: Job 3 to start at 2026-11-29T18:00:30 using 2 processors on nodes n1 in partition low"
    >>> estimate_of(said, "2026-11-29T18:00:00", "lab/low").wait_s
    30
    >>> estimate_of("allocation failure: Invalid account", "", "lab/low").refused
    'Slurm refuses the job: Invalid account'
    """
    found = re.search(r"to start at (\S+)", answer)
    if found is None:
        error = refusal(answer, scope) if answer.strip() else None
        certain = error is not None and not isinstance(error, border.Transient)
        return Estimate(refused=str(error)) if certain else Estimate()
    try:
        wait = datetime.fromisoformat(found[1]) - datetime.fromisoformat(now)
    except ValueError:
        return Estimate()
    return Estimate(wait_s=max(0, int(wait.total_seconds())))


def offers_of(
    kinds: Sequence[NodeKind],
    *,
    provider: str,
    cluster: str,
    named: Mapping[str, str],
    now_ms: int,
    estimates: Mapping[tuple[str, str], Estimate] = {},
) -> list[Offer]:
    """One offer for each kind of node of a partition that takes jobs. A part of a node may be had.
    `estimates`: by partition and type."""
    offers = []
    for kind in kinds:
        if not kind.is_up or not kind.most:
            continue
        gres = kind.gres
        told = estimates.get((kind.partition, kind.type), Estimate())
        wait_s = 0 if kind.idle else told.wait_s
        offers.append(
            Offer(
                provider=provider,
                region=cluster,
                zone=kind.partition,
                shape=Shape(
                    instance_type=kind.type,
                    cpus_milli=1000 * kind.cpus,
                    memory_bytes=kind.memory_mib * _MIB,
                    accelerator=accelerator_of(gres, kind.told_by, named) if gres else None,
                    accelerators_milli=1000 * gres.count if gres else 0,
                    arch="arm64" if {"aarch64", "arm64", "arm", "grace"} & set(kind.features) else "x86_64",
                ),
                capacity=Capacity.QUEUED,
                price_micro_usd=0,
                quoted_at_ms=now_ms,
                nodes_max=kind.most,
                divisible=True,
                parts=kind.shards is not None,
                closed=told.refused,
                wait_s=wait_s,
                order=(0 if kind.is_default else 1) + 2 * _bucket(wait_s),
            )
        )
    return offers


def _bucket(wait_s: int | None) -> int:
    """Waits that differ by less than about half are alike."""
    return ((_LONG_S if wait_s is None else wait_s) // 60).bit_length()


def part_of(kind: NodeKind, milli: int) -> str:
    """What a job asks for that wants a part of one GPU: shards, rounded up; "": the node has none."""
    if kind.shards is None or kind.gres is None:
        return ""
    each = kind.shards.count // kind.gres.count
    return f"{kind.shards.text}:{max(1, -(-milli * each // 1000))}" if each else ""


def gres_of_type(instance_type: str) -> tuple[str, str]:
    """The GRES of a kind of node, without a count, and the feature that says what its devices are.

    >>> gres_of_type("gpu:h100:8-64c-512g"), gres_of_type("gpu:8@a100-64c-512g"), gres_of_type("cpu-16c-64g")
    (('gpu:h100', ''), ('gpu', 'a100'), ('', ''))
    """
    devices, _, told_by = instance_type.rsplit("-", 2)[0].partition("@")
    return ("" if devices in ("cpu", "any") else devices.rpartition(":")[0]), told_by
