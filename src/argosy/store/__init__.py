"""The one database: rows, snapshots of them, and one kind of write.

`Store` is imported on first use: who only looks at snapshots needs no SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from argosy.store.errors import Conflict, IllegalMove, KeyUsed
from argosy.store.snapshot import Snapshot
from argosy.store.state_dir import KEY_FILE, lock_state_dir

if TYPE_CHECKING:
    from argosy.store.store import Store

__all__ = ["KEY_FILE", "Conflict", "IllegalMove", "KeyUsed", "Snapshot", "Store", "lock_state_dir"]


def __getattr__(name: str) -> Any:  # Any: the class Store, see above
    if name == "Store":
        from argosy.store.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
