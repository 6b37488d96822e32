"""Where the next replica of a service is to be, so that not all of them are lost with one place. Pure.

Its task gets wishes in an order: first everywhere but where most of the others are (and, for spot, where a
machine was taken back lately), then as the user wrote it. So a place that has nothing never keeps a replica
from starting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

import msgspec

from argosy.controllers.offered import plan_in
from argosy.controllers.service.draft import Draft
from argosy.controllers.view import Rows
from argosy.model.kinds.service import ReplicaState, Revision, TakenBack
from argosy.model.offer import Choice
from argosy.model.resources import Exclusion, Resources
from argosy.model.serving import SPREADS
from argosy.model.task import Task

#: So long a place is avoided that took a spot machine back.
AVOIDED_MS: Final = 1_800_000
_KEPT: Final = 20


def place_of_choice(choice: Choice) -> str:
    """`provider/region/zone`, as far as it is known."""
    offer = choice.offer
    return "/".join((offer.provider, offer.region, offer.zone)).rstrip("/")


def place_of_job(rows: Rows, job_id: str) -> str:
    """Where the machine of a job is, or is ordered; "": nowhere yet."""
    claims = rows.claims_of(job_id)
    attempt = rows.attempt_of(job_id)
    if not claims and attempt is not None:
        node = rows.nodes.get(attempt.placements[0].node_id)
        claim = rows.claims.get(node.claim_id) if node is not None else None
        return place_of_choice(claim.choice) if claim is not None else ""
    return place_of_choice(claims[-1].choice) if claims else ""


def area_of(place: str, spread: str) -> str:
    """The part of a place by which replicas are counted.

    >>> area_of("aws/us-east-1/us-east-1a", "region"), area_of("aws/us-east-1", "infra")
    ('aws/us-east-1', 'aws')
    """
    return "/".join(place.split("/")[: SPREADS.index(spread) + 1])


def note_taken_back(draft: Draft, place: str) -> None:
    """A spot machine there was taken back."""
    if place:
        took = draft.changes.get("taken_back", draft.before.taken_back)
        kept = [each for each in took if each.place != place]
        draft.changes["taken_back"] = (*kept, TakenBack(place=place, at_ms=draft.now_ms))[-_KEPT:]


def spread_task(draft: Draft, revision: Revision, task: Task, *, on_demand: bool) -> tuple[Task, str]:
    """The task of one more replica, and where it will probably be; "": that is not known."""
    replicas = revision.serving.replicas
    is_spot = not on_demand and any(wish.use_spot for wish in task.resources)
    if not replicas.spread:
        return task, ""
    lost = _avoided(draft, replicas.spread) if replicas.evade and is_spot else frozenset()
    counts = _counts(draft, revision, replicas.spread)
    for avoid in _attempts(counts, lost):
        wishes = tuple(_without(wish, avoid) for wish in task.resources)
        choices = plan_in(draft.view, wishes, task.num_nodes, ordered=task.ordered).choices
        if choices:
            ordered = tuple(dict.fromkeys((*(each.resources for each in choices), *wishes)))
            both = tuple(dict.fromkeys((*ordered, *task.resources)))
            where = place_of_choice(choices[0])
            return msgspec.structs.replace(task, resources=both, ordered=len(both) > 1), where
    return task, ""


def _counts(draft: Draft, revision: Revision, spread: str) -> Counter[str]:
    there = [each for each in draft.replicas if each.state is not ReplicaState.DRAINING]
    return Counter(
        area_of(each.place, spread) for each in there if each.revision == revision.number and each.place
    )


def _avoided(draft: Draft, spread: str) -> frozenset[str]:
    since = draft.now_ms - AVOIDED_MS
    took = draft.changes.get("taken_back", draft.before.taken_back)
    return frozenset(area_of(each.place, spread) for each in took if each.at_ms > since)


def _attempts(counts: Counter[str], lost: frozenset[str]) -> list[frozenset[str]]:
    """What to leave out: as much as possible first. Places that lost machines come last, full or not."""
    levels = [0, *sorted(set(counts.values()))]
    found = []
    for hard in (lost, frozenset[str]()):
        for level in levels:
            found.append(hard | {area for area, count in counts.items() if count > level})
    return list(dict.fromkeys(found))


def _without(wish: Resources, areas: Collection[str]) -> Resources:
    if not areas:
        return wish
    out = tuple(Exclusion(area=area) for area in sorted(areas))
    return msgspec.structs.replace(wish, excluded=(*wish.excluded, *out))
