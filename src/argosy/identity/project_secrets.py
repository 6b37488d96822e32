"""Secrets of projects: values that are sealed at rest, given to tasks by name, and never read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.people import Secret
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

PREFIX: Final = "argosy:"  # of a value in a task that names a secret of the project
VALUE_MAX_BYTES: Final = 64 << 10


class ProjectSecrets:
    """Whoever calls has asked whether the caller may."""

    def __init__(self, store: Store, clock: Clock, ids: Ids) -> None:
        self._store, self._clock, self._ids = store, clock, ids

    async def set(self, project: str, name: str, value: str, *, by: str) -> Secret:
        """Raises `too-large`, `usage` for an empty one."""
        size = len(value.encode("utf-8", "surrogatepass"))
        if not value or size > VALUE_MAX_BYTES:
            code = "usage" if not value else "too-large"
            raise ArgosyError(code, f"a secret has 1 to {VALUE_MAX_BYTES} bytes, this has {size}")
        old = (await self._store.snapshot()).entry_called(f"secret:{project}:{name}")
        now_ms = self._clock.now_ms()
        if isinstance(old, Secret):
            entry = msgspec.structs.replace(old, set_ms=now_ms, set_by=by)
        else:
            entry = Secret(
                id=self._ids.new("sec"),
                created_ms=now_ms,
                project=project,
                name=name,
                set_ms=now_ms,
                set_by=by,
            )
        [entry] = await self._store.commit([entry], secrets={entry.id: {"value": value}})
        return entry

    async def remove(self, project: str, name: str) -> Secret:
        found = _named(await self._store.snapshot(), project, name)
        [gone] = await self._store.commit(
            [msgspec.structs.replace(found, removed_ms=self._clock.now_ms())], secrets={found.id: {}}
        )
        return gone

    async def filled(self, project: str, values: Mapping[str, str]) -> dict[str, str]:
        """Secrets of a task with what the project's secrets have in place of `argosy:NAME`. Raises
        `not-found`."""
        rows = await self._store.snapshot()
        found = dict(values)
        for variable, value in values.items():
            if value.startswith(PREFIX):
                entry = _named(rows, project, value.removeprefix(PREFIX))
                found[variable] = (await self._store.load_secrets(entry.id))["value"]
        return found


def names_in(values: Mapping[str, str]) -> list[str]:
    """Secrets of a project that a task names."""
    return [value.removeprefix(PREFIX) for value in values.values() if value.startswith(PREFIX)]


def _named(rows: Snapshot, project: str, name: str) -> Secret:
    entry = rows.entry_called(f"secret:{project}:{name}")
    if not isinstance(entry, Secret):
        raise ArgosyError(
            "not-found",
            f"project `{project}` has no secret `{name}`",
            hint=f"`argosy secret set {name}` sets it",
        )
    return entry
