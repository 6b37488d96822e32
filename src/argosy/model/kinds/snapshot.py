"""Snapshots: the files of a session as they were at one moment, under a name, for new sessions to begin
with."""

from __future__ import annotations

from typing import Final

from argosy.model.kinds.kind import Checkpoint, Kind, spec_of
from argosy.model.rows import KindSpec, KindStatus


class SnapshotSpec(KindSpec, frozen=True, kw_only=True, omit_defaults=True, tag="snapshot", tag_field="kind"):
    """What was in the home of a session: work, settings, and packages that were installed there."""

    app: str  # that ran in the session
    session: str  # its name then
    copy: Checkpoint


class SnapshotStatus(
    KindStatus, frozen=True, kw_only=True, omit_defaults=True, tag="snapshot", tag_field="kind"
):
    """Nothing changes about one."""


#: The spec of a row that is a snapshot.
snapshot_spec: Final = spec_of(SnapshotSpec)


SNAPSHOT: Final = Kind(
    name="snapshot",
    decided_by="argosy.controllers.snapshot.decide",
    prefix="snp",
    spec=SnapshotSpec,
    status=SnapshotStatus,
    gangs=lambda row: (),
    title=lambda row: f"snapshot `{row.name}`",
    named=True,
    resource="sessions",
    keeps=lambda row: (snapshot_spec(row).copy,),
)
