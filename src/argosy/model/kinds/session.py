"""Sessions: an app that somebody uses, with files that stay when it rests. The parent of one job at a
time."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.model.apps import App, Idle, Isolation, Network
from argosy.model.kinds.kind import Checkpoint, Kind, spec_of, status_of
from argosy.model.offer import Confirmed
from argosy.model.rows import KindSpec, KindStatus, Workload
from argosy.model.task import Task


class Share(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody else may open the app of a session for a while, or watch its terminals."""

    who: str  # the name of a user, or project:NAME
    until_ms: int
    watch: bool = False  # its terminals, read only; not its app


class SessionSpec(KindSpec, frozen=True, kw_only=True, omit_defaults=True, tag="session", tag_field="kind"):
    """An app on the resources of `task`. The app stands here as it was when the session was made."""

    app: App
    task: Task
    isolation: Isolation = Isolation.SANDBOX
    network: Network = Network.DEFAULT
    image: str = ""  # of its container, at that level of isolation
    idle: Idle = Idle()
    confirmed: Confirmed | None = None  # what its launch was told to keep to
    begins_with: str = ""  # the digest of the tree that its home has before it first runs


class SessionStatus(
    KindStatus, frozen=True, kw_only=True, omit_defaults=True, tag="session", tag_field="kind"
):
    """How far a session is."""

    starts: int = 0  # jobs that were made for it so far
    up_ms: int = 0  # since when its app can be used, this time; 0: it cannot
    active_ms: int = 0  # when somebody or something last used it, as far as is written down
    active_by: str = ""  # what that was: requests, kernels, cpu, gpu, terminal, snooze
    gpu_active_ms: int = 0  # when its GPUs were last at work
    warned_ms: int = 0  # when people were told that it will soon be put to rest; 0: they were not
    snoozed_ms: int = 0  # it is not put to rest before this time
    snoozes: int = 0  # times that people asked for more time since it was last used
    checkpoint: Checkpoint | None = None  # the last copy of what it keeps, where its nodes share no folder
    shares: tuple[Share, ...] = ()
    ran_on: str = ""  # the claim that its last job ran on


#: The spec of a row that is a session.
session_spec: Final = spec_of(SessionSpec)
#: The status of a row that is a session.
session_state: Final = status_of(SessionStatus)


def is_session(row: Workload) -> bool:
    return isinstance(row.spec, SessionSpec)


def _kept(spec: SessionSpec, state: SessionStatus) -> tuple[Checkpoint, ...]:
    """What it had when it was put to rest, and what it begins with: it may rest, or wait, for long."""
    first = (Checkpoint(tree=spec.begins_with, at_ms=0, size_bytes=0),) if spec.begins_with else ()
    return (*first, *((state.checkpoint,) if state.checkpoint is not None else ()))


SESSION: Final = Kind(
    name="session",
    decided_by="argosy.controllers.session.decide",
    prefix="ses",
    spec=SessionSpec,
    status=SessionStatus,
    gangs=lambda row: (),  # its job asks for a node, it does not
    title=lambda row: f"session `{row.name}`",
    named=True,
    tends=True,
    resource="sessions",
    programs=lambda row: (session_spec(row).task,),
    keeps=lambda row: _kept(session_spec(row), session_state(row)),
)
