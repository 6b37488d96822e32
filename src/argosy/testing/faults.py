"""Which faults a seed has, and how often. Swarm testing: each seed draws its own subset, because faults that
are always on together hide each other (Groce et al., "Swarm Testing", ISSTA 2012)."""

from __future__ import annotations

import random
from typing import Final

import msgspec


class SimCrash(BaseException):
    """The server process is killed here. Not an `Exception`: nothing may handle it."""


class Faults(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Probabilities are per call, rates per virtual hour. All zero: a friendly world."""

    provider_error: float = 0.0  # a call to a provider fails before it has an effect
    provider_lost_reply: float = 0.0  # ... fails after it had its effect
    agent_error: float = 0.0
    agent_lost_reply: float = 0.0
    slow_call: float = (
        0.0  # a call is under way for long before it has its effect: late repeats of another server
    )
    duplicate: float = 0.0  # an effect is delivered twice
    stale_listing: float = 0.0  # `observe` tells of the past
    partial_listing: float = 0.0  # `observe` leaves out what it should list
    listing_lag_s: float = 0.0  # what is new is not listed for so long
    forgets_releases: float = 0.0  # 1.0: a released claim can be ordered again (a late repeat leaks)
    capacity_miss: float = 0.0
    preemptions_per_h: float = 0.0
    notice: float = 0.0  # share of preemptions that are announced, to the machine or by SIGTERM
    node_deaths_per_h: float = 0.0
    agent_deaths_per_h: float = 0.0
    partitions_per_h: float = 0.0  # a node is unreachable for a while, and works on
    slow_boot: float = 0.0
    failed_boot: float = 0.0
    watch_cut: float = 0.0  # per batch of news
    watch_repeat: float = 0.0  # per batch: it comes twice
    clock_jumps_per_h: float = 0.0
    crash: float = 0.0  # per commit or effect
    store_busy: float = 0.0  # a commit is refused for the moment
    servers: int = 1
    price_moves_per_h: float = 0.0
    agent_dies_at_start: float = 0.0  # per start of a rank: its agent is killed in that moment
    replacements_per_h: float = 0.0  # the state folder of a server is replaced while it runs
    clock_drift: float = 0.0  # how much faster or slower than ours the clock of a machine runs, at most
    wall_off_h: float = 0.0  # how much the wall clock of a machine is wrong, at most, in hours
    client_deaths: float = 0.0  # per submission: the client is gone before it is answered
    hosts_close_per_h: float = (
        0.0  # a named machine of ours takes nothing new for a while: what runs there stays
    )


NONE: Final = Faults()

#: Full strength of each fault; a seed takes each with probability 0.4, weakened by a random factor.
_FULL: Final[dict[str, float]] = {
    "provider_error": 0.25,
    "provider_lost_reply": 0.25,
    "agent_error": 0.15,
    "agent_lost_reply": 0.15,
    "slow_call": 0.1,
    "duplicate": 0.3,
    "stale_listing": 0.3,
    "partial_listing": 0.1,
    "listing_lag_s": 45.0,
    "capacity_miss": 0.5,
    "preemptions_per_h": 8.0,
    "notice": 1.0,
    "node_deaths_per_h": 3.0,
    "agent_deaths_per_h": 6.0,
    "partitions_per_h": 6.0,
    "slow_boot": 0.5,
    "failed_boot": 0.15,
    "watch_cut": 0.1,
    "watch_repeat": 0.2,
    "clock_jumps_per_h": 4.0,
    "crash": 0.03,
    "store_busy": 0.05,
    "price_moves_per_h": 6.0,
}

#: The same for faults that came later: dice of their own, so that the seeds of before keep their draws.
_FULL_LATER: Final[dict[str, float]] = {
    "agent_dies_at_start": 0.25,
    "replacements_per_h": 6.0,
    "client_deaths": 0.5,
    "clock_drift": 0.04,
    "hosts_close_per_h": 8.0,
    "wall_off_h": 2.0,
}


def draw_faults(seed: int) -> Faults:
    """The faults of a seed. Seeds divisible by 16 have none: the plain world must work too.

    >>> draw_faults(16) == NONE
    True
    """
    if seed % 16 == 0:
        return NONE
    dice = random.Random(f"{seed}:faults")
    drawn = _draw(dice, _FULL)
    forgets = float(dice.random() < 0.3)
    servers = 2 if dice.random() < 0.3 else 1
    later = _draw(random.Random(f"{seed}:later faults"), _FULL_LATER)
    return msgspec.convert({**drawn, **later, "forgets_releases": forgets, "servers": servers}, Faults)


def _draw(dice: random.Random, strengths: dict[str, float]) -> dict[str, float]:
    return {name: full * dice.uniform(0.2, 1.0) for name, full in strengths.items() if dice.random() < 0.4}
