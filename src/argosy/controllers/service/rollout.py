"""The way from one revision to another: how many replicas of each, and who gets which part of the
requests. Pure.

    progressing → (paused) → baking → promoted
         └──────────┴──────────┴────→ rolling-back → rolled-back

The old revision stays until the new one is good: nothing of it is taken out before as many new replicas
answer, and a new revision that gets no machines, or never becomes ready, changes nothing for whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from argosy.controllers.service.draft import Draft
from argosy.controllers.service.judging import carried, judge
from argosy.controllers.service.target import target_of
from argosy.model.kinds.service import ReplicaState, Revision, Rollout, RolloutPhase
from argosy.model.serving import Strategy
from argosy.model.units import many

WHOLE: Final = 1000  # thousandths
_BAKE_MS: Final = 300_000  # of a step of a canary, unless the user says otherwise
_P = RolloutPhase

Wanted = dict[int, int]  # replicas, by revision


def steer(draft: Draft) -> Wanted:
    """How many replicas of which revision there are to be."""
    rollout = _current(draft)
    draft.rollout = rollout
    if rollout is None or rollout.is_over:
        return _steady(draft)
    new = draft.revision(rollout.new)
    assert new is not None
    if rollout.old == 0:
        return _first(draft, rollout, new)
    if rollout.phase is _P.ROLLING_BACK:
        return _back(draft, rollout)
    if why := judge(draft, rollout, new):
        return _begin_back(draft, rollout, why, remember=True)
    draft.floor = max(1, target_of(draft, new))
    return _with_others(draft, rollout, _STRATEGIES[new.strategy.name](draft, rollout, new))


def _with_others(draft: Draft, rollout: Rollout, wanted: Wanted) -> Wanted:
    """Replicas of a revision that was on its way before this one stay until enough others answer, with their
    share of the requests."""
    two = draft.ready(rollout.old) + draft.ready(rollout.new)
    kept = _kept_of_others(draft, rollout, draft.floor - two)
    if not kept or draft.rollout is None or draft.rollout.is_over:
        return wanted
    _share_with(draft, kept, two)
    return {**wanted, **kept}


def _others(draft: Draft, rollout: Rollout) -> set[int]:
    return {each.revision for each in draft.replicas} - {rollout.old, rollout.new}


def _kept_of_others(draft: Draft, rollout: Rollout, missing: int) -> Wanted:
    """Of other revisions, the newest first, as many that answer as are `missing`."""
    kept: Wanted = {}
    for number in sorted(_others(draft, rollout), reverse=True):
        count = max(0, min(draft.ready(number), missing - sum(kept.values())))
        if count:
            kept[number] = count
    return kept


def _share_with(draft: Draft, kept: Wanted, ready: int) -> None:
    """Gives those that are `kept` their share of the requests, beside `ready` ones that had all of them."""
    total = ready + sum(kept.values())
    part = WHOLE * ready // total
    weights = [(number, weight * part // WHOLE) for number, weight in draft.weights]
    weights += [(number, WHOLE * count // total) for number, count in kept.items()]
    number, weight = weights[-1]
    weights[-1] = (number, weight + WHOLE - sum(each for _, each in weights))
    draft.weights = tuple(weights)


def _current(draft: Draft) -> Rollout | None:
    """The rollout that is under way, begun or turned when the wanted revision is another."""
    spec, rollout = draft.spec, draft.rollout
    if rollout is not None and rollout.new == spec.wanted:
        return rollout
    if spec.wanted == draft.serves:
        if rollout is None or rollout.is_over:
            return rollout
        return _turned(draft, rollout, "asked to go back")
    if rollout is not None and not rollout.is_over and rollout.old:
        draft.tell("rollout-superseded", f"revision {rollout.new} makes way for revision {spec.wanted}")
    draft.tell(
        "rollout",
        f"revision {spec.wanted} is to serve" + (f" instead of {draft.serves}" if draft.serves else ""),
    )
    return Rollout(old=draft.serves, new=spec.wanted, since_ms=draft.now_ms, began_ms=draft.now_ms)


def _turned(draft: Draft, rollout: Rollout, why: str) -> Rollout:
    if rollout.phase is _P.ROLLING_BACK:
        return rollout
    return msgspec.structs.replace(rollout, phase=_P.ROLLING_BACK, since_ms=draft.now_ms, why=why)


# -- without a way to go ----------------------------------------------------------------------------


def _steady(draft: Draft) -> Wanted:
    revision = draft.revision(draft.serves)
    if revision is None:
        return {}
    draft.floor = count = target_of(draft, revision)
    draft.weights = ((revision.number, WHOLE),)
    return {revision.number: count}


def _first(draft: Draft, rollout: Rollout, new: Revision) -> Wanted:
    """The first revision that is any good serves."""
    count = max(1, target_of(draft, new))
    draft.weights = ((new.number, WHOLE),)
    if draft.ready(new.number):
        draft.serves = new.number
        _promote(draft, rollout)
    return {new.number: count}


def _promote(draft: Draft, rollout: Rollout) -> None:
    draft.serves = rollout.new
    draft.rollout = msgspec.structs.replace(rollout, phase=_P.PROMOTED, since_ms=draft.now_ms, why="")
    draft.tell("promoted", f"revision {rollout.new} serves")


def _share(draft: Draft, rollout: Rollout, thousandths: int) -> None:
    """The new revision gets so much of the requests, if anybody of it is ready; all if of it alone."""
    new, old = draft.ready(rollout.new), draft.ready(rollout.old)
    if not new:
        thousandths = 0
    elif not old:
        thousandths = WHOLE
    draft.weights = ((rollout.old, WHOLE - thousandths), (rollout.new, thousandths))


# -- strategies -------------------------------------------------------------------------------------


def _rolling(draft: Draft, rollout: Rollout, new: Revision) -> Wanted:
    """A few new ones at a time, and as many old ones out as new ones are ready."""
    count = target_of(draft, new)
    ready, old = draft.settled(rollout.new), len(draft.of(rollout.old))
    surge = new.strategy.surge or max(1, count // 4)
    keep = max(0, max(count, 1) - ready)
    fresh = draft.ready(rollout.new)
    both = fresh + draft.ready(rollout.old)
    _share(draft, rollout, WHOLE * fresh // both if both else 0)
    if ready >= max(1, count):
        _promote(draft, rollout)
        return {rollout.new: max(1, count)}
    room = max(count, 1) + surge - min(old, keep)
    return {rollout.old: min(old, keep), rollout.new: max(1, min(max(count, 1), room))}


def _canary(draft: Draft, rollout: Rollout, new: Revision) -> Wanted:
    """Step by step; each step lasts a while and must have seen some requests."""
    strategy = new.strategy
    steps = strategy.steps or (100, 500, WHOLE)
    if draft.spec.promote == new.number:
        rollout = msgspec.structs.replace(rollout, step=len(steps) - 1)
    step = min(rollout.step, len(steps) - 1)
    weight = steps[step]
    if weight >= WHOLE:
        draft.rollout = rollout
        return _rolling(draft, rollout, _quick(new))
    count = target_of(draft, new)
    wanted = max(1, -(-count * weight // WHOLE))
    ready = draft.settled(rollout.new)
    before = steps[step - 1] if step else 0
    _share(draft, rollout, weight if ready >= wanted else before)
    keep = count if ready < wanted else max(1, -(-count * (WHOLE - weight) // WHOLE))
    draft.rollout = _baked(draft, rollout, strategy, is_full=ready >= wanted)
    return {rollout.old: max(keep, min(1, count)), rollout.new: wanted}


def _quick(revision: Revision) -> Revision:
    """As in the last step: all that is missing at once."""
    count = max(revision.serving.replicas.most, 1)
    return msgspec.structs.replace(revision, strategy=msgspec.structs.replace(revision.strategy, surge=count))


def _baked(draft: Draft, rollout: Rollout, strategy: Strategy, *, is_full: bool) -> Rollout:
    """The rollout after a look at the step: it begins, goes on, or is over."""
    if not is_full:
        if rollout.phase is _P.PROGRESSING:
            return rollout
        return msgspec.structs.replace(rollout, phase=_P.PROGRESSING, since_ms=draft.now_ms)
    if rollout.phase is _P.PROGRESSING:
        rollout = msgspec.structs.replace(rollout, phase=_P.BAKING, since_ms=draft.now_ms, why="")
    due_ms = rollout.since_ms + (strategy.bake_ms or _BAKE_MS)
    if draft.now_ms < due_ms:
        draft.wake(min(due_ms, draft.now_ms + 10_000))
        return rollout
    seen = _requests(draft, rollout.new)
    if seen < strategy.bake_requests:
        draft.wake(draft.now_ms + 10_000)
        text = f"answered: {many(seen, 'request')}; the next step begins after {strategy.bake_requests}"
        return msgspec.structs.replace(rollout, why=text)
    if not strategy.auto:
        text = "`argosy serve promote` lets it go on"
        return msgspec.structs.replace(rollout, phase=_P.PAUSED, why=text)
    return msgspec.structs.replace(
        carried(draft, rollout), step=rollout.step + 1, phase=_P.PROGRESSING, since_ms=draft.now_ms, why=""
    )


def _requests(draft: Draft, revision: int) -> int:
    fact = draft.view.observed.served(draft.row.id)
    count = fact.counts.get(revision) if fact is not None else None
    return count.requests if count is not None else 0


def _blue_green(draft: Draft, rollout: Rollout, new: Revision) -> Wanted:
    """All of the new ones beside the old, then all requests at once; the old ones stay warm for a while."""
    count = max(1, target_of(draft, new))
    wanted = {rollout.old: count, rollout.new: count}
    if rollout.phase is _P.PROGRESSING and draft.settled(rollout.new) < count:
        _share(draft, rollout, 0)
        return wanted
    if rollout.phase is _P.PROGRESSING:
        rollout = msgspec.structs.replace(rollout, phase=_P.BAKING, since_ms=draft.now_ms)
        draft.tell("switched", f"revision {rollout.new} takes all requests")
    draft.rollout = rollout
    _share(draft, rollout, WHOLE)
    due_ms = rollout.since_ms + new.strategy.keep_ms
    is_due = draft.now_ms >= due_ms or draft.spec.promote == new.number
    if is_due and draft.settled(rollout.new) >= count:
        _promote(draft, rollout)
        return {rollout.new: count}
    draft.wake(max(due_ms, draft.now_ms + 1000))
    return wanted


def _beside(draft: Draft, rollout: Rollout, new: Revision) -> Wanted:
    """Shadow and A/B: the new one gets copies, or its share, until somebody decides."""
    if draft.spec.promote == new.number:
        draft.rollout = rollout
        return _rolling(draft, rollout, _quick(new))
    count = target_of(draft, new)
    share = new.strategy.steps[0] if new.strategy.name == "ab" and new.strategy.steps else 0
    wanted = max(1, -(-count * share // WHOLE))
    is_full = draft.ready(rollout.new) >= wanted
    if is_full and rollout.phase is _P.PROGRESSING:
        rollout = msgspec.structs.replace(
            rollout,
            phase=_P.PAUSED,
            since_ms=draft.now_ms,
            why="`argosy serve promote` or `rollback` ends it",
        )
    draft.rollout = rollout
    _share(draft, rollout, share if is_full else 0)
    return {rollout.old: max(1, count), rollout.new: wanted}


_STRATEGIES: Final[dict[str, Callable[[Draft, Rollout, Revision], Wanted]]] = {
    "rolling": _rolling,
    "canary": _canary,
    "blue-green": _blue_green,
    "shadow": _beside,
    "ab": _beside,
}


# -- back -------------------------------------------------------------------------------------------


def _begin_back(draft: Draft, rollout: Rollout, why: str, *, remember: bool) -> Wanted:
    revision = draft.revision(rollout.new)
    draft.rollout = rollout = _turned(draft, rollout, why)
    draft.tell("rolling-back", f"revision {rollout.new} is rolled back: {why}")
    if remember and revision is not None:
        draft.changes["bad"] = (*draft.before.bad, revision.digest)[-20:]
    return _back(draft, rollout)


def _back(draft: Draft, rollout: Rollout) -> Wanted:
    """The old one gets all requests again, as soon as one of it is ready. Its others come back meanwhile;
    until then those of further revisions that answer stay."""
    old = draft.revision(rollout.old)
    if old is None:
        return {}
    count = target_of(draft, old)
    _share(draft, rollout, 0 if draft.ready(rollout.old) else WHOLE)
    ready = draft.ready(rollout.old)
    if ready >= min(1, count):
        kept = _kept_of_others(draft, rollout, count - ready)
        if kept:
            _share_with(draft, kept, ready)
        elif not draft.of(rollout.new):
            draft.rollout = msgspec.structs.replace(rollout, phase=_P.ROLLED_BACK, since_ms=draft.now_ms)
            draft.tell("rolled-back", f"revision {rollout.old} serves again")
            draft.weights = ((rollout.old, WHOLE),)
        return {rollout.old: count, **kept}
    new = len(draft.of(rollout.new, ReplicaState.READY))
    return {rollout.old: max(1, count), rollout.new: new}
