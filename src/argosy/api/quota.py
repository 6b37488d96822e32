"""Who may have how much: queues, groups, presets. Amounts as in `model.tenancy`."""

# ruff: noqa: RUF012 - structs of msgspec copy their defaults

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Reply, Request, endpoint
from argosy.model.tenancy import Amounts, Tenancy


class QueueView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One queue of the tree, with what runs in it and below it."""

    path: str
    named: bool = True  # False: nobody wrote it down; it is there because somebody uses it
    used: Amounts = {}
    guaranteed: Amounts = {}
    deserved: Amounts = {}
    limit: Amounts = {}
    lend_limit: Amounts = {}
    borrows: Amounts = {}  # of what is used: beyond what it deserves
    lends: Amounts = {}  # of what it deserves: at most so much is used by others now
    running: int = 0  # jobs
    waiting: int = 0
    weight_milli: int = 1000
    share_milli: int = 0  # of what its parent can lend, per weight of 1
    max_pending: int | None = None
    refuse_over_limit: bool = False


class TenancyReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    tenancy: Tenancy
    queues: tuple[QueueView, ...] = ()  # parents before their children
    text: str = ""  # the tenancy as YAML


class TenancyRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """All of it anew. `rev`: only if nobody has written since that one; None: in any case."""

    tenancy: Tenancy
    rev: int | None = None
    check: bool = False  # only say what is wrong in it: nothing is set, and the reply shows what is set now


class QueueRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """One queue: what is given changes, the rest stays. An amount of None is taken away."""

    path: str
    guaranteed: dict[str, int | None] = {}
    deserved: dict[str, int | None] = {}
    limit: dict[str, int | None] = {}
    lend_limit: dict[str, int | None] = {}
    weight_milli: int | None = None
    max_pending: int | None = None  # -1: no bound
    refuse_over_limit: bool | None = None
    remove: bool = False


class QueueExplanation(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """A queue in words: what it has, borrows and lends, who could take it back, what a request would meet."""

    queue: QueueView
    lines: tuple[str, ...]


class QuotaCalls:
    @endpoint("GET", "/tenancy", permission="queues.read")
    def tenancy(self) -> TenancyReply:
        """Who shares what: queues with their usage, groups, presets, policy."""

    @endpoint("PUT", "/tenancy", TenancyRequest, permission="queues.write")
    def set_tenancy(self, tenancy: Tenancy, *, rev: int | None = None, check: bool = False) -> TenancyReply:
        """Set all of it anew. What breaks a rule of the tree is refused.

        `rev`: only if nobody has written since. `check`: only say what is wrong in it. Errors:
        "spec-invalid", "conflict", "forbidden".
        """

    @endpoint("PUT", "/queues", QueueRequest, permission="queues.write")
    def set_queue(self, request: QueueRequest) -> TenancyReply:
        """Change, make or remove one queue. Errors: "spec-invalid", "not-found", "forbidden"."""

    @endpoint("GET", "/queues/explain", permission="queues.read")
    def explain_queue(
        self,
        queue: Annotated[str, "its path"],
        *,
        request: Annotated[str | None, "also what this would meet: `A100:8`, `gpus=8,cpus=16`"] = None,
        nodes: Annotated[int | None, "of so many nodes"] = None,
    ) -> QueueExplanation:
        """A queue in words. Errors: "not-found", "usage"."""
