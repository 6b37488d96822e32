"""When a job with a deadline runs on spot, waits for spot, or runs on demand. Pure.

The question is that of Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under Deadlines" (NSDI
2024). Their answer, uniform progress, keeps the job on a straight line from its start to its deadline. Ours
weighs instead what waiting is worth: spot comes and goes with rates that are learnt from what was granted,
refused and taken back, and a dynamic programme over (time left, work left) says at which slack waiting,
on-demand or a change to spot is the cheapest on average. What is not learnt yet stands in as a guess that
loses weight with every observation.

What is learnt is of these hours, and spot changes with the hours. So the programme may not spend all slack at
once: a job keeps near the even pace at which uniform progress spends it.

One rule stands above the programme, the safety net: as long as on-demand can be had, a step is only allowed
if the worst that can follow (a loss at once, work since the last checkpoint gone, a changeover to on-demand)
still ends in time. A gang counts as one: it has all its nodes or none.

`benchmarks/spot_replay.py` replays public traces through `decide`; docs/spot-benchmarks.md has the figures.
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BRIEF_S: Final = 720  # spot that is lost so soon was not worth the changeover
PAID_S: Final = 3 * BRIEF_S  # after so long a change from on-demand and back has about paid
LEAVE_AGAIN_MIN_S: Final = 3_600  # on-demand is not left so soon again for a place where it had not paid
LEAVE_AGAIN_MAX_S: Final = 19_200
ASK_AGAIN_MIN_S: Final = 60
ASK_AGAIN_MAX_S: Final = 600
_HOUR: Final = 3600.0
#: What is taken to be known before anything is: weight in observations, and hours between them.
_LOSS_WEIGHT, _LOSS_HOURS = 0.25, 4.0
_RETURN_WEIGHT, _RETURN_HOURS = 1.0, 1.0
_BRIEF_WEIGHT, _BRIEF_SHARE = 1.0, 0.2
_PLACES_MAX: Final = 4  # more of them do not come back any sooner: they are short of it together
_STEPS: Final = 240  # of time, from now to the deadline
_RENEW: Final = 0.6  # the steps get finer when this part of the time is left
_AHEAD: Final = 0.2  # of all slack may be spent before an even pace would
_LATE: Final = 1e6  # what being late costs, in hours of on-demand
_TABLES: Final = 64


class Where(StrEnum):
    """What a job runs on."""

    NOTHING = "nothing"
    SPOT = "spot"
    STEADY = "steady"  # on-demand, reserved, owned: what is not taken back


class Step(StrEnum):
    """What to do next."""

    SPOT = "spot"  # ask for spot, or stay on it
    STEADY = "on-demand"  # order it, or stay on it
    WAIT = "wait"  # for spot: there is slack


class Sightings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was seen of spot: sums over the places that a job may use."""

    there_s: float = 0.0  # for which it was held
    grants: float = 0  # periods that began
    losses: float = 0  # periods that ended because it was taken back, later than `BRIEF_S`
    brief: float = 0  # the same, within `BRIEF_S`
    missing_s: float = 0.0  # for which it was refused
    returns: float = 0  # times that it was granted after it was refused or taken back

    def __add__(self, other: Sightings) -> Sightings:
        return Sightings(
            there_s=self.there_s + other.there_s,
            grants=self.grants + other.grants,
            losses=self.losses + other.losses,
            brief=self.brief + other.brief,
            missing_s=self.missing_s + other.missing_s,
            returns=self.returns + other.returns,
        )


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision depends on. Times in seconds."""

    left_s: float  # until the deadline
    work_s: float  # left to do; what was done since the last checkpoint does not count as done
    where: Where
    open: bool  # spot is there for who asks: held, or not refused so lately that asking again makes no sense
    changeover_s: float  # from an order until the work goes on
    unsaved_s: float = 0.0  # work that a stop may cost: the time between checkpoints
    react_s: float = 0.0  # so late the decision may be heard
    spot_share: float = 0.35  # price of spot, 1 being that of on-demand
    seen: Sightings = Sightings()
    loss_per_s: float | None = None  # of all nodes together, where it is published
    places: int = 1  # that may have spot
    elsewhere: float = 0.0  # chance that another place has spot when this one takes it back
    steady: bool = True  # there is something to fall back to
    whole_s: float | None = None  # from the start to the deadline; None: slack may be spent at any pace
    whole_work_s: float | None = None  # that there was at the start


class Decision(NamedTuple):
    step: Step
    until_s: float  # from now: the answer does not change before, if nothing happens
    forced: bool = False  # the safety net speaks


def decide(now: Situation) -> Decision:
    """The next step of a job."""
    if not now.steady:
        return Decision(Step.SPOT if now.open else Step.WAIT, ASK_AGAIN_MAX_S)
    if now.where is Where.SPOT:
        return Decision(Step.SPOT, max(now.work_s, 1.0))  # it stays: leaving costs more than it saves
    if not _dares(now):  # no spot any more, so there is nothing to wait for
        return Decision(Step.STEADY, max(now.work_s, 1.0), forced=now.where is Where.NOTHING)
    table, step = _table_for(now)
    slack, work = now.left_s - now.work_s, math.ceil(now.work_s / step)
    row = min(work + max(0, int(slack / step)), table.last)
    work = min(work, table.last)
    state = (2 if now.where is Where.STEADY else 0) + now.open
    chosen = _STEPS_OF[int(table.actions[state, row, work])]
    spendable_s, wait_s = _pace(now)
    if spendable_s < 0 and chosen is (Step.WAIT if now.where is Where.NOTHING else Step.SPOT):
        chosen = Step.STEADY  # waiting and changing over cost slack
    if chosen is not Step.WAIT:
        return Decision(chosen, max(step, 1.0))
    later = row
    while later > work and _STEPS_OF[int(table.actions[state, later - 1, work])] is Step.WAIT:
        later -= 1
    until_s = min((row - later + 1) * step, spare_s(now) - _dared_s(now) + 1)
    if now.where is Where.NOTHING:
        until_s = min(until_s, wait_s + 1)
    return Decision(Step.WAIT, max(1.0, until_s))


def spare_s(now: Situation) -> float:
    """Seconds until on-demand must be ordered at the latest; below 0 when that moment has passed."""
    return now.left_s - now.work_s - now.changeover_s - now.react_s


def _dares(now: Situation) -> bool:
    """Whether spot may be tried: it may be lost at once, and then on-demand must still make it."""
    return spare_s(now) >= _dared_s(now)


def _dared_s(now: Situation) -> float:
    stops = 2 if now.where is Where.STEADY else 1
    return now.changeover_s + stops * now.unsaved_s


def _pace(now: Situation) -> tuple[float, float]:
    """(slack that may be spent at once, how long a job that runs nowhere may wait), in seconds.

    Of the slack that there was at the start, the part of the time that has passed may be spent, and `_AHEAD`
    more. What was learnt holds for the spot of these hours; slack that is kept buys spot of other hours.
    """
    if now.whole_s is None or now.whole_work_s is None or now.whole_s <= now.whole_work_s:
        return math.inf, math.inf
    slack_s = now.whole_s - now.whole_work_s
    spent_s = slack_s - (now.left_s - now.work_s)
    spendable_s = slack_s * (1 - now.left_s / now.whole_s + _AHEAD) - spent_s
    return spendable_s, spendable_s * now.whole_s / now.whole_work_s  # it grows while the job waits


def ask_again_s(missing_s: float, seen: Sightings) -> float:
    """How long to leave a place alone that refuses for `missing_s` now: short at first, as most gaps are; at
    most an eighth of how long such gaps take on average."""
    usual = (seen.missing_s + _RETURN_HOURS * _HOUR) / (seen.returns + _RETURN_WEIGHT)
    most = min(max(usual / 8, ASK_AGAIN_MIN_S), ASK_AGAIN_MAX_S)
    return min(max(missing_s / 4, ASK_AGAIN_MIN_S), most)


def expected_cost(now: Situation) -> float:
    """Of all that is left to do, in seconds of on-demand; what has not begun begins on spot if it may."""
    if now.where is not Where.SPOT and not _dares(now):
        return now.work_s + now.changeover_s
    table, step = _table_for(now)
    work = min(math.ceil(now.work_s / step), table.last)
    row = min(work + max(0, int((now.left_s - now.work_s) / step)), table.last)
    dearer = (now.spot_share - _share(now)) * now.work_s  # than the price that the table knows
    return max(0.0, min(float(table.costs[row, work]) * step + dearer, now.work_s + now.changeover_s))


# --- the programme ---------------------------------------------------------------------------------

_STEPS_OF: Final = (Step.WAIT, Step.SPOT, Step.STEADY)


class Rates(NamedTuple):
    """How spot comes and goes: per second, and as chances."""

    loss: float
    back: float
    brief: float


def rates_of(now: Situation) -> Rates:
    """The guess, corrected by what was seen."""
    seen, hours = now.seen, _LOSS_HOURS
    if now.loss_per_s is not None:
        hours = min(max(1 / max(now.loss_per_s * _HOUR, 1e-3), 0.5), 1000.0)
    loss = (seen.losses + _LOSS_WEIGHT) / (seen.there_s + _LOSS_WEIGHT * hours * _HOUR)
    back = (seen.returns + _RETURN_WEIGHT) / (seen.missing_s + _RETURN_WEIGHT * _RETURN_HOURS * _HOUR)
    back *= min(max(now.places, 1), _PLACES_MAX)
    share = _BRIEF_SHARE if now.loss_per_s is None else 0.0
    brief = (seen.brief + _BRIEF_WEIGHT * share) / (seen.brief + seen.losses + _BRIEF_WEIGHT)
    return Rates(loss, back, brief)


class _Table(NamedTuple):
    actions: NDArray[np.int8]  # by state, steps of time left, steps of work left
    costs: Floats  # of what begins when spot is there, in steps of on-demand
    last: int


def _table_for(now: Situation) -> tuple[_Table, float]:
    """The table, and seconds of one of its steps. Rates are rounded to steps of a half in the logarithm, and
    the length to powers: so neighbours in time share a table."""
    length = _RENEW ** math.floor(math.log(max(now.left_s, 60.0), _RENEW))
    step = max(length / _STEPS, now.changeover_s / 2, 1.0)
    rates = rates_of(now)
    key = _Key(
        last=math.ceil(length / step) + 1,
        changeover=round(now.changeover_s / step, 2),
        loss=_rounded(rates.loss * step),
        back=_rounded(rates.back * step),
        brief=round(rates.brief, 1),
        elsewhere=round(now.elsewhere, 1),
        share=_share(now),
    )
    return _solve(key), step


def _share(now: Situation) -> float:
    """Tenths: places of about the same price share a table."""
    return max(0.1, round(now.spot_share, 1))


def _rounded(rate: float) -> float:
    return math.exp(round(math.log(max(rate, 1e-9)) * 2) / 2)


class _Key(NamedTuple):
    """What a table depends on; times in its steps."""

    last: int
    changeover: float
    loss: float
    back: float
    brief: float
    elsewhere: float
    share: float


@lru_cache(maxsize=_TABLES)
def _solve(key: _Key) -> _Table:
    """Backwards from the deadline: the cheapest way on from every state, on average."""
    import numpy as np

    return _Programme(key, np).solved()


class _Costs(NamedTuple):
    """Of all that is left, by steps of work left, at one time. What runs, and whether spot is there."""

    nothing: Floats
    nothing_open: Floats
    steady: Floats
    steady_open: Floats
    spot: Floats


class _Programme:
    def __init__(self, key: _Key, numpy: Any) -> None:  # numpy is only loaded when a deadline is weighed
        self.key, self.np = key, numpy
        late = numpy.full(key.last + 1, _LATE)
        late[0] = 0.0
        self.late = late
        self.rows = [_Costs(late, late, late, late, late)]
        self.lost, self.back = -math.expm1(-key.loss), -math.expm1(-key.back)
        settled = key.back / (key.loss + key.back)
        kept = math.exp(-(key.loss + key.back) * key.changeover)
        self.open_after = settled * (1 - kept)  # a changeover, when spot is not there now
        self.open_still = settled + (1 - settled) * kept  # the same, when it is
        self.fails = 1 - (1 - key.brief) * math.exp(-key.loss * key.changeover)

    def solved(self) -> _Table:
        np, last = self.np, self.key.last
        actions = np.zeros((4, last + 1, last + 1), np.int8)
        costs = np.zeros((last + 1, last + 1), np.float32)
        costs[0] = self.late
        for row in range(1, last + 1):
            actions[:, row], found = self._row(row)
            for each in found:
                each[0] = 0.0
            self.rows.append(found)
            costs[row] = found.nothing_open
        return _Table(actions, costs, last)

    def _row(self, row: int) -> tuple[list[Any], _Costs]:
        np, key, before = self.np, self.key, self.rows[row - 1]
        lost, back = self.lost, self.back
        done = _Costs(*(self._worked(each) for each in before))
        wait = (1 - back) * before.nothing + back * before.nothing_open
        wait_open = (1 - lost) * before.nothing_open + lost * before.nothing
        run = 1 + (1 - back) * done.steady + back * done.steady_open
        run_open = 1 + (1 - lost) * done.steady_open + lost * done.steady
        after_loss = (1 - key.elsewhere) * done.nothing + key.elsewhere * done.nothing_open
        spot = key.share + (1 - lost) * done.spot + lost * after_loss
        steady, steady_open = np.minimum(run, wait), np.minimum(run_open, wait_open)
        present = _Costs(before.nothing, before.nothing_open, steady, steady_open, spot)
        order = key.changeover + self._mixed(row, present, self.open_after)
        order_open = key.changeover + self._mixed(row, present, self.open_still)
        move = self._move(row, present)
        idle = np.minimum(wait_open, order_open)
        actions = [
            np.where(order < wait, 2, 0),
            np.where(move <= idle, 1, np.where(order_open < wait_open, 2, 0)),
            np.where(run <= wait, 2, 0),
            np.where(move < steady_open, 1, np.where(run_open <= wait_open, 2, 0)),
        ]
        found = _Costs(
            np.minimum(wait, order), np.minimum(idle, move), steady, np.minimum(steady_open, move), spot
        )
        return actions, found

    def _worked(self, cost: Floats) -> Floats:
        """The cost with one step less of work to do."""
        shifted: Floats = self.np.empty_like(cost)
        shifted[0], shifted[1:] = 0.0, cost[:-1]
        return shifted

    def _mixed(self, row: int, present: _Costs, open: float) -> Floats:
        """On on-demand, a changeover later."""
        later = self.key.changeover
        return (1 - open) * self._at(row, 2, present, later) + open * self._at(row, 3, present, later)

    def _move(self, row: int, present: _Costs) -> Floats:
        """To spot: it may be gone half-way."""
        key = self.key
        half = max(key.changeover / 2, 1.0)
        stays = key.share * key.changeover + self._at(row, 4, present, key.changeover)
        gone, other = self._at(row, 0, present, half), self._at(row, 1, present, half)
        fails = key.share * key.changeover / 2 + (1 - key.elsewhere) * gone + key.elsewhere * other
        return (1 - self.fails) * stays + self.fails * fails

    def _at(self, row: int, state: int, present: _Costs, later: float) -> Floats:
        """The cost of a state `later` steps on, between rows where it is no whole number."""
        whole = int(later)
        part = later - whole

        def cost(steps: int) -> Floats:
            if steps == 0:
                return present[state]
            return self.rows[row - steps][state] if steps <= row else self.late

        found: Floats = cost(whole)
        return found if part < 1e-9 else (1 - part) * found + part * cost(whole + 1)
