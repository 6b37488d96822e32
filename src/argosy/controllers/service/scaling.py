"""How many replicas a service should have now. Pure.

`wanted_replicas` asks the rule of the policy, and then sees to what holds for all of them: times of the
calendar, zero, spare replicas, bounds. Replicas that start count as present; a signal without a value never
makes a service smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from argosy.controllers.service import rivals, work
from argosy.controllers.service.wishes import Wished, largest, noted
from argosy.model.calendar import is_between
from argosy.model.scaling import (
    CONCURRENCY,
    QUEUE,
    REQUESTS,
    WORK,
    Formula,
    Memory,
    Policy,
    Scaled,
    Seen,
    Target,
)

FRESH: Final = Memory()
SMALL: Final = 4  # so many replicas may always be ordered at once
GROWTH_MS: Final = 15_000  # between two orders by targets that say nothing of work
AT_ZERO_MS: Final = 100  # how soon a service at zero is looked at again


def wanted_replicas(policy: Policy, seen: Seen, memory: Memory = FRESH) -> Scaled:
    """The number of replicas that should be there or on their way, those that drain not counted, and why.

    Keep `memory` of the answer for the next call; calls before the next interval repeat the last answer.
    """
    interval_ms = int(policy.interval_s * 1000)
    if not is_due(policy, memory, seen.now_ms, seen.held):
        again_ms = memory.decided_ms + interval_ms
        return Scaled(replicas=memory.replicas, why=memory.why, memory=memory, again_ms=again_ms)
    memory = replace(
        memory, began_ms=memory.began_ms or seen.now_ms, active_ms=memory.active_ms or seen.now_ms
    )
    if _is_active(policy, seen):
        memory = replace(memory, active_ms=seen.now_ms)
    wished = _wished(policy, seen, memory)
    wished = _bounded(policy, seen, wished)
    memory = replace(wished.memory, replicas=wished.replicas, why=wished.why, decided_ms=seen.now_ms)
    if wished.replicas > seen.present:
        memory = replace(memory, grown_ms=seen.now_ms)
    again = AT_ZERO_MS if wished.replicas == 0 else interval_ms
    return Scaled(replicas=wished.replicas, why=wished.why, memory=memory, again_ms=seen.now_ms + again)


def is_due(policy: Policy, memory: Memory, now_ms: int, held: int) -> bool:
    """Whether there is anything to decide: the interval is over, somebody waits for a service at zero, or the
    bounds have changed."""
    if memory.replicas < 0 or now_ms >= memory.decided_ms + int(policy.interval_s * 1000):
        return True
    if held > 0 and memory.replicas == 0:
        return True
    most = max(policy.max_replicas, policy.min_replicas)
    return not policy.min_replicas <= memory.replicas <= most


def _wished(policy: Policy, seen: Seen, memory: Memory) -> Wished:
    if policy.min_replicas >= policy.max_replicas and not policy.crons:
        return Wished(policy.min_replicas, "the number of replicas is fixed", memory)
    missing = _missing(policy, seen)
    if missing and policy.fallback_replicas:
        return Wished(policy.fallback_replicas, f"{_name(missing)} has no value", memory)
    return RULES[policy.formula](policy, seen, memory)


def _by_targets(policy: Policy, seen: Seen, memory: Memory) -> Wished:
    return _steady(policy, seen, _needs(policy, seen, memory))


def _needs(policy: Policy, seen: Seen, memory: Memory) -> Wished:
    """For each target what it needs; a burst counts at once."""
    wish, why = needed(policy, seen, policy.window_s)
    burst, burst_why = needed(policy, seen, policy.panic_window_s)
    if burst > wish:
        wish, why = burst, f"{burst_why} (a burst)"
    grows = seen.now_ms - memory.grown_ms >= GROWTH_MS
    most = max(SMALL, math.ceil(policy.growth * seen.present)) if grows else seen.present
    if wish > most:
        wish, why = most, f"{why}; no more at once"
    return Wished(wish, why, memory)


def _by_work(policy: Policy, seen: Seen, memory: Memory) -> Wished:
    """By the work that arrives; targets that say nothing of work count beside it."""
    rest = tuple(target for target in policy.targets if target.signal != REQUESTS)
    weighs = len(rest) < len(policy.targets) or WORK in seen.signals or not rest
    if not rest:
        return _steady(policy, seen, Wished(*work.needed(policy, seen), memory))
    wished = _needs(replace(policy, targets=rest), seen, memory)
    if weighs:
        wish, why = work.needed(policy, seen)
        wished = Wished(wish, why, wished.memory) if wish > wished.replicas else wished
    return _steady(policy, seen, wished)


def needed(policy: Policy, seen: Seen, window_s: float) -> tuple[int, str]:
    """(replicas, why) of the target that needs the most."""
    wants = [_needed_by(target, policy, seen, window_s) for target in policy.targets]
    return max(wants, key=lambda want: want[0]) if wants else (seen.present, "there is no target")


def _needed_by(target: Target, policy: Policy, seen: Seen, window_s: float) -> tuple[int, str]:
    name = _name(target)
    if not seen.signals.get(target.signal):
        return seen.present, f"{name} has no value"
    value = seen.mean(target.signal, window_s)
    if target.each:
        return math.ceil(value / target.value - 1e-9), f"{name} is {value:.4g}, {target.value:.4g} each"
    ratio = value / target.value
    if abs(ratio - 1) <= policy.tolerance:
        return seen.present, f"{name} is {value:.4g}, as wanted"
    # What starts does not carry load yet: a mean over the ready ones says nothing of it.
    grown = math.ceil(max(1, seen.ready) * ratio - 1e-9)
    return grown, f"{name} is {value:.4g} instead of {target.value:.4g}"


def _steady(policy: Policy, seen: Seen, wished: Wished) -> Wished:
    """More only after `up_delay_s`, fewer only when nothing asked for more in `hold_s`."""
    wish, why, memory = wished
    if seen.now_ms - memory.began_ms < policy.hold_s * 1000:
        wish = max(wish, seen.present)  # no full history yet: nothing is given back on ignorance
    memory = noted(memory, seen.now_ms, wish, policy.hold_s)
    if wish > seen.present:
        since = memory.since_ms if memory.direction > 0 else seen.now_ms
        memory = replace(memory, direction=1, since_ms=since)
        if seen.present and seen.now_ms - since < policy.up_delay_s * 1000:
            return Wished(seen.present, f"{why}; waits whether that lasts", memory)
        return Wished(wish, why, memory)
    memory = replace(memory, direction=0, since_ms=0)
    held = min(seen.present, largest(memory))
    if held > wish:
        return Wished(held, f"{why}; {held} were needed in the last {policy.hold_s} s", memory)
    return Wished(wish, why, memory)


def _bounded(policy: Policy, seen: Seen, wished: Wished) -> Wished:
    """Calendar, zero, spare ones and bounds, in this order."""
    wish, why, memory = wished
    for cron in policy.crons:
        if cron.replicas > wish and is_between(cron, seen.now_ms):
            wish, why = cron.replicas, f"the calendar asks for {cron.replicas} from '{cron.start}'"
    most = max(policy.max_replicas, policy.min_replicas)
    if policy.min_replicas == 0:
        wish, why = _near_zero(policy, seen, Wished(wish, why, memory))
    if policy.spare and wish > 0 and _is_active(policy, seen):
        wish, why = wish + policy.spare, f"{why}; {policy.spare} spare"
    if wish > most:
        return Wished(most, f"{why}; {most} is the maximum", memory)
    if wish < policy.min_replicas:
        return Wished(policy.min_replicas, f"{why}; {policy.min_replicas} is the minimum", memory)
    return Wished(wish, why, memory)


def _near_zero(policy: Policy, seen: Seen, wished: Wished) -> tuple[int, str]:
    """The last replica goes when nothing was asked for in `idle_s`; never one that still starts."""
    if _is_active(policy, seen):
        return max(1, wished.replicas), "requests wait" if seen.held else wished.why
    if seen.present == 0:
        return 0, (wished.memory.why if wished.memory.replicas == 0 else "nothing is asked of it")
    if seen.starting and not seen.ready:
        return max(1, wished.replicas), "the first replica starts"
    idle_ms = seen.now_ms - max(wished.memory.active_ms, seen.active_ms)
    if idle_ms >= policy.idle_s * 1000:
        return 0, f"nothing was asked of it for {policy.idle_s} s"
    return max(1, wished.replicas), f"idle for {idle_ms // 1000} s of {policy.idle_s} s"


def _is_active(policy: Policy, seen: Seen) -> bool:
    """Whether there is anything to do."""
    if seen.held or any(seen.last(signal) > 0 for signal in (REQUESTS, CONCURRENCY, QUEUE)):
        return True
    if policy.fallback_replicas and _missing(policy, seen):
        return True
    asked = any(seen.last(target.signal) > target.activation for target in policy.targets)
    return asked or any(is_between(cron, seen.now_ms) for cron in policy.crons)


def _missing(policy: Policy, seen: Seen) -> Target | None:
    """The first target whose signal has no value now."""
    return next((target for target in policy.targets if not seen.signals.get(target.signal)), None)


def _name(target: Target) -> str:
    return f"'{target.trigger or target.signal}'"


Rule = Callable[[Policy, Seen, Memory], Wished]

RULES: Final[Mapping[Formula, Rule]] = {
    Formula.TARGET: _by_targets,
    Formula.WORK: _by_work,
    Formula.HPA: rivals.hpa,
    Formula.KPA: rivals.kpa,
    Formula.RAY: rivals.ray,
    Formula.SKYSERVE: rivals.skyserve,
}
