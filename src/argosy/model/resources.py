"""What a user may ask for: one candidate of resources. Several candidates are several `Resources`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

import msgspec

from argosy.model.units import Bound, render_bytes, render_milli


class Infra(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where: `provider[/region[/zone]]`; None is anywhere."""

    provider: str | None = None
    region: str | None = None
    zone: str | None = None


_FAMILIES: Final = ("jetson",)  # names of many models, of which people mean any


def serves(model: str, name: str) -> bool:
    """Whether an accelerator is one that `name` asks for: its model in any case, or a family that it is of.

    >>> serves("H100", "h100"), serves("Jetson-Orin-NX-16GB", "Jetson"), serves("H100-NVL", "H100")
    (True, True, False)
    """
    mine, wanted = model.lower(), name.lower()
    return mine == wanted or (wanted in _FAMILIES and mine.startswith(f"{wanted}-"))


def is_family(name: str) -> bool:
    return name.lower() in _FAMILIES


class Accelerator(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A wish for accelerators per node. `model` None means any with enough memory."""

    model: str | None
    milli: int  # thousandths of a device: 8000 is eight, 250 is a quarter of one
    memory_min_bytes: int = 0  # per device
    vendor: str | None = None  # `nvidia:80GB+`

    @property
    def is_fraction(self) -> bool:
        return self.milli % 1000 != 0

    def render(self) -> str:
        name = self.model or (
            f"{render_bytes(self.memory_min_bytes).replace(' ', '')}+" if self.memory_min_bytes else "any"
        )
        return f"{name}:{render_milli(self.milli)}"


class Recovery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a managed job recovers. Losses of nodes are always recovered; these are about errors."""

    strategy: str | None = None
    max_restarts_on_errors: int = 0
    recover_on_exit_codes: tuple[int, ...] = ()
    at_most_once: bool | None = None  # never two attempts at once; None: where a silent node may come back


class Autostop(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a cluster rests or goes by itself. `idle_s` None: never because it is idle."""

    idle_s: int | None = None
    down: bool = False
    wait_for: str = "jobs_and_ssh"  # jobs_and_ssh | jobs | gpu | none
    max_s: int | None = None  # after so long in any case


class Exclusion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What must not be chosen: an offer is out when everything that is named here is true of it."""

    area: str = ""  # as in `model.areas`: `aws`, `aws/us-east-1`, `us-*`, `CN`
    instance_type: str = ""  # may be a pattern: `p3.*`
    accelerator: str = ""

    def render(self) -> str:
        return " ".join(part for part in (self.area, self.instance_type, self.accelerator) if part)


class Edge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a site at the edge must be able to do; 0: anything will do. A place of which it is not known is
    refused."""

    bandwidth_kbps: int = 0  # its link carries at least so much
    latency_us: int = 0  # it answers at least so fast
    power_mw: int = 0  # a node draws at most so much


class Networking(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The network that nodes join, by names or ids of the place; empty: its usual one."""

    vpc_name: str = ""
    subnet_names: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()


_DISK_UNITS: Final = ((10**9, ""), (1 << 30, "GiB"), (10**6, "MB"), (1 << 20, "MiB"), (1, "B"))


class LocalDisk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A wish for disk in the machine itself. Vendors count it in GB of 10^9 bytes, and so does its
    notation."""

    kind: str = ""  # nvme | ssd; "": any. Kept; what is for hire does not tell it
    bound: Bound = Bound(1)  # bytes per node, above 0; the default is any that there is

    def render(self) -> str:
        """As people write it; it reads back.

        >>> LocalDisk(kind="nvme", bound=Bound(500 * 10**9)).render(), LocalDisk(kind="ssd").render()
        ('nvme:500+', 'ssd')
        """
        if self.bound == Bound(1):
            return self.kind or "1B+"
        unit, name = next(each for each in _DISK_UNITS if self.bound.amount % each[0] == 0)
        size = f"{self.bound.amount // unit}{name}{'' if self.bound.exact else '+'}"
        return f"{self.kind}:{size}" if self.kind else size


class Resources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One candidate: what every node of a task must have."""

    infra: Infra = Infra()
    instance_type: str | None = None
    arch: str = ""  # x86_64 | arm64 | any; "": see `arch_wanted`
    cpus: Bound | None = None  # milli-CPU
    memory: Bound | None = None  # bytes
    memory_per_cpu_bytes: int = 0  # `memory: 4x`
    accelerator: Accelerator | None = None
    accelerator_args: tuple[tuple[str, str], ...] = ()
    use_spot: bool | None = None
    disk_size_bytes: int = 0
    disk_tier: str | None = None
    local_disk: str | None = None  # text of older rows, from when nothing acted on it
    node_disk: LocalDisk | None = None  # `local_disk`
    network_tier: str | None = None
    ports: tuple[str, ...] = ()
    image_id: str | None = None
    networking: Networking = Networking()
    config: str = ""  # JSON text of the parts of the task's `config` that drivers act on
    hedge: bool = False  # an order that is late gets a second one elsewhere beside it
    labels: tuple[tuple[str, str], ...] = ()
    max_hourly_micro_usd: int | None = None
    areas: tuple[str, ...] = ()  # `regions`: any of them will do; words of `model.areas`
    excluded: tuple[Exclusion, ...] = ()  # `not`
    location: str = ""  # name of a site
    edge: Edge = Edge()
    autostop: Autostop | None = None
    recovery: Recovery = Recovery()
    priority: int = 0
    priority_class: str | None = None
    preset: str = ""  # resources by a name of the tenancy, which the server puts in
    extra: str = ""  # JSON text of the accepted fields that have no place here yet

    @property
    def says_where(self) -> bool:
        """Whether what is known of a place matters, beyond its name."""
        return bool(self.areas or self.excluded or self.location or self.edge != Edge())

    @property
    def machine_image(self) -> bool:
        """Whether it names an image that machines start from, and not a container's."""
        by_region = '"image_id"' in self.extra
        return by_region or (self.image_id is not None and not self.image_id.startswith("docker:"))

    def memory_for(self, cpus_milli: int) -> int:
        """Bytes per node that the wish names: directly, or per CPU of a node with so many; 0: none."""
        if self.memory:
            return self.memory.amount
        return self.memory_per_cpu_bytes * cpus_milli // 1000

    def arch_wanted(self) -> str:
        """The architecture that a machine must have; "": any.

        Where nothing is said it is x86_64, for which most images and wheels are made; a wish that names a
        type of machine or a model of accelerator has chosen by that.
        """
        if self.arch:
            return "" if self.arch == "any" else self.arch
        named = self.instance_type or (self.accelerator is not None and self.accelerator.model)
        return "" if named else "x86_64"

    def excludes_kind(self, instance_type: str, accelerator: str, provider: str) -> bool:
        """Whether `not` names this kind of machine (of this provider, where it names one)."""
        return any(
            (not each.instance_type or fnmatchcase(instance_type.lower(), each.instance_type.lower()))
            and (not each.accelerator or each.accelerator.lower() == accelerator.lower())
            and (not each.area or each.area.lower() == provider.lower())
            for each in self.excluded
            if each.instance_type or each.accelerator
        )

    def render(self) -> str:
        """The wish in one line, as people write it.

        >>> Resources(accelerator=Accelerator(model="A100", milli=8000), use_spot=True).render()
        'A100:8, spot'
        """
        parts: list[str] = []
        if self.preset:
            parts.append(f"preset {self.preset}")
        if self.instance_type:
            parts.append(self.instance_type)
        if self.accelerator:
            parts.append(self.accelerator.render())
        if self.cpus:
            unit = "CPU" if self.cpus == Bound(1000, exact=True) else "CPUs"
            parts.append(f"{render_milli(self.cpus.amount)}{'' if self.cpus.exact else '+'} {unit}")
        if self.memory:
            parts.append(f"{render_bytes(self.memory.amount)}{'' if self.memory.exact else '+'}")
        if self.node_disk:
            parts.append(f"local disk {self.node_disk.render()}")
        if self.use_spot:
            parts.append("spot")
        return ", ".join(parts) or "default"
