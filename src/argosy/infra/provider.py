"""A provider is one folder and six verbs. Everything else the core knows about it is data in its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from argosy.infra.agent_port import Channel, DialIn
from argosy.model.facts import ClaimFact
from argosy.model.ids import Clock, Ids
from argosy.model.offer import Offer
from argosy.model.own_volumes import OwnVolume
from argosy.model.priced import PriceSource
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Claim, Node


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an infrastructure can do. The planner rejects with a reason what is not declared."""

    spot: bool = False
    stop: bool = False  # claims can rest and come back with their disks
    multi_node: bool = False
    fractions: bool = False  # shares of one accelerator
    ports: bool = False
    images: bool = False  # programs may run in a container image
    machine_images: bool = False  # machines start from an image of the user's choice
    networks: bool = False  # machines join a network of the user's choice
    disks: bool = False  # machines get a disk of the size that is asked for
    zones: bool = False  # a region has several, and another is tried when one has no room
    quotas: bool = False  # what the account may have is known before an order is refused
    preemption_notice: bool = False
    owned: bool = False  # capacity is finite, known, and nobody else takes it


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one claim may ask for. The planner refuses more, with `text` as the reason."""

    nodes_max: int | None = None
    text: str = ""  # this machine runs at most 128 nodes


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that others may know of an infrastructure, as plain data."""

    name: str  # as users write it in `infra:`
    title: str
    capabilities: Capabilities
    aliases: tuple[str, ...] = ()  # other names that users write
    class_name: str = ""  # of SkyPilot's class: `sky.AWS()`
    region_is_rest: bool = False  # all that follows the name is one region: a context, which may hold `/`
    own_machine: bool = False  # its place is the machine of the server itself, of each server another one
    own: bool = False  # people's own machines, although others use them too: nothing is paid to a vendor
    limits: Limits = Limits()
    settings: tuple[str, ...] = ()  # environment variables of the server that configure it
    priced_by_catalog: bool = (
        False  # what the catalog prices can be had: `quote` tells what differs from that
    )
    prices: PriceSource | None = None  # how live prices are asked for (None: they are not)
    unpriced: str = ""  # why its shipped prices cannot be refreshed
    task_fields: tuple[str, ...] = ()  # of `config.<name>` in task files
    reads_task_fields: bool = False  # the driver acts on them
    volume_types: tuple[str, ...] = ()  # of `volumes` in task files that the driver mounts itself
    # The field of these that is a command: jobs of its own, which may be submitted as they are. A task may
    # say `<name>: {FIELD: command, ...}` in the place of `run`, `config.<name>` and `infra`.
    command_field: str = ""
    # The field of these with which a task's jobs wait in a queue of the place, which takes an array as one
    # order and itself keeps to how many of its jobs run at once.
    array_field: str = ""
    extra: str = ""  # `pip install argosy[EXTRA]`
    # Ways to find its credentials, each of them enough: variables (`A and B`), a file, `program NAME`.
    credentials: tuple[str, ...] = ()
    # What makes credentials: a command of its own tools; without one a sentence (`make a key at …`).
    sign_in: str = ""
    enabled_by_default: bool = False  # also without credentials
    enlists: bool = False  # people name its hosts, `argosy pool add`: the driver is an `enlisting.Enlists`
    shared_dir: str = ""  # a folder that all its nodes share and that outlives claims ("": none)
    may_return: bool = (
        False  # what does not answer may come back with what ran there, and nobody else can end it
    )
    watches: bool = False  # the driver is a `Watches`: it is also asked when it says that something changed
    tested: str = ""  # against what, in a few words: `a fake of its API; real hosts`
    observe_s: float = 10.0  # how often it is asked what it has of ours, while all nodes answer

    @property
    def how_to_sign_in(self) -> str:
        """`sign_in` as a clause: commands stand in backticks."""
        is_sentence = not self.sign_in or self.sign_in.startswith(("make ", "set "))
        return self.sign_in if is_sentence else f"`{self.sign_in}`"


class Diagnostic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finding of `check`. `hint` says what to do when it is not ok."""

    provider: str
    ok: bool
    what: str
    hint: str = ""


class Want(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `quote` is asked for: candidates of resources for `num_nodes` nodes. An empty want lists
    everything."""

    resources: tuple[Resources, ...] = ()
    num_nodes: int = 1


class Provider(Protocol):
    manifest: Manifest

    async def check(self) -> Sequence[Diagnostic]:
        """Can we work? Each finding says what to do."""

    async def quote(self, want: Want) -> Sequence[Offer]:
        """What can be had, where, for how much. Owned providers tell total capacity; the planner subtracts
        claims.

        A provider that is `priced_by_catalog` need not list machines: the rows of the catalog are its offers
        once it has answered here. It tells what differs, and each offer of its own takes the place of the row
        with the same region, zone, capacity and instance type: another price, a reservation, or with `closed`
        what cannot be had. Raises `CredentialsRejected`: then nothing of it is offered."""

    async def ensure(self, claim: Claim) -> None:
        """Make it so, all nodes or none; safe to repeat. `claim.desired` RUN: nodes run our agent; STOP: they
        rest with their disks. Raises a border error. Returns when ordered; `observe` tells when it is there,
        and the claim's `tag` with it."""

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        """Everything tagged ours (all when `claim_ids` is empty), nothing else. A claim that is not listed is
        gone."""

    async def release(self, claim_id: str) -> None:
        """Make it gone; absent is success."""

    async def reach(self, node: Node) -> Channel:
        """A byte stream to the node's agent. Raises `Unreachable`."""


class Watches(Provider, Protocol):
    """A provider that hears by itself what becomes of its claims (`Manifest.watches`)."""

    async def changed(self) -> None:
        """Returns when something of ours has changed since this was called; `observe` tells what."""


@runtime_checkable
class Connected(Protocol):
    """A provider that keeps connections to its place."""

    async def disconnect(self) -> None:
        """They go. A later call makes new ones."""


@runtime_checkable
class KeepsVolumes(Protocol):
    """A provider that makes volumes which stand by themselves, of its `Manifest.volume_types`."""

    async def make_volume(self, infra: Infra, volume: OwnVolume) -> bool:
        """It is there: made with its size, or without a size found. True: Argosy has made it, now or before.
        May be repeated. Raises a border error."""

    async def remove_volume(self, infra: Infra, volume: OwnVolume) -> None:
        """It is gone with its bytes, if Argosy has made it; absent is success. Raises a border error."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver may use: a folder of its own, time, ids, and the environment (never logged)."""

    root: Path
    clock: Clock
    ids: Ids
    environ: Mapping[str, str]
    home: Path = Path()  # the server's state folder, where people write settings
    dialled: DialIn | None = None  # where nodes may dial in (None: nowhere)

    def __repr__(self) -> str:  # the environment holds credentials
        return f"Setting(root={self.root!r})"


class Providers(Protocol):
    """The providers that this server uses, by name."""

    def get(self, name: str) -> Provider: ...

    def all(self) -> Mapping[str, Provider]: ...
