"""Snapshots of sessions: their files, copied from where they lie into the server's own store."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.api.sessions import SnapshotView
from argosy.controllers.checkpoints import BYTES_MAX, fetch_tree
from argosy.infra.border import BorderError, RequestRefused
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.kinds.kind import Checkpoint
from argosy.model.kinds.session import session_spec, session_state
from argosy.model.kinds.snapshot import SNAPSHOT, SnapshotSpec, SnapshotStatus, snapshot_spec
from argosy.model.phases import Outcome, WorkloadPhase
from argosy.model.rows import Workload
from argosy.model.tree import Tree
from argosy.model.units import render_bytes
from argosy.server.guarding import project_of, sees
from argosy.server.services import Services
from argosy.server.sessions import place_of
from argosy.store.snapshot import Snapshot

_KEPT: Final = "`argosy session snapshots` lists them"


async def take(services: Services, session: Workload, name: str, caller: Caller) -> Workload:
    """A row for what the session has now; its files are in the server's store. Raises `wrong-state`,
    `node-unreachable`, `too-large`, `disk-full`."""
    copy = await _copied(services, session)
    return Workload(
        id=services.ids.new(SNAPSHOT.prefix),
        kind=SNAPSHOT.name,
        name=name,
        spec=SnapshotSpec(app=session_spec(session).app.name, session=session.name, copy=copy),
        status=SnapshotStatus(),
        phase=WorkloadPhase.RUNNING,
        user=caller.name or session.user,
        project=session.project,
        queue=session.queue,
        created_ms=services.clock.now_ms(),
    )


async def _copied(services: Services, session: Workload) -> Checkpoint:
    kept = session_state(session).checkpoint
    if session.phase is WorkloadPhase.STOPPED and kept is not None:
        return kept
    node, rank_id = place_of(await services.store.snapshot(), session)
    try:
        agent = await services.agents.get(node)
        found = await agent.kept(f"rank:{rank_id}", 0.0)
        tree = Tree(entries=tuple(sorted(found.entries, key=lambda entry: entry.path)))
        size_bytes = sum(entry.size for entry in tree.entries)
        if size_bytes > BYTES_MAX:
            raise ArgosyError(
                "too-large",
                f"session `{session.name}` has {render_bytes(size_bytes)}, and at most "
                f"{render_bytes(BYTES_MAX)} are kept",
                hint="move large data to a bucket or a folder",
            )
        digests = tree.chunk_digests()
        await fetch_tree(tree, dict.fromkeys(digests, agent), services.blobs)
    except RequestRefused as error:
        raise ArgosyError("unsupported", str(error), hint="stop the session, and start it again") from None
    except BorderError as error:
        raise ArgosyError("node-unreachable", f"its files could not be copied: {error}") from None
    digest = await services.blobs.put_tree(msgspec.json.encode(tree))
    return Checkpoint(tree=digest, at_ms=services.clock.now_ms(), size_bytes=size_bytes)


def view_of(row: Workload) -> SnapshotView:
    spec = snapshot_spec(row)
    return SnapshotView(
        id=row.id,
        name=row.name,
        app=spec.app,
        session=spec.session,
        at_ms=spec.copy.at_ms,
        size_bytes=spec.copy.size_bytes,
        user=row.user,
        project=row.project,
    )


def seen_snapshots(rows: Snapshot, caller: Caller) -> list[Workload]:
    """Those that are there for this caller."""
    return [row for row in rows.named(SNAPSHOT.name) if sees(caller, row)]


def find_snapshot(rows: Snapshot, name: str, caller: Caller) -> Workload:
    """By name or id. Raises `not-found`."""
    found = rows.find_named(SNAPSHOT.name, name, project_of(caller))
    if found is None or not sees(caller, found):
        found = next((row for row in seen_snapshots(rows, caller) if name in (row.id, row.name)), None)
    if found is None:
        raise ArgosyError("not-found", f"there is no snapshot `{name}`", hint=_KEPT)
    return found


def free_snapshot_name(rows: Snapshot, session: Workload, asked: str) -> str:
    """What was asked for, or the session's name with the first number that makes it new. Raises
    `conflict`."""
    taken = {row.name for row in rows.named(SNAPSHOT.name) if row.project == session.project}
    if asked:
        if asked in taken:
            raise ArgosyError(
                "conflict",
                f"there is a snapshot `{asked}` already",
                hint=f"choose another name, or remove it: `argosy session snapshots --remove {asked}`",
            )
        return asked
    number = 1
    while (name := f"{session.name}-{number}") in taken:
        number += 1
    return name


def removed(row: Workload, now_ms: int) -> Workload:
    """The row of a snapshot that is no longer there."""
    return msgspec.structs.replace(
        row, phase=WorkloadPhase.FINISHED, outcome=Outcome.CANCELLED, ended_ms=now_ms
    )
