"""Plans that this server has made lately, by id: a launch names the one that people have seen."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import msgspec

from argosy.model.ids import Clock
from argosy.model.offer import Choice, Confirmed, Offer, Plan, offer_key
from argosy.model.task import Task
from argosy.planning.confirmed import limit_of, order_of_plan

KEPT_S: Final = 1800.0
KEPT_MAX: Final = 1000
CHOICES_MAX: Final = 100  # of one plan that are kept


class Made(NamedTuple):
    """A plan of one task, in the order in which a launch tries its choices."""

    id: str
    subject: tuple[object, ...]  # `subject_of` its task
    plan: Plan
    why: str  # of the order
    duration_s: int | None  # of the whole task, as the order was weighed
    revision: int  # of the offers that it was made from
    limit_micro_usd: int | None  # the most that it costs per hour

    def confirmed(self, limit_micro_usd: int | None) -> Confirmed:
        """What a launch that names this plan keeps to, with the limit of the request."""
        limits = [each for each in (limit_micro_usd, self.limit_micro_usd) if each is not None]
        return Confirmed(max_hourly_micro_usd=min(limits, default=None), order=order_of_plan(self.plan))


class KeptPlans:
    """For half an hour, and the last thousand. Other servers do not know them: an id says what the plan was,
    so they make the plan again and compare."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[float, Made]] = {}

    def keep(self, made: Made) -> None:
        now_s = self._clock.monotonic_s()
        plan = msgspec.structs.replace(made.plan, choices=made.plan.choices[:CHOICES_MAX])
        self._kept.pop(made.id, None)
        self._kept[made.id] = now_s, made._replace(plan=plan)
        while len(self._kept) > KEPT_MAX or now_s - next(iter(self._kept.values()))[0] > KEPT_S:
            del self._kept[next(iter(self._kept))]

    def find(self, id: str) -> Made | None:
        """None: it was never made here, or long ago."""
        since_s, made = self._kept.get(id, (0.0, None))
        return made if self._clock.monotonic_s() - since_s <= KEPT_S else None


def made_of(
    task: Task, plan: Plan, offers: tuple[Offer, ...], *, managed: bool, why: str, duration_s: int | None,
    revision: int,
) -> Made:  # fmt: skip
    """With the id that the same plan has on every server."""
    subject = (managed, *subject_of(task))
    limit = limit_of(plan, offers)
    said = (subject, limit, tuple(map(_said, plan.choices[:1])))
    digest = hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()
    return Made(f"pln-{digest[:20]}", subject, plan, why, duration_s, revision, limit)


def _said(choice: Choice) -> tuple[str, int]:
    return offer_key(choice.offer), choice.price_micro_usd


def subject_of(task: Task) -> tuple[object, ...]:
    """What of a task matters for where it goes: equal ones are planned once."""
    timed = task.deadline_s or task.deadline_at_ms or task.objective != Task().objective
    return (
        *(task.resources, task.num_nodes, task.ordered, task.objective, task.estimated_s),
        *(task.progress_milli, task.deadline_s, task.deadline_at_ms, task.scheduling, task.storage_mounts),
        task.name if timed else None,
    )
