"""Rows of the catalog that can be launched: those of providers in use whose offers are priced there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.model.areas import Atlas
from argosy.model.ids import Clock
from argosy.model.market import Market

if TYPE_CHECKING:
    from argosy.catalog import Catalog
    from argosy.planning.offered import Priced

_LOOK_S: Final = 2.0  # so often it is looked whether prices were refreshed


class _Given(NamedTuple):
    """What was given last, and what it was made from."""

    names: frozenset[str]
    market: Market
    priced: Priced
    looked_s: float


class RentedRows:
    """For plans and controllers alike. `catalog`: the present one; it is opened when a provider in use is
    priced there, and not before. `names`: those providers."""

    def __init__(self, catalog: Callable[[], Catalog], clock: Clock) -> None:
        self._catalog, self._clock = catalog, clock
        self._given: _Given | None = None
        self.names: Callable[[], frozenset[str]] = frozenset
        self.revision = 0  # of what `priced` gives

    def atlas(self) -> Atlas:
        """Where regions are."""
        return self._catalog().atlas()

    def priced(self) -> Priced | None:
        """The same object until the rows change; None when no provider in use is priced by the catalog.
        Prices that were refreshed count after a moment."""
        names = self.names()
        given, now_s = self._given, self._clock.monotonic_s()
        if not names:
            self.revision += given is not None
            self._given = None
            return None
        same = given is not None and given.names == names
        if given is not None and same and 0 <= now_s - given.looked_s < _LOOK_S:
            return given.priced
        from argosy.planning.offered import Priced

        market = self._catalog().market
        if given is not None and same and given.market is market:
            self._given = given._replace(looked_s=now_s)
            return given.priced
        priced = Priced(some_of(market, [name for name in market.providers if name in names]))
        self._given, self.revision = _Given(names, market, priced, now_s), self.revision + 1
        return priced


def some_of(market: Market, names: Sequence[str]) -> Market:
    """Some providers of a market."""
    return Market(names, market.block, market.vendors)
