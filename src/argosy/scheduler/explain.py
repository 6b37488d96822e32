"""Why something waits, why it started, why it was preempted: one or two plain sentences from what the cache
knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from argosy.model.scheduling import PRIORITY_CLASSES
from argosy.model.tenancy import Amounts, Queue
from argosy.model.units import render_duration
from argosy.scheduler.ask import Ask
from argosy.scheduler.quota import Over
from argosy.scheduler.tenancy_check import render_named, say_amount

USERS_SHOWN: Final = 3


def label(ask: Ask) -> str:
    """The name by which people know a job.

    >>> label(Ask(id="job-1", needs=(), queue="acme/vision/ann", number=12)), label(Ask(id="job-1", needs=()))
    ("acme/vision/ann's job 12", 'job-1')
    """
    number = ask.label or str(ask.number or "")
    if not number:
        return ask.id
    return f"{ask.queue}'s job {number}" if ask.queue else f"job {number}"


def render_amounts(amounts: Amounts) -> str:
    """
    >>> render_amounts({"gpus/A100": 8000, "cpus": 4000, "jobs": 1})
    '8 A100, 4 CPUs, 1 job'
    """
    return ", ".join(say_amount(name, amount) for name, amount in amounts.items())


def ordinal(number: int) -> str:
    """
    >>> [ordinal(n) for n in (1, 2, 3, 4, 11, 22, 113)]
    ['1st', '2nd', '3rd', '4th', '11th', '22nd', '113th']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def why_started(
    ask: Ask, *, before: Ask | None = None, over_in_time: bool = False, nominated: bool = False
) -> str:
    """Return why a request was started, to be kept with the attempt. `before`: a pending request with a
    reservation that this one was backfilled before."""
    if nominated:
        return "the room that was kept for it is free"
    if before is not None:
        how = "is over before that can start" if over_in_time else "does not delay it"
        return f"backfill: {label(before)} waits for room, and this {how}"
    return _was_next(ask.queue)


@lru_cache(maxsize=4096)
def _was_next(queue: str) -> str:
    """One text for all of a queue: thousands may start at once."""
    return f"it was next in queue {queue}" if queue else "it was next"


def why_evicted(ask: Ask, victim: Ask, kind: str, *, guaranteed: tuple[str, Amounts] | None = None) -> str:
    """The text for the owner of the preempted job. `guaranteed`: (queue, amounts) of which the preempting
    request has less than is guaranteed."""
    taker = label(ask)
    if kind == "consolidate":
        return f"moves to another place so that {taker} fits; it goes on there"
    if kind == "reclaim":
        if guaranteed is not None:
            amounts = render_amounts(guaranteed[1])
            whose = "its" if ask.queue == guaranteed[0] else f"{guaranteed[0]}'s"
            return f"made room for {taker}, which is below {whose} guarantee of {amounts}"
        return f"made room for {taker}: {victim.queue} used more than it deserves, {ask.queue} less"
    if ask.urgency != victim.urgency:
        mine, theirs = (PRIORITY_CLASSES[min(a.urgency, len(PRIORITY_CLASSES) - 1)] for a in (ask, victim))
        return f"made room for {taker}, which is more urgent ({mine} before {theirs})"
    if ask.priority != victim.priority:
        return f"made room for {taker}, which has priority {ask.priority} (this has {victim.priority})"
    return f"made room for {taker}, which has used the machines for less time so far"


def users_text(users: Mapping[str, int], name: str) -> str:
    """Who uses most of something.

    >>> users_text({"acme/nlp": 8000, "acme/vision": 24000}, "gpus")
    'In use: 24 by acme/vision, 8 by acme/nlp.'
    """
    rows = sorted(((used, path) for path, used in users.items() if used), key=lambda row: (-row[0], row[1]))
    if not rows:
        return ""
    shown = [f"{render_named(name, used)} by {path or 'others'}" for used, path in rows[:USERS_SHOWN]]
    if len(rows) > USERS_SHOWN:
        rest = sum(used for used, _ in rows[USERS_SHOWN:])
        shown.append(f"{render_named(name, rest)} by {len(rows) - USERS_SHOWN} more")
    return "In use: " + ", ".join(shown) + "."


def beyond_text(over: Over) -> str:
    """
    >>> beyond_text(Over(path="acme", name="gpus", used=0, asked=16000, limit=8000))
    'It can never start: it asks for 16 GPUs, and queue acme may use at most 8.'
    """
    asked, limit = say_amount(over.name, over.asked), render_named(over.name, over.limit)
    return f"It can never start: it asks for {asked}, and queue {over.path} may use at most {limit}."


def leaving_text(leaving: Sequence[Ask]) -> str:
    """The text while victims are terminating."""
    if not leaving:
        return "Its room is kept and will be free in a moment."
    names = [label(each) for each in leaving[:USERS_SHOWN]]
    if len(leaving) > USERS_SHOWN:
        names.append(f"{len(leaving) - USERS_SHOWN} more")
    verb = "is" if len(leaving) == 1 else "are"
    return f"Room is being made for it: {', '.join(names)} {verb} ending."


def behind_text(before: Ask, starts_at_ms: int | None, now_ms: int) -> str:
    """It fits, but would delay a request that comes before it. `starts_at_ms` None: it is not known when that
    one starts."""
    text = f"There is room, but it is kept for {label(before)}, which comes before it"
    if starts_at_ms is None:
        return f"{text}."
    return f"{text} and starts in about {render_duration(max(0, starts_at_ms - now_ms) // 1000)}."


def later_text(not_before_ms: int, now_ms: int) -> str:
    return f"It is tried again in {render_duration(max(0, not_before_ms - now_ms) / 1000)}."


def sentence(text: str) -> str:
    """
    >>> sentence("8 GPUs are needed, 2 are free")
    '8 GPUs are needed, 2 are free.'
    """
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def guarantee_of(queues: Mapping[str, Queue], path: str, asked: Amounts) -> tuple[str, Amounts] | None:
    """The lowest queue on the way up that guarantees something of what is asked, and how much."""
    while path:
        queue = queues.get(path)
        if queue is not None:
            kept = {name: amount for name, amount in queue.guaranteed.items() if name in asked}
            if kept:
                return path, kept
        path = path.rpartition("/")[0]
    return None
