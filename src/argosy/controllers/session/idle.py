"""When a session counts as unused, and when it is put to rest. Pure: decisions and views ask the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from argosy.model.facts import RankFact
from argosy.model.kinds.session import SessionStatus, session_spec, session_state
from argosy.model.rows import Workload
from argosy.model.tenancy import Resting, Tenancy
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


def limits_of(session: Workload, use: Use, tenancy: Tenancy, *, has_gpu: bool) -> list[Limit]:
    """All that would put it to rest, the next first; [] for one that stays."""
    idle, up_ms = session_spec(session).idle, session_state(session).up_ms
    if not up_ms:
        return []
    rules = _rules_for(session.queue, tenancy)
    given = [
        (_chosen(idle.after_s, rules, lambda rule: rule.idle_s), use.at_ms, "nobody used it"),
        (_chosen(idle.max_s, rules, lambda rule: rule.max_s), up_ms, "it was up"),
    ]
    if has_gpu:
        seconds = _chosen(idle.gpu_after_s, rules, lambda rule: rule.gpu_idle_s)
        given.append((seconds, use.gpu_ms, "its GPUs did nothing"))
    return sorted(_limit(session, since_ms, chosen, why) for chosen, since_ms, why in given if chosen.limit_s)


class _Chosen(NamedTuple):
    limit_s: int  # 0: never
    whose: str = ""  # rule it is; "": its own


def _rules_for(queue: str, tenancy: Tenancy) -> list[tuple[str, Resting]]:
    """The rules for sessions of a queue, the nearest first, each with whose it is."""
    known = {each.path: each.sessions for each in tenancy.queues if each.sessions is not None}
    found = []
    while queue:
        if queue in known:
            found.append((f"queue `{queue}`", known[queue]))
        queue = queue.rpartition("/")[0]
    return [*found, ("the pool", tenancy.sessions)] if tenancy.sessions is not None else found


def _chosen(
    own_s: int | None, rules: list[tuple[str, Resting]], of: Callable[[Resting], int | None]
) -> _Chosen:
    """The nearest that says something; a firm one further up holds where it is shorter."""
    chosen = None if own_s is None else _Chosen(own_s)
    for whose, rule in rules:
        said_s = of(rule)
        if said_s is None:
            continue
        if chosen is None or (rule.firm and said_s and (not chosen.limit_s or said_s < chosen.limit_s)):
            chosen = _Chosen(said_s, whose)
    return chosen or _Chosen(0)


def ends_then(session: Workload, tenancy: Tenancy) -> bool:
    """Whether it ends, and does not only rest, when nobody uses it."""
    if session_spec(session).idle.then == "end":
        return True
    said = (rule.then for _, rule in _rules_for(session.queue, tenancy))
    return next((then for then in said if then), "rest") == "end"


def _limit(session: Workload, since_ms: int, chosen: _Chosen, why: str) -> Limit:
    idle, snoozed_ms = session_spec(session).idle, session_state(session).snoozed_ms
    at_ms = max(since_ms + chosen.limit_s * 1000, snoozed_ms)
    text = f"{why} for {render_duration(chosen.limit_s)}"
    if chosen.whose:
        text += f", as {chosen.whose} says"
    return Limit(at_ms, at_ms - idle.warns_s(chosen.limit_s) * 1000, text)


def has_gpus(session: Workload) -> bool:
    """Whether it was given a GPU, or a part of one."""
    return any(wish.accelerator for wish in session_spec(session).task.resources)


def is_written(state: SessionStatus, use: Use, every_ms: int) -> bool:
    """Whether what is written down of its use is as new as other servers need it."""
    return use.at_ms - state.active_ms < every_ms and use.gpu_ms - state.gpu_active_ms < every_ms
