"""Equivalence classes: requests that are equal for the pool. Where one of a class does not fit, none does."""

from __future__ import annotations

from typing import NamedTuple

from argosy.model.tenancy import Amounts
from argosy.scheduler.ask import Ask, Need


class Variant(NamedTuple):
    """One way to meet a class of requests."""

    ask: Ask  # an example with this need alone
    need: Need
    amounts: Amounts
    by_model: dict[tuple[tuple[str, int], ...], Amounts]  # with the models that it gets; made when it does
    capped: bool = False  # queues count single models, and this may use several: see `CycleState.find`


class EquivalenceClass:
    """What is known about requests that are equal for the pool."""

    __slots__ = ("blocked", "could_ever", "number", "variants")

    def __init__(self, number: int, variants: tuple[Variant, ...]) -> None:
        self.number = number
        self.variants = variants
        self.could_ever: bool | None = None  # on these machines; None: not looked at yet
        self.blocked = [-1] * len(variants)  # version of the inventory in which it did not fit; -1: not known
