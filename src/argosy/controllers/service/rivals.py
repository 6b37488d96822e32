"""Rules of other systems, for services that move here and want to be scaled as before. Pure.

Each answers as its original does from the same signals, in the original's order of steps, also where that
order has known faults: who wants better takes `target` or `work`.
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from argosy.controllers.service.wishes import Wished, largest, noted
from argosy.model.scaling import Memory, Policy, Seen, Target

HPA_STEP = 4  # pods that may always be added at once
KPA_GROWTH = 1000  # times the ready ones
EMPTY = 9.0  # what the ratio counts as where nothing runs


def hpa(policy: Policy, seen: Seen, memory: Memory) -> Wished:
    """Each metric over its target; at most double in one interval; down only to the window's largest."""
    current = seen.present
    wants = [_hpa_wish(policy, seen, target, current) for target in policy.targets] or [current]
    want = min(max(wants), max(current + HPA_STEP, 2 * current))
    memory = noted(memory, seen.now_ms, want, policy.hold_s)
    if want < current:
        want = min(current, largest(memory))
    return Wished(want, f"the metrics ask for {max(wants)}", memory)


def _hpa_wish(policy: Policy, seen: Seen, target: Target, current: int) -> int:
    if not seen.signals.get(target.signal):
        return current
    value = seen.mean(target.signal, policy.window_s)
    whole = target.value * current if target.each else target.value
    ratio = value / whole if whole else EMPTY
    if current and abs(ratio - 1) <= policy.tolerance:
        return current
    return math.ceil(value / target.value) if target.each else math.ceil(max(1, current) * ratio)


def kpa(policy: Policy, seen: Seen, memory: Memory) -> Wished:
    """Concurrency over a stable and a short window; in panic it only grows."""
    if not policy.targets:
        return Wished(seen.present, "there is no target", memory)
    target = policy.targets[0]
    ready = max(1, seen.ready)
    stable = _kpa_wish(seen, target, policy.window_s, ready)
    panic = _kpa_wish(seen, target, policy.panic_window_s, ready)
    if panic / ready >= policy.panic_factor:
        memory = replace(memory, panic_ms=seen.now_ms)
    elif memory.panic_ms and seen.now_ms - memory.panic_ms > policy.window_s * 1000:
        memory = replace(memory, panic_ms=0, panic_replicas=0)
    want = stable
    if memory.panic_ms:
        want = max(memory.panic_replicas, panic, seen.ready)
        memory = replace(memory, panic_replicas=want)
    if policy.hold_s:  # scale-down-delay
        memory = noted(memory, seen.now_ms, want, policy.hold_s)
        want = largest(memory)
    return Wished(
        want, f"{'panic' if memory.panic_ms else 'stable'}: {target.signal} asks for {want}", memory
    )


def _kpa_wish(seen: Seen, target: Target, window_s: float, ready: int) -> int:
    want = math.ceil(seen.mean(target.signal, window_s) / target.value)
    return min(max(want, ready // 2), ready * KPA_GROWTH)


def ray(policy: Policy, seen: Seen, memory: Memory) -> Wished:
    """Ongoing requests over the look-back window; a wish must last for its delay."""
    if not policy.targets:
        return Wished(seen.present, "there is no target", memory)
    target = policy.targets[0]
    current = max(1, seen.present)
    desired = seen.mean(target.signal, policy.window_s) / target.value
    want = max(policy.min_replicas, math.ceil(current + (desired - current)))
    direction = (want > current) - (want < current)
    if direction != memory.direction:
        memory = replace(memory, direction=direction, since_ms=seen.now_ms)
    delay_s = policy.up_delay_s if direction > 0 else policy.hold_s
    if direction and seen.now_ms - memory.since_ms >= delay_s * 1000:
        return Wished(
            want, f"{want} were asked for during {delay_s} s", replace(memory, since_ms=seen.now_ms)
        )
    return Wished(current, f"{want} are asked for; waits whether that lasts", memory)


def skyserve(policy: Policy, seen: Seen, memory: Memory) -> Wished:
    """Requests of the last minute; so many decisions in a row must agree."""
    if not policy.targets:
        return Wished(seen.present, "there is no target", memory)
    target = policy.targets[0]
    want = max(policy.min_replicas, math.ceil(seen.mean(target.signal, policy.window_s) / target.value))
    current = seen.present
    if current == 0:
        return Wished(want, f"{target.signal} asks for {want}", memory)
    ups = memory.ups + 1 if want > current else 0
    downs = memory.downs + 1 if want < current else 0
    up, down = (int(delay // policy.interval_s) for delay in (policy.up_delay_s, policy.hold_s))
    if (ups and ups >= up) or (downs and downs >= down):
        return Wished(want, f"{target.signal} asks for {want}", replace(memory, ups=0, downs=0))
    return Wished(
        current, f"{want} are asked for; waits whether that lasts", replace(memory, ups=ups, downs=downs)
    )
