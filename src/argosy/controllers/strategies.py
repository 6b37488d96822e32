"""Recovery strategies: in which order places are tried for a managed job that lost its machines. Pure, but
for own ones (`own:NAME`), which are loaded once from the entry point group `argosy.recovery_strategies`.

A strategy is a function `(choices, lost) -> choices`: all places that would do, in the order of their
failover, and the place that was lost; it answers with the order in which to try them. What it leaves out is
not tried now.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from argosy.model.offer import Choice

_log = logging.getLogger(__name__)

GROUP: Final = "argosy.recovery_strategies"


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Where the machines were."""

    provider: str
    region: str = ""
    zone: str = ""


Strategy = Callable[[Sequence[Choice], Lost], Sequence[Choice]]


def failover(choices: Sequence[Choice], lost: Lost) -> list[Choice]:
    """The region of before comes first: data is near, and other zones of it may have room."""
    return sorted(choices, key=lambda each: not _in_region(each, lost))


def eager_next_region(choices: Sequence[Choice], lost: Lost) -> list[Choice]:
    """Every other region comes first: what took the machines may take the next ones there, too."""
    return sorted(choices, key=lambda each: _in_region(each, lost))


BUILT_IN: Final[dict[str, Strategy]] = {"failover": failover, "eager_next_region": eager_next_region}


def _in_region(choice: Choice, lost: Lost) -> bool:
    return (choice.offer.provider, choice.offer.region) == (lost.provider, lost.region)


@functools.cache
def strategy_of(name: str) -> Strategy | None:
    """A strategy by the name that users write, in any case; None: there is none, the order stays."""
    if name.lower() in BUILT_IN:
        return BUILT_IN[name.lower()]
    from importlib.metadata import entry_points  # only for own ones

    for entry in entry_points(group=GROUP):
        if entry.name == name.removeprefix("own:"):
            try:
                loaded: Strategy = entry.load()
            except Exception:  # noqa: BLE001  a plug-in's bug
                _log.exception("the recovery strategy `%s` cannot be loaded: the usual order is kept", name)
                return None
            return loaded
    return None


def order_after_loss(name: str | None, choices: Sequence[Choice], lost: Lost | None) -> Sequence[Choice]:
    """The order in which to try `choices`; as it is without a strategy or a loss. An own strategy that fails,
    or answers with what it was not given, changes nothing."""
    strategy = strategy_of(name) if name and lost is not None else None
    if strategy is None or lost is None:
        return choices
    try:
        ordered = list(strategy(choices, lost))
    except Exception:  # noqa: BLE001  a plug-in's bug
        _log.exception("the recovery strategy `%s` failed: the usual order is kept", name)
        return choices
    return ordered if ordered and all(each in choices for each in ordered) else choices
