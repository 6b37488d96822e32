"""The `service` of a task: its probes, number of replicas, and rollout."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.model.scaling import Cron, Target, Trigger

#: How a replica is chosen; the first three are SkyPilot's words.
BALANCES: Final = (
    *("round_robin", "least_load", "instance_aware_least_load"),
    *("power_of_two", "consistent_hash", "prefix_aware", "least_work", "least_tokens"),
)
#: Those that weigh requests to language models: the number of replicas may follow that.
WEIGHING: Final = ("prefix_aware", "least_work", "least_tokens")
#: Commands whose programs come with the order of a replica: they serve a function, and files of models.
FUNCTIONS: Final = "argosy_function"
INFERENCE: Final = "argosy_inference"
#: By what replicas are spread: the parts of a place, the widest first.
SPREADS: Final = ("infra", "region", "zone")


class Probe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to see that a replica can take requests: it answers with a status from 200 to 299."""

    path: str = "/"
    body: str = ""  # sent as JSON by POST; "": a GET
    headers: dict[str, str] = {}  # may hold secrets: never shown
    start_ms: int = 1_200_000  # so long it may take until the first good answer
    timeout_ms: int = 15_000  # for one answer
    every_ms: int = 10_000
    failing_ms: int = 180_000  # a replica that was ready and fails for so long is replaced

    def __repr__(self) -> str:
        return f"Probe(path={self.path!r}, headers={sorted(self.headers)!r})"


class Replicas(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many replicas there are, and what that follows."""

    least: int = 1
    most: int = 1
    spare: int = 0  # on top of what the load needs
    qps_milli: dict[str, int] = {}  # requests/s x 1000 that one replica takes, by accelerator; "": any
    up_ms: int = 0  # more load must last so long
    down_ms: int = 300_000  # and less load so long
    formula: str = ""  # rule of scaling (`model.scaling.Formula`); "": the house's own
    targets: tuple[Target, ...] = ()  # that triggers give
    triggers: tuple[Trigger, ...] = ()  # whose values are fetched
    crons: tuple[Cron, ...] = ()
    on_demand: int = 0  # so many of them are on demand where the others are spot
    fallback: bool = False  # on demand in place of spot that cannot be had
    spread: str = ""  # one of SPREADS: the next one goes where fewest are; "": to the best place
    evade: bool = False  # spot ones keep away for a while from where a machine was taken back

    @property
    def is_fixed(self) -> bool:
        return self.least == self.most


class Serving(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `service` part of a task."""

    probe: Probe = Probe()
    replicas: Replicas = Replicas()
    balance: str = "least_load"
    port: int = 0  # on which its program listens as it is written; 0: where its environment says
    drain_ms: int = 600_000  # so long requests under way are waited for when a replica goes
    stream_ms: int = 0  # silence after which a streamed answer is given up; 0: never
    models: tuple[str, ...] = ()  # names that requests to language models say
    endpoint: str = ""  # that it shares with other services; "": it has one of its own only
    share_milli: int = 0  # of the requests there that name no model, in thousandths
    prefill: str = ""  # name of the service that reads the prompts of its requests
    bootstrap_port: int = 0  # at which those meet its replicas (SGLang); 0: vLLM's wire
    affinity: str = ""  # by what users are told apart: key, address, `header:NAME`, `cookie:NAME`
    hosts: tuple[str, ...] = ()  # in lower case: their requests at the gateway are for it
    grpc: bool = False  # gRPC for its hosts goes from the edge straight to the replicas
    keyfile: str = ""  # of its own certificate
    certfile: str = ""


class Strategy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the replicas of a new revision take over."""

    name: str = "rolling"
    surge: int = 0  # replicas beyond the wanted number meanwhile; 0: a quarter of it, at least 1
    steps: tuple[int, ...] = ()  # thousandths of the requests that go to a canary, one after the other
    bake_ms: int = 0  # each step lasts so long at least
    bake_requests: int = 0  # and until the canary has answered so many
    keep_ms: int = 600_000  # blue-green: the old replicas stay for so long, to return at once
    start_ms: int = 0  # the first replica of the revision must be ready by then; 0: as its probe says
    auto: bool = True  # it is promoted, or rolled back, by itself


ROLLING: Final = Strategy()


def canary_steps(first_percent: int) -> tuple[int, ...]:
    """Thousandths: the first step as asked for, then half and all.

    >>> canary_steps(10), canary_steps(60)
    ((100, 500, 1000), (600, 1000))
    """
    first = first_percent * 10
    return tuple(each for each in dict.fromkeys((first, max(first, 500), 1000)) if each >= first)
