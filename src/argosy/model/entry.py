"""What entries of the table `directory` have in common: people, projects, credentials, folders, volumes.

An entry that was removed stays, for the audit log to name.
"""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="none"):
    """What entries have in common."""

    id: str
    created_ms: int
    removed_ms: int = 0
    rev: int = 0

    @property
    def is_live(self) -> bool:
        return not self.removed_ms

    @property
    def unique(self) -> str:
        """What no other entry has, as `user:ann`; "": nothing. A live entry is found by it."""
        return ""

    @property
    def is_quiet(self) -> bool:
        """Whether a change of it stands in no audit log: what it belongs to is told there already."""
        return False

    @property
    def of(self) -> str:
        """The entry that it belongs to; "": none. Live ones are found by it."""
        return ""
