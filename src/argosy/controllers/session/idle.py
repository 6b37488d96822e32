"""When a session counts as unused, and when it is put to rest. Pure: decisions and views ask the same."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from argosy.model.facts import RankFact
from argosy.model.kinds.session import SessionStatus, session_spec, session_state
from argosy.model.rows import Workload
from argosy.model.units import render_duration

#: So often people may ask for more time until the session is used again.
SNOOZES_MAX: Final = 5


class Seen(Protocol):
    """Of what was observed, what idleness depends on."""

    def used(self, subject: str) -> tuple[int, str]: ...

    def gpu_used_ms(self, node_id: str) -> int: ...


class Use(NamedTuple):
    """When a session was last used, and by what; when its GPUs were."""

    at_ms: int
    by: str
    gpu_ms: int


class Limit(NamedTuple):
    """When a session is put to rest if nothing happens, since when people are warned, and why."""

    at_ms: int
    warn_ms: int
    why: str


def last_use(session: Workload, fact: RankFact | None, seen: Seen, node_id: str = "") -> Use:
    """The newest of what is written down, what went through the server and what the node saw. Where it tells
    whose programs use a GPU, only those of the session count; else whatever its node's GPUs do."""
    state = session_state(session)
    found = [(state.up_ms, "start"), (state.active_ms, state.active_by), seen.used(session.id)]
    gpu_ms = max(state.up_ms, state.gpu_active_ms)
    if fact is not None:
        found.append((fact.active_ms, fact.active_by))
        gpu_ms = max(gpu_ms, fact.gpu_active_ms)
    if node_id and not (fact is not None and fact.gpu_active_ms):
        gpu_ms = max(gpu_ms, seen.gpu_used_ms(node_id))
    at_ms, by = max(found, key=lambda each: each[0])
    return Use(at_ms, by, gpu_ms)


def limits_of(session: Workload, use: Use, *, has_gpu: bool) -> list[Limit]:
    """All that would put it to rest, the next first; [] for one that stays."""
    idle, up_ms = session_spec(session).idle, session_state(session).up_ms
    if not up_ms:
        return []
    found = []
    if idle.after_s is not None:
        found.append(_limit(session, use.at_ms, idle.after_s, "nobody used it"))
    if idle.gpu_after_s is not None and has_gpu:
        found.append(_limit(session, use.gpu_ms, idle.gpu_after_s, "its GPUs did nothing"))
    if idle.max_s is not None:
        found.append(_limit(session, up_ms, idle.max_s, "it was up"))
    return sorted(found)


def _limit(session: Workload, since_ms: int, limit_s: int, why: str) -> Limit:
    idle, snoozed_ms = session_spec(session).idle, session_state(session).snoozed_ms
    at_ms = max(since_ms + limit_s * 1000, snoozed_ms)
    text = f"{why} for {render_duration(limit_s)}"
    return Limit(at_ms, at_ms - idle.warns_s(limit_s) * 1000, text)


def has_gpus(session: Workload) -> bool:
    """Whether it was given a GPU, or a part of one."""
    return any(wish.accelerator for wish in session_spec(session).task.resources)


def is_written(state: SessionStatus, use: Use, every_ms: int) -> bool:
    """Whether what is written down of its use is as new as other servers need it."""
    return use.at_ms - state.active_ms < every_ms and use.gpu_ms - state.gpu_active_ms < every_ms
