"""The audit log: who did what."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Reply, endpoint
from argosy.model.audit import Record


class AuditPage(Reply, frozen=True, kw_only=True, omit_defaults=True):
    records: tuple[Record, ...]  # in order
    more: bool = False  # there are older (or, with `after`, later) ones


class AuditVerdict(Reply, frozen=True, kw_only=True, omit_defaults=True):
    rows: int
    first: int  # number of the oldest row
    last: int
    head: str  # hash of the newest row: compare it with one that was written down elsewhere
    broken: str = ""  # what is wrong; "": every row follows the one before


class AuditCalls:
    @endpoint("GET", "/audit", permission="audit.read")
    def audit(
        self,
        *,
        who: Annotated[str, "only acts of this account"] = "",
        action: Annotated[str, "only this endpoint"] = "",
        outcome: Annotated[str, "done or denied"] = "",
        before: Annotated[int, "only rows below this number"] = 0,
        after: Annotated[int | None, "rows behind this number, oldest first"] = None,
        limit: Annotated[int, "at most so many"] = 100,
    ) -> AuditPage:
        """The newest acts, or those after a number."""

    @endpoint("GET", "/audit/verify", permission="audit.read")
    def verify_audit(self) -> AuditVerdict:
        """Whether every row of the audit log is as it was written."""
