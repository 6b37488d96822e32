"""What the steps of one cycle share: the books of the pool, its near future, the decisions so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from argosy.model.offer import Placement
from argosy.model.tenancy import Amounts
from argosy.scheduler.ask import Ask, Evict, Start
from argosy.scheduler.equivalence import Variant
from argosy.scheduler.estimate import expected_s
from argosy.scheduler.inventory import Inventory
from argosy.scheduler.quota import amounts_of
from argosy.scheduler.whatif import Allocation, WhatIf

if TYPE_CHECKING:
    from argosy.scheduler.pool import Pool


class Nominated(NamedTuple):
    """A nominated placement: room that is being made for one request, or where a job goes on that is moved
    aside."""

    ask: Ask
    allocation: Allocation
    moving: bool = False  # it is the victim of a consolidation, and has not come back yet
    gone_ms: int | None = None  # since when it runs nowhere
    tentative: bool = False  # nobody was preempted for it: others may still take the room before it


class CycleState:
    """`future`: the inventory when everything that is terminating has left, with nominated placements taken
    and reservations kept; None while it is the same as today's."""

    def __init__(self, pool: Pool, now_ms: int) -> None:
        self.pool = pool
        self.now_ms = now_ms
        self.policy = pool.tenancy.policy
        self.bounded = bool(pool.tenancy.queues)
        self.starts: list[Start] = []
        self.evictions: list[Evict] = []
        self.future: Inventory | None = None

    def look_ahead(self) -> Inventory:
        """Return the future inventory; it is built when first needed."""
        if self.future is None:
            self.future = self.pool.inventory.copy()
        return self.future

    def ends_ms(self, ask: Ask) -> int | None:
        """When it would probably end if it started now; None: it is not expected to end."""
        length_s = expected_s(ask)
        return None if length_s is None else self.now_ms + length_s * 1000

    def amounts(self, variant: Variant, placements: tuple[Placement, ...], ask: Ask) -> Amounts:
        """What the request counts in its queues at these placements: also for the models that it gets."""
        if not variant.need.gpu_milli or len(variant.need.models) == 1:
            return variant.amounts
        models = self.pool.models_of(variant.need, placements)
        key = tuple(models.items())
        found = variant.by_model.get(key)
        if found is None:  # one for all: thousands may start at once
            found = variant.by_model[key] = amounts_of(variant.need, ask.num_nodes, models)
        return found

    def find(
        self, queue: str, variant: Variant, inventory: Inventory, *, within: Inventory | None = None
    ) -> tuple[Placement, ...] | None:
        """Placements for a variant. Where queues count single models, they stay within what the quotas of
        `queue` allow of each: the request stays whole, and only the models that are short are capped."""
        placements = inventory.find(variant.ask, within=within)
        if not variant.capped:
            return placements
        quotas = self.pool.quotas
        caps: dict[str, int] = {}
        while placements is not None:
            amounts = self.amounts(variant, placements, variant.ask)
            short = quotas.over(queue, amounts) or quotas.lack(queue, amounts)
            if short is None:
                return placements
            model = short.name.removeprefix("gpus/")
            if model == short.name or caps.get(model) == 0:
                return None
            less = min(quotas.spare(queue, short.name), amounts[short.name] - 1)
            caps[model] = 0 if model in caps else less
            placements = inventory.find(variant.ask, within=within, caps=caps)
        return None

    def place(self, books: WhatIf, ask: Ask, preferred: Allocation | None = None) -> Allocation | None:
        """Where it would be placed in this inventory, within quotas. `preferred`: the placement that an
        earlier cycle promised; it is used again where possible, so that promises made together can be kept
        together."""
        if preferred is not None and books.allows(ask.queue, preferred):
            return preferred
        for variant in self.pool.equivalence_class(ask).variants:
            if books.bounded and books.quotas.over(ask.queue, variant.amounts) is not None:
                continue
            placements = self.find(ask.queue, variant, books.inventory)
            if placements is not None and books.within(ask.queue, variant.amounts):
                return Allocation(variant.need, placements, self.amounts(variant, placements, ask))
        return None

    def passes_limit_today(self, queue: str, amounts: Amounts) -> bool:
        """Whether a limit is exceeded as long as what is terminating still runs."""
        pool = self.pool
        if not pool.terminating:
            return False
        mark = pool.quotas.mark()
        self.charge_today()
        over = pool.quotas.over(queue, amounts) is not None
        pool.quotas.rollback(mark)
        return over

    def charge_today(self) -> None:
        """Today's quotas again: what is terminating counts, nominated placements do not."""
        pool = self.pool
        for ask_id in pool.nominated:
            pool.quotas.refund(nominee(ask_id))
        for job_id in pool.terminating:
            held = pool.held[job_id]
            pool.quotas.charge(job_id, held.ask.queue, held.allocation.amounts)


def nominee(ask_id: str) -> str:
    """The holder of a nominated placement in the future inventory."""
    return f"nominated:{ask_id}"
