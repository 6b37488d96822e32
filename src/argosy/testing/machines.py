"""What a simulated machine is: its state, its ranks, and what their programs do."""

from __future__ import annotations

import asyncio

import msgspec

from argosy.infra.agent_port import RankOrder
from argosy.model.facts import NodeFacts, RankFact


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What a simulated shell text does: `sim work_s=300 exit=0 checkpoint_s=30`. Other texts end at once with
    0."""

    work_s: float = 0.0
    exit: int = 0
    checkpoint_s: float = 0.0  # progress is kept every so many seconds; 0: never
    fails: int = 0  # so many first attempts fail ...
    fail_s: float = 1.0  # ... after this long ...
    fail_code: int = 1  # ... with this code ...
    fail_rank: int = -1  # ... of this rank (-1: of all)
    ignores_term: int = 0
    log_bytes: int = 0

    @classmethod
    def parse(cls, text: str) -> Program:
        """
        >>> Program.parse("sim work_s=3 exit=7").exit
        7
        """
        words = text.split()
        if not words or words[0] != "sim":
            return cls()
        return msgspec.convert(dict(word.split("=", 1) for word in words[1:]), cls, strict=False)


class SimRank:
    """One rank on the disk and in the process table of a machine."""

    def __init__(self, order: RankOrder, fact: RankFact) -> None:
        self.order = order
        self.fact = fact
        self.log = bytearray()
        self.timers: list[asyncio.TimerHandle] = []
        self.run_wanted = order.run_now
        self.began_s = 0.0  # when it last started to run
        self.lease_timer: asyncio.TimerHandle | None = None
        self.lease_until_ms = 0
        self.lapsed = False
        self.from_s = 0.0  # progress it started with

    def cancel_timers(self) -> None:
        """Nothing happens to it by itself any more."""
        if self.lease_timer is not None:
            self.lease_timer.cancel()
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class Machine:
    """One node of a claim. `state`: booting, up, stopped, dead."""

    def __init__(self, provider: str, claim_id: str, index: int, facts: NodeFacts) -> None:
        self.provider = provider
        self.claim_id = claim_id
        self.index = index
        self.facts = facts
        self.address = f"{claim_id}/{index}"
        self.state = "booting"
        self.agent_alive = False
        self.is_partitioned = False
        self.trouble_s = 0.0  # when it was last not reachable
        self.ranks: dict[str, SimRank] = {}
        self.forgotten: set[str] = set()  # ids that must not come back
        self.newest: dict[str, int] = {}  # job id → the newest of its attempts that was ordered here
        self.watchers: dict[asyncio.Event, None] = {}  # in order of arrival: sets of objects have none
        self.chunks: set[str] = set()
        self.trees: dict[str, bytes] = {}
        self.placed: dict[str, str] = {}  # target → digest of the tree there
        self.data: dict[str, tuple[str, ...]] = {}  # target → objects that are files there
        self.has_fuse = True
        self.mounted: dict[str, str] = {}  # target → bucket and folder
        self.keys: dict[str, float] = {}  # target → when the keys of its mount end
        self.written: tuple[str, ...] = ()  # what its programs leave to be sent, of one byte each
        self.boot_timer: asyncio.TimerHandle | None = None
        self.rate = 1.0  # how fast its clock runs
        self.wall_off_ms = 0  # how much its wall clock is ahead
        self.boots = 0
        self.returns = False  # after it died it boots again, with its disk

    def clock_ms(self, now_s: float) -> int:
        """Its own clock, which nobody sets."""
        return int(now_s * self.rate * 1000) + 1

    @property
    def answers(self) -> bool:
        return self.state == "up" and self.agent_alive and not self.is_partitioned

    def notify(self) -> None:
        for event in self.watchers:
            event.set()
