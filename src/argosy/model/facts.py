"""What was observed outside: nodes, devices and ranks. Each carries its own time."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An accelerator of a node, as its driver reports it."""

    index: int
    model: str  # catalog name: A100, H100, L4, ...
    name: str = ""  # the driver's own name
    uuid: str = ""
    memory_bytes: int = 0
    numa: int = -1
    pci: str = ""
    nvlinks: tuple[int, ...] = ()  # number of NVLinks to each device, by index; () when unknown
    memory_used_bytes: int = 0
    utilisation_percent: int = -1  # -1: not known
    mig_profile: str = ""  # a MIG instance: `1g.10gb`; it is then a device of its own
    mig_parent: int = -1  # and this is the index of the card that it is a part of
    mig_slots: tuple[int, int] = (0, 0)  # first memory slice and how many
    vendor: str = ""  # nvidia, amd, intel, google, aws
    whole_only: bool = False  # one program has it at a time: no part of it can be given


class UnusedDevice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An accelerator that is plugged in and that programs cannot use."""

    name: str  # maker, model where it is known, and ids: `NVIDIA [10de:2330]`
    pci: str = ""
    reason: str = ""  # with what to do


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a machine was told about its own end: a spot machine that is taken back, maintenance."""

    code: str  # terminate | stop | hibernate | maintenance: it ends; rebalance: it may soon
    at_ms: int  # when
    text: str = ""  # in the words of who says so
    by_node: bool = False  # `at_ms` is by the node's own wall clock, which may be wrong

    @property
    def ends(self) -> bool:
        """Whether it is certain that programs there end."""
        return self.code != "rebalance"


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A machine as the agent sees it."""

    hostname: str = ""
    arch: str = ""
    cpus_milli: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    devices: tuple[Device, ...] = ()
    unused_devices: tuple[UnusedDevice, ...] = ()
    ip: str = "127.0.0.1"
    boot_id: str = ""
    agent_version: str = ""
    python: str = ""
    user: str = ""  # as whom its agent and programs run; "": a number without a name
    load_milli: int = 0
    memory_used_bytes: int = 0
    sharing: tuple[str, ...] = ()  # how a part of a device can be kept apart here: mps, mig
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()  # of the topology, from the widest: block, rack, leaf
    can_limit_pids: bool = False
    can_limit_memory: bool = False
    notice: Notice | None = None
    isolation: tuple[str, ...] = ()  # levels that it can give to sessions, the weakest first
    isolation_gaps: tuple[tuple[str, str], ...] = ()  # those that it cannot give, and why
    leases: bool = False  # its agent can end ranks by itself when the server is not heard


class RankPhase(StrEnum):
    PREPARING = "preparing"  # files are placed, setup runs
    READY = "ready"  # prepared; waits for the others of its gang
    RUNNING = "running"
    EXITED = "exited"  # `exit_code` is known
    VANISHED = "vanished"  # its processes are gone and left no exit code


class RankFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rank, as its agent sees it. `id` is `<attempt id>.<rank>`."""

    id: str
    phase: RankPhase
    stage: str = "run"  # setup | run
    exit_code: int | None = None  # 128+n when signal n ended it
    oom: bool = False
    log_bytes: int = 0  # written so far
    started_ms: int = 0
    ended_ms: int = 0
    detail: str = ""
    ready_ms: int = 0  # since when its app answers; 0: it has none, or that does not yet
    active_ms: int = 0  # when its app was last seen at work by itself
    active_by: str = ""  # what that was: kernels | cpu | terminal
    gpu_active_ms: int = 0  # when its share of GPUs was last seen at work

    @property
    def attempt_id(self) -> str:
        return self.id.rpartition(".")[0]

    @property
    def rank(self) -> int:
        return int(self.id.rpartition(".")[2])


class LogChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one rank's output, starting at `offset`."""

    rank_id: str
    offset: int
    data: bytes


class ClaimState(StrEnum):
    """What became of a claim, as its provider sees it."""

    PENDING = "pending"  # ordered; some of its nodes are not there yet
    HELD = "held"  # all nodes are there
    STOPPED = "stopped"  # they rest with their disks
    PREEMPTED = "preempted"  # the provider took them away
    GONE = "gone"
    RELEASED = "released"  # our own release has returned


class ClaimFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a provider sees of one claim that is tagged ours."""

    claim_id: str
    state: ClaimState
    nodes: tuple[NodeSighting, ...] = ()
    detail: str = ""
    tag: str = ""  # of the claim that was ordered; "": not known whose it is


class NodeSighting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One machine of a claim. `address` is the provider's own handle for `reach`."""

    index: int
    address: str
    ip: str = "127.0.0.1"
    alive: bool = True
    facts: NodeFacts | None = None  # when the provider knows before the agent says
