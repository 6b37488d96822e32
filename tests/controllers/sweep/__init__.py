"""A kind of workload as a plug-in: several trials of one program. This folder and one line are all of it."""

from __future__ import annotations

from argosy.model.kinds.kind import Kind
from argosy.model.rows import KindSpec, KindStatus


class SweepSpec(KindSpec, frozen=True, kw_only=True, omit_defaults=True, tag="sweep", tag_field="kind"):
    run: str
    trials: int


class SweepStatus(KindStatus, frozen=True, kw_only=True, omit_defaults=True, tag="sweep", tag_field="kind"):
    started: int = 0


SWEEP = Kind(
    name="sweep",
    prefix="swp",
    decided_by="sweep.decide",
    spec=SweepSpec,
    status=SweepStatus,
    gangs=lambda row: (),  # its trials ask for nodes, it does not
    title=lambda row: f"sweep `{row.name}`",
    named=True,
)
