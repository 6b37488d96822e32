"""Infrastructures that have a name already, so that task files and programs may speak of them: no more.

Whoever writes a driver or prices for one takes its line from here to a folder.
"""

from __future__ import annotations

from typing import Final

from argosy.infra.provider import Capabilities, Manifest

_RENTED: Final = Capabilities()

PLANNED: Final = (
    Manifest(name="hyperbolic", title="Hyperbolic", capabilities=_RENTED, class_name="Hyperbolic"),
    Manifest(name="mithril", title="Mithril", capabilities=_RENTED, class_name="Mithril"),
    Manifest(
        name="primeintellect", title="Prime Intellect", class_name="PrimeIntellect", capabilities=_RENTED
    ),
    Manifest(name="seeweb", title="Seeweb", capabilities=_RENTED, class_name="Seeweb"),
    Manifest(name="shadeform", title="Shadeform", capabilities=_RENTED, class_name="Shadeform"),
    Manifest(name="yotta", title="Yotta", capabilities=_RENTED, class_name="Yotta"),
)
