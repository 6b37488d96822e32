"""How many replicas a service wants: the policy that a user gives and what was measured. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

#: Signals that every service has; any other name is a trigger's own. `Seen.signals` has one value a second.
REQUESTS: Final = "requests"  # that arrived, per second
CONCURRENCY: Final = "concurrency"  # in flight and held, mean over the second
QUEUE: Final = "queue"  # held by gateways
LATENCY: Final = "latency"  # seconds until the first byte, 95th percentile
TOKENS: Final = "tokens"  # of prompts and answers, per second
GPU: Final = "gpu"  # per cent of one device, mean of all
CPU: Final = "cpu"  # per cent of what was asked for, mean of all
WORK: Final = "work"  # replica-seconds of work that arrived, per second


class Formula(StrEnum):
    """Which rule makes a number of replicas of the signals."""

    TARGET = "target"  # for each target what it needs now; the largest counts
    WORK = "work"  # replica-seconds of work that arrive, from their recent past; other targets beside it
    HPA = "hpa"  # as the Kubernetes horizontal pod autoscaler, and KEDA's scaled objects
    KPA = "kpa"  # as Knative's autoscaler
    RAY = "ray-serve"  # as Ray Serve
    SKYSERVE = "skyserve"  # as SkyServe


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One signal and what it should be."""

    signal: str
    value: float  # > 0; `each`: so much of the total for each replica; otherwise what it should itself be
    each: bool = True  # False: a mean over replicas (latency, utilisation); replicas grow in proportion
    activation: float = 0.0  # above it, strictly, the service leaves zero
    trigger: str = ""  # as the user's file calls it, for explanations


class Cron(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """At least so many replicas from one time of the calendar to another."""

    start: str  # five fields
    end: str
    replicas: int
    timezone: str = "UTC"


class Trigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A number outside of the service that has to be fetched. Its values are a signal of its name."""

    kind: str  # as KEDA calls it
    name: str
    target: float  # so much of it for each replica
    activation: float = 0.0
    metadata: dict[str, str] = {}  # where it is, in KEDA's words


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a service grows and shrinks. Everything has a default that suits one that answers requests."""

    min_replicas: int = 1
    max_replicas: int = 1  # equal to `min_replicas`: a fixed number
    formula: Formula = Formula.WORK
    targets: tuple[Target, ...] = ()
    crons: tuple[Cron, ...] = ()
    spare: int = 0  # warm replicas above what is needed, while there is traffic
    window_s: int = 60  # signals are means over it
    panic_window_s: int = 6  # ... or over this, where that asks for more
    panic_factor: float = 2.0  # KPA: so many times the ready ones are a panic
    growth: float = 3.0  # at most so many times those that are there are wanted at once, however long a queue
    up_delay_s: int = 0  # a wish for more must last so long
    hold_s: int = 300  # fewer only when nothing in this time asked for more
    idle_s: int = 300  # without any request, then zero (where `min_replicas` is 0)
    tolerance: float = 0.1  # a proportional target that is so near is met
    interval_s: float = 2.0  # between two decisions
    fallback_replicas: int = 0  # while a target's signal has no value; 0: as many as there are
    quantile: float = 0.95  # WORK: of the recent past's demand
    utilisation: float = 1.0  # WORK: of a replica's time that is planned for
    history_s: int = 600  # WORK: the recent past
    slack_s: float = 5.0  # WORK: how long a request may wait


#: How the systems are set whose rules are offered here, unless their users say otherwise.
PRESETS: Final = {
    Formula.TARGET: Policy(formula=Formula.TARGET),
    Formula.WORK: Policy(formula=Formula.WORK),
    Formula.HPA: Policy(formula=Formula.HPA, interval_s=15.0, window_s=1),
    Formula.KPA: Policy(formula=Formula.KPA, hold_s=0),
    Formula.RAY: Policy(formula=Formula.RAY, interval_s=1.0, window_s=30, up_delay_s=30, hold_s=600),
    Formula.SKYSERVE: Policy(formula=Formula.SKYSERVE, interval_s=20.0, up_delay_s=300, hold_s=1200),
}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one service until now. Lists are read only, and not kept."""

    now_ms: int
    ready: int
    starting: int = 0  # ordered, or up and not ready yet
    held: int = 0  # requests that gateways hold now
    held_work_s: float = 0.0  # replica-seconds that they will take
    cold_start_s: float = 30.0  # from the order to the first answer, as it was lately
    active_ms: int = 0  # when the last request was in flight, or the newest replica became ready
    signals: Mapping[str, Sequence[float]] = {}  # by name, one value a second, the newest last

    @property
    def present(self) -> int:
        return self.ready + self.starting

    def mean(self, signal: str, seconds: float) -> float:
        """Over the last seconds, or as many as there are; 0 without any."""
        values = self.signals.get(signal, ())
        count = max(1, min(int(seconds), len(values)))
        return sum(values[-count:]) / count if values else 0.0

    def last(self, signal: str) -> float:
        values = self.signals.get(signal, ())
        return values[-1] if values else 0.0


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A number of replicas that was wanted at a time."""

    at_ms: int
    replicas: int


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a policy remembers between two decisions. A fresh one is always right, only more careful."""

    replicas: int = -1  # the last answer; -1: none yet
    why: str = ""
    decided_ms: int = 0
    began_ms: int = 0  # of the first decision
    wishes: tuple[Wish, ...] = ()  # each larger than all after it: the first is the largest of the window
    active_ms: int = 0  # when there last was anything to do
    panic_ms: int = 0  # KPA: when demand last was far above what is ready; 0: it is not
    panic_replicas: int = 0  # KPA: the most that was wanted since
    grown_ms: int = 0  # when targets last made it larger
    direction: int = 0  # of the last wish: 1 more, -1 fewer
    since_ms: int = 0  # of this direction
    ups: int = 0  # decisions in a row
    downs: int = 0


class Scaled(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a policy."""

    replicas: int
    why: str  # a sentence for people
    memory: Memory
    again_ms: int  # when to ask again
