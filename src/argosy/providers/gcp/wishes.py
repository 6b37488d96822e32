"""What a claim asks of Google Cloud beyond a type of machine: network, disk, image, who its programs are.
Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_images import asked_image
from argosy.infra.machine_settings import settings_in
from argosy.infra.machines import CLAIM, NODE, NODES, TAG, USER
from argosy.model.rows import Claim
from argosy.model.units import GIB

DISK_GB: Final = 100  # of the boot disk when nothing is said
USER_NAME: Final = "ubuntu"  # of Google's images for Ubuntu
INSIDE: Final = "argosy-inside"  # a label: it is reached by its address inside the VPC
_NOBODY: Final = frozenset(("", "LOCAL_CREDENTIALS", "NO_UPLOAD"))
_LABEL_KEY: Final = re.compile(r"[a-z][-_a-z0-9]{0,62}")
_LABEL_VALUE: Final = re.compile(r"[-_a-z0-9]{0,63}")
_USER: Final = re.compile(r"[a-z_][-_a-z0-9]{0,31}")
_OURS: Final = frozenset((CLAIM, NODE, NODES, TAG, USER, INSIDE))
_QUEUE_MIN_S, _QUEUE_MAX_S = 90, 7200  # so long a flexible start may wait
_RUN_MAX_S: Final = 7 * 86400


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """`managed_instance_group`: capacity that Google gives when it has some (flexible start)."""

    run_duration: int  # seconds that a machine lives at most
    provision_timeout: int = _QUEUE_MAX_S  # seconds that it may wait to be made


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`config.gcp` of a task."""

    vpc_name: str = ""
    subnet_names: tuple[str, ...] | str = ()
    use_internal_ips: bool = False
    force_enable_external_ips: bool = False
    remote_identity: str = ""  # e-mail of a service account; SERVICE_ACCOUNT: the project's default one
    specific_reservations: tuple[str, ...] | str = ()
    reservation_bound: bool = False  # they are of the kind that machines end with (A3 Ultra, A4)
    managed_instance_group: Queue | None = None
    placement_policy: str = ""  # compact, or the name of a policy of one's own
    enable_gvnic: bool = False
    enable_gpu_direct: bool = False
    kms_key: str = ""  # with which the disk is encrypted
    ssh_user: str = ""  # of an image of one's own
    runtime_version: str = ""  # of TPUs
    labels: dict[str, str] = {}


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """All that one order says."""

    kind: str  # type of machine
    arch: str
    accelerator: str
    accelerators: int  # of one machine
    count: int
    spot: bool
    region: str
    network: str
    subnets: tuple[str, ...]
    tags: tuple[str, ...]  # network tags of one's own, in place of ours
    public: bool  # it gets a public address
    inside: bool  # it is reached by its address inside the VPC
    identity: str
    reservations: tuple[str, ...]
    bound: bool  # it lives as long as its reservation
    queue: Queue | None
    placement: str  # "" | compact | name of a policy
    gvnic: bool
    image: str
    disk_gb: int
    disk_tier: str
    kms_key: str
    user: str
    ports: tuple[str, ...]
    runtime: str  # of a TPU
    labels: tuple[tuple[str, str], ...]
    best_network: bool

    @property
    def series(self) -> str:
        """`a3-highgpu` for `a3-highgpu-8g`, `n2` for `n2-standard-4`."""
        first, _, rest = self.kind.partition("-")
        return f"{first}-{rest.partition('-')[0]}" if first in ("a2", "a3", "a4") else first

    @property
    def has_gpu(self) -> bool:
        return bool(self.accelerator)


def wishes_of(claim: Claim, *, private: bool = False) -> Wishes:
    """Raises `RequestRefused` for settings that cannot be meant. `private`: machines are reached by their
    addresses inside the VPC, whatever a task says."""
    choice, asked = claim.choice, claim.choice.resources
    offer, settings = choice.offer, settings_of(asked.config)
    net, inside = asked.networking, private or settings.use_internal_ips
    wishes = Wishes(
        kind=offer.shape.instance_type,
        arch=offer.shape.arch,
        accelerator=offer.shape.accelerator or "",
        accelerators=offer.shape.accelerators_milli // 1000,
        count=claim.count,
        spot=offer.capacity.value == "spot",
        region=offer.region,
        network=net.vpc_name or settings.vpc_name,
        subnets=net.subnet_names or _several(settings.subnet_names),
        tags=net.security_groups,
        public=not settings.use_internal_ips or settings.force_enable_external_ips,
        inside=inside,
        identity=_identity(settings.remote_identity),
        reservations=_several(settings.specific_reservations),
        bound=settings.reservation_bound,
        queue=settings.managed_instance_group,
        placement=settings.placement_policy,
        gvnic=settings.enable_gvnic or settings.enable_gpu_direct,
        image=asked_image(claim),
        disk_gb=-(-asked.disk_size_bytes // GIB) or DISK_GB,
        disk_tier=asked.disk_tier or "medium",
        kms_key=settings.kms_key,
        user=settings.ssh_user or USER_NAME,
        ports=asked.ports,
        runtime=settings.runtime_version or dict(asked.accelerator_args).get("runtime_version", ""),
        labels=tuple((settings.labels | dict(asked.labels)).items()),
        best_network=asked.network_tier == "best",
    )
    _refuse(wishes, settings)
    return wishes


def settings_of(config: str) -> Settings:
    """The part for Google Cloud of a task's `config`.

    >>> settings_of('{"gcp": {"vpc_name": "lab"}}').vpc_name
    'lab'
    """
    return settings_in(config, "gcp", Settings)


def _refuse(wishes: Wishes, settings: Settings) -> None:
    for key, value in wishes.labels:
        if key in _OURS:
            raise border.RequestRefused("labels", f"the label `{key}` is Argosy's own: choose another name")
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise border.RequestRefused(
                "labels",
                f"Google Cloud takes no label `{key}: {value}`: keys and values are at most 63 lower-case "
                "letters, digits, `-` and `_`, and a key begins with a letter",
            )
    if wishes.image.startswith("docker:"):
        raise border.RequestRefused(
            "image_id", "machines of Google Cloud have no container images yet; leave it out"
        )
    if not _USER.fullmatch(wishes.user):
        raise border.RequestRefused(
            "config.gcp.ssh_user", f"`{wishes.user}` cannot be the name of who logs in (`ssh_user`)"
        )
    if wishes.bound and not wishes.reservations:
        raise border.RequestRefused(
            "config.gcp.reservation_bound",
            "`reservation_bound` says how a reservation is used: name it in `specific_reservations`",
        )
    queue = wishes.queue
    if queue is None:
        return
    field = "config.gcp.managed_instance_group"
    if wishes.spot and not wishes.kind.startswith("tpu-"):
        raise border.RequestRefused(field, "a flexible start has no spot machines: leave out one of the two")
    if wishes.reservations:
        raise border.RequestRefused(field, "a flexible start uses no reservation: leave out one of the two")
    if not 0 < queue.run_duration <= _RUN_MAX_S:
        raise border.RequestRefused(
            field, f"`run_duration` is a number of seconds up to {_RUN_MAX_S}, not {queue.run_duration}"
        )
    if not _QUEUE_MIN_S <= queue.provision_timeout <= _QUEUE_MAX_S:
        raise border.RequestRefused(
            field,
            f"Google lets an order wait {_QUEUE_MIN_S} to {_QUEUE_MAX_S} seconds (`provision_timeout`), not "
            f"{queue.provision_timeout}",
        )


def _several(names: tuple[str, ...] | str) -> tuple[str, ...]:
    return ((names,) if names else ()) if isinstance(names, str) else names


def _identity(identity: str) -> str:
    if identity in _NOBODY:
        return ""
    return "default" if identity == "SERVICE_ACCOUNT" else identity
