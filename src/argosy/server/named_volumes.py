"""Named volumes of this server: their rows, and what their places have of them.

A row is written before its place is asked to make anything, and removed after its place has removed it: each
step may be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from argosy.infra.border import BorderError, RequestRefused
from argosy.infra.provider import KeepsVolumes, Providers
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.folders import Folder, called
from argosy.model.ids import Clock, Ids
from argosy.model.kinds import programs_of, title
from argosy.model.named_volumes import NamedVolume, checked, merged
from argosy.model.own_volumes import OwnVolume, infra_of
from argosy.server.guarding import scopes
from argosy.store.errors import Conflict
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

T = TypeVar("T")


class NamedVolumes:
    def __init__(self, store: Store, clock: Clock, ids: Ids, providers: Providers) -> None:
        self._store, self._clock, self._ids, self._providers = store, clock, ids, providers

    async def all(self, caller: Caller, project: str = "") -> list[NamedVolume]:
        """Those that the caller may name."""
        rows, seen = await self._store.snapshot(), scopes(caller, "folders.read")
        found = [
            each
            for each in _of(rows)
            if project in ("", each.project) and seen.holds(each.project, each.owner)
        ]
        return sorted(found, key=lambda each: (each.project, each.name))

    async def find(self, name: str, project: str) -> NamedVolume:
        """Raises "not-found"."""
        found = (await self._store.snapshot()).entry_called(called(project, "", name))
        if isinstance(found, NamedVolume):
            return found
        raise ArgosyError(
            "not-found", f"there is no volume `{name}` in {project}", hint="`argosy volumes ls` lists them"
        )

    async def apply(self, wanted: NamedVolume) -> NamedVolume:
        """The row of a volume that its place has. Raises "usage", "conflict", "store-busy"."""
        wanted = checked(wanted)
        keeper = self._keeper(wanted)
        rows = await self._store.snapshot()
        before = rows.entry_called(wanted.unique)
        if isinstance(before, Folder):
            raise ArgosyError(
                "conflict",
                f"`{wanted.name}` is a folder in {wanted.project}",
                hint="choose another name; of a folder argosy folder quota sets the size",
            )
        if isinstance(before, NamedVolume):
            row = merged(before, wanted)
        else:
            id, now_ms = self._ids.new("vol"), self._clock.now_ms()
            row = msgspec.structs.replace(wanted, id=id, created_ms=now_ms)
        row = await self._written(row)
        is_ours = await _asked(lambda: keeper.make_volume(infra_of(row.infra), _own(row)))
        now_ms = row.made_ms or self._clock.now_ms()
        return await self._written(
            msgspec.structs.replace(row, made_ms=now_ms, is_ours=row.is_ours or is_ours)
        )

    async def remove(self, volume: NamedVolume) -> None:
        """Raises "conflict" while something lives that names it, "store-busy"."""
        held = _holders(await self._store.snapshot(), volume)
        if held:
            raise ArgosyError(
                "conflict",
                f"`{volume.name}` is in use by {', '.join(held[:3])}"
                + (f" and {len(held) - 3} more" if len(held) > 3 else ""),
                hint="it can be deleted when they have ended",
            )
        if volume.is_ours:
            keeper = self._keeper(volume)
            await _asked(lambda: keeper.remove_volume(infra_of(volume.infra), _own(volume)))
        await self._written(msgspec.structs.replace(volume, removed_ms=self._clock.now_ms()))

    def _keeper(self, volume: NamedVolume) -> KeepsVolumes:
        place = infra_of(volume.infra).provider or ""
        provider = self._providers.all().get(place)
        if not isinstance(provider, KeepsVolumes):
            raise ArgosyError(
                "usage",
                f"`{volume.name}`: this server does not use {place}, which has `{volume.type}`",
                hint=f"argosy check {place}",
            )
        return provider

    async def _written(self, row: NamedVolume) -> NamedVolume:
        try:
            [written] = await self._store.commit([row])
        except Conflict:
            raise ArgosyError(
                "conflict", f"`{row.name}` was changed by somebody else meanwhile", hint="try again"
            ) from None
        assert isinstance(written, NamedVolume)
        return written


def _of(rows: Snapshot) -> list[NamedVolume]:
    return [each for each in rows.people.values() if isinstance(each, NamedVolume) and each.is_live]


def _own(volume: NamedVolume) -> OwnVolume:
    return OwnVolume(
        type=volume.type, path="/", name=volume.name, size_bytes=volume.size_bytes, config=volume.config
    )


def _holders(rows: Snapshot, volume: NamedVolume) -> list[str]:
    """What lives and names it, as `job 3 of ann`."""
    return [
        f"{title(row)} of {row.user}" if row.user else title(row)
        for row in rows.workloads.values()
        if (row.project or "default") == volume.project
        for task in programs_of(row)
        if any((each.type, each.name) == (volume.type, volume.name) for each in task.volumes)
    ]


async def _asked(question: Callable[[], Awaitable[T]]) -> T:
    """What a place says about a volume, as an error of ours."""
    try:
        return await question()
    except RequestRefused as error:
        raise ArgosyError("usage", str(error), hint="correct what was applied, and apply it again") from error
    except BorderError as error:
        raise ArgosyError("store-busy", str(error), hint="repeat the command: it goes on there") from error
