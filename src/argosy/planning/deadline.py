"""What a deadline means for a task: in which order to try places, and what to do next about spot.

`order_choices` weighs all places for a launch or a recovery; `next_step` is the spot policy applied to the
places that a managed job could use now. Plans, controllers and the replay in `benchmarks/` ask here. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from argosy.model.offer import Capacity, Choice
from argosy.model.resources import Resources
from argosy.model.task import Task
from argosy.planning.availability import Memory, opens_ms, sightings
from argosy.planning.objective import Known, Objective, rank_by, runtime_of
from argosy.planning.outlook import CHECKPOINT_S, DeadlineAsk, DeadlinePlan, Outlook, plan_deadline
from argosy.planning.spot_policy import Sightings, Situation, Step, Where, decide, spare_s

_MACHINES_MAX: Final = 64  # other kinds of machines that are weighed as well
WEIGHED: Final = 24  # choices of each capacity that are weighed against a deadline, the cheapest
_NO_OTHER: Final = 0.6  # chance that a place that was not asked has no spot either
NOT_WEIGHED: Final = "the deadline is not weighed: `estimated_hours` is not known"


class Weighed(NamedTuple):
    """Choices in the order in which to try them, and why: what was chosen for the deadline, or that it cannot
    be met. `plan.error()` is what faces tell that must stop when the deadline cannot be met."""

    choices: tuple[Choice, ...]
    reason: str  # "": there is no deadline, the objective alone decides
    plan: DeadlinePlan | None = (
        None  # None: there is no deadline, or nothing is known of how long the task runs
    )


def wishes_of(task: Task, *, managed: bool = True) -> tuple[Resources, ...]:
    """The candidates of `task` as places are asked for them.

    Who does not speak of spot does not get machines that are taken back, but for one case: a managed job with
    a deadline, which recovers and for which `order_choices` weighs both.
    """
    if managed and (task.deadline_s is not None or task.deadline_at_ms is not None):
        return task.resources
    return tuple(
        wish if wish.use_spot is not None else msgspec.structs.replace(wish, use_spot=False)
        for wish in task.resources
    )


def seconds_left(task: Task, *, now_ms: int, submitted_ms: int) -> int | None:
    """Until the deadline of `task`, the earlier of its two; below 0 when it has passed, None when it has
    none."""
    ends_ms = [] if task.deadline_s is None else [submitted_ms + task.deadline_s * 1000]
    if task.deadline_at_ms is not None:
        ends_ms.append(task.deadline_at_ms)
    return (min(ends_ms) - now_ms) // 1000 if ends_ms else None


def keeps_checkpoints(task: Task) -> bool:
    """Whether a loss costs the work since the last checkpoint, not all of it: the task says so, asks for
    recovery, or has storage mounted that lives on."""
    return (
        task.scheduling.checkpoint
        or any(wish.recovery.strategy for wish in task.resources)
        or any(mount.mode != "COPY" for mount in task.storage_mounts)
    )


def deadline_ask(task: Task, left_s: int) -> DeadlineAsk:
    """What to plan for `task` with `left_s` seconds until its deadline. Runtimes are told by choice
    (`durations`)."""
    return DeadlineAsk(
        deadline_s=left_s,
        estimated_s=max(1, task.estimated_s or 1),
        num_nodes=task.num_nodes,
        checkpoint_s=CHECKPOINT_S if keeps_checkpoints(task) else None,
    )


def order_choices(
    choices: Sequence[Choice],
    task: Task,
    *,
    now_ms: int,
    submitted_ms: int,
    done_fraction: float = 0.0,
    known: Known | None = None,
    hazard: Callable[[Choice], float | None] | None = None,
) -> Weighed:
    """`choices` as a launch, or a recovery, of `task` should try them.

    With a deadline: those that meet it with enough confidence, the lowest expected cost first; then the
    others, the most probable first. So a job that lost its spot machines goes on with spot while there is
    slack, and on demand when there is none. A deadline that cannot be met any more orders by the earliest
    finish and says so. Without a deadline the objective of the task orders, equals as they came. In order of
    preference (`task.ordered`) nothing moves but what would be late.

    Args:
        choices: what fits, as `Plan.choices`: cheapest or most preferred first, of spot and not of spot where
        both will do. now_ms, submitted_ms: the present, and when the task was submitted: a deadline of `12h`
        counts from then. done_fraction: part of the whole work that is done and kept, 0 to 1; at least
        `task.progress_milli` of it is. known: earlier runs and facts on accelerators; without it the estimate
        of the user. hazard: losses of one node per hour by choice, as for `plan_deadline`.
    """
    done = min(1.0, max(done_fraction, task.progress_milli / 1000))
    facts = msgspec.structs.replace(known or Known(estimated_s=task.estimated_s), progress=done)
    ranked = tuple(choices)
    if not task.ordered and Objective(task.objective) is not Objective.COST:
        best = rank_by(Objective(task.objective), ranked, task.num_nodes, facts).ranked
        ranked = tuple(each.choice for each in best)
    left_s = seconds_left(task, now_ms=now_ms, submitted_ms=submitted_ms)
    if left_s is None or not ranked:
        return Weighed(ranked, "")
    runtimes = {
        choice: seconds
        for choice in some_of_each(ranked)
        if (seconds := runtime_of(choice, task.num_nodes, facts).seconds) is not None
    }
    if not runtimes:
        return Weighed(ranked, NOT_WEIGHED)
    name = f"task `{task.name}`" if task.name else "the task"
    ask = deadline_ask(task, left_s)
    made = plan_deadline(tuple(runtimes), ask, hazard=hazard, durations=runtimes.__getitem__, name=name)
    best_of: dict[Choice, Outlook] = {}
    for outlook in made.outlooks:  # cheapest first
        known_best = best_of.get(outlook.choice)
        if known_best is None or known_best.probability < ask.confidence <= outlook.probability:
            best_of[outlook.choice] = outlook
    position = {choice: index for index, choice in reversed(list(enumerate(ranked)))}

    def key(choice: Choice) -> tuple[float, ...]:
        mine = best_of.get(choice)
        if mine is None:
            return 2, position[choice]
        if mine.probability >= ask.confidence:
            return (0, position[choice] if task.ordered else mine.cost_micro_usd, position[choice])
        return (1, -mine.probability, mine.finish_s, mine.cost_micro_usd, position[choice])

    return Weighed(tuple(sorted(ranked, key=key)), made.text, made)


def some_of_each(choices: Sequence[Choice]) -> list[Choice]:
    """Choices that are worth weighing: the first of each capacity, and the first of each further machine of
    it."""
    seen: dict[Capacity, int] = {}
    machines: dict[tuple[str, str, str], None] = {}
    found = []
    for choice in choices:
        offer = choice.offer
        machine = (offer.provider, offer.shape.instance_type, offer.capacity.value)
        fresh = machine not in machines and len(machines) < _MACHINES_MAX
        machines.setdefault(machine, None)
        count = seen[offer.capacity] = seen.get(offer.capacity, 0) + 1
        if count <= WEIGHED or fresh:
            found.append(choice)
    return found


# --- what to do next about spot --------------------------------------------------------------------


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of machines costs, in seconds."""

    changeover_s: int = 600  # from an order until the work goes on
    unsaved_s: int = CHECKPOINT_S  # of work that a stop may lose
    react_s: int = 60  # until a decision is carried out


class NextStep(NamedTuple):
    """What a managed job with a deadline does now about machines that are not owned."""

    step: Step
    choices: tuple[Choice, ...]  # to be ordered now, the best first; (): nothing, or it stays where it is
    again_ms: int  # when to decide again, if nothing happens before
    give_up_ms: int  # spot that has not come up by then is given up: only on-demand makes it
    forced: bool = False  # by the deadline: there is no time left to wait

    @property
    def waits(self) -> bool:
        return self.step is Step.WAIT


def next_step(
    choices: Sequence[Choice],
    task: Task,
    *,
    memory: Memory,
    now_ms: int,
    submitted_ms: int,
    done_fraction: float = 0.0,
    held: Choice | None = None,
    known: Known | None = None,
    terms: Terms | None = None,
) -> NextStep | None:
    """The step of `spot_policy` for a task that runs on `held` (None: on nothing). None: the policy has no
    say: no deadline, a duration that nobody knows, an order of preference, or only one kind of capacity.

    Args:
        choices: what fits, as `Plan.choices`. memory: what was granted, refused and taken back.
        done_fraction: part of the whole work that is done, what the present attempt did with it.
    """
    left_s = seconds_left(task, now_ms=now_ms, submitted_ms=submitted_ms)
    whole_s = seconds_left(task, now_ms=submitted_ms, submitted_ms=submitted_ms)
    if left_s is None or whole_s is None or task.ordered:
        return None
    terms = terms or Terms()
    done = min(1.0, max(done_fraction, task.progress_milli / 1000))
    facts = msgspec.structs.replace(known or Known(estimated_s=task.estimated_s), progress=done)
    timed = [
        _Timed(choice, seconds)
        for choice in some_of_each(choices)
        if (seconds := runtime_of(choice, task.num_nodes, facts).seconds) is not None
    ]
    spots, steady = _rivals(timed, left_s - terms.changeover_s)
    if not spots:
        return None
    fallback = steady[0] if steady else None
    leaves = _where(held) is Where.STEADY
    opens = [opens_ms(memory, each.choice, now_ms, leaves=leaves) for each in spots]
    open_now = [each for each, open_ms in zip(spots, opens, strict=True) if open_ms <= now_ms]
    work_s = (open_now or spots)[0].work_s
    now = Situation(
        left_s=left_s,
        work_s=work_s,
        where=_where(held),
        open=bool(open_now),
        changeover_s=terms.changeover_s,
        unsaved_s=terms.unsaved_s if keeps_checkpoints(task) else max(each.work_s for each in timed),
        react_s=terms.react_s,
        spot_share=spots[0].choice.price_micro_usd / max(1, fallback.choice.price_micro_usd)
        if fallback
        else 1.0,
        seen=sum((sightings(memory, each.choice, now_ms) for each in spots), Sightings()),
        places=len(spots),
        elsewhere=1 - _NO_OTHER ** (len(open_now) - 1) if open_now else 0.0,
        steady=fallback is not None,
        whole_s=whole_s,
        whole_work_s=work_s / (1 - done) if done < 1 else None,
    )
    decision = decide(now)
    again_ms = now_ms + round(1000 * decision.until_s)
    if not open_now and not decision.forced:
        again_ms = min(again_ms, min(opens))
    return NextStep(
        decision.step,
        _to_order(decision.step, now.where, open_now, steady),
        again_ms,
        now_ms + round(1000 * (spare_s(now) - now.unsaved_s)),
        decision.forced,
    )


class _Timed(NamedTuple):
    choice: Choice
    work_s: int  # what is left of the task, there

    @property
    def cost(self) -> int:
        return self.choice.price_micro_usd * self.work_s


def _rivals(timed: Sequence[_Timed], time_s: float) -> tuple[list[_Timed], list[_Timed]]:
    """(spot that is worth a thought, what is not taken back). Each the cheapest first, but for the very first
    of what is not taken back: that makes it within `time_s`, or is the quickest of all."""
    steady = sorted((each for each in timed if not _is_spot(each.choice)), key=lambda each: each.cost)
    spots = sorted((each for each in timed if _is_spot(each.choice)), key=lambda each: each.cost)
    if not steady:
        return spots, []
    first = next((each for each in steady if each.work_s <= time_s), None)
    first = first or min(steady, key=lambda each: each.work_s)
    worth = [
        each
        for each in spots
        if first.work_s <= each.work_s and each.choice.price_micro_usd < first.choice.price_micro_usd
    ]
    return worth, [first, *(each for each in steady if each is not first)]


def _where(held: Choice | None) -> Where:
    if held is None:
        return Where.NOTHING
    return Where.SPOT if _is_spot(held) else Where.STEADY


def _is_spot(choice: Choice) -> bool:
    return choice.offer.capacity is Capacity.SPOT


def _to_order(
    step: Step, where: Where, spots: Sequence[_Timed], steady: Sequence[_Timed]
) -> tuple[Choice, ...]:
    if step is Step.SPOT and where is not Where.SPOT:
        return tuple(each.choice for each in spots)
    if step is Step.STEADY and where is Where.NOTHING:
        return tuple(each.choice for each in steady)
    return ()
