"""What the fake server answers about sessions: one JupyterLab on half a GPU that nobody has used for a
while."""

from __future__ import annotations

from typing import Final

from argosy.api.endpoint import Done
from argosy.api.sessions import AppList, IdleView, SessionList, SessionView, SnapshotList, SnapshotView
from argosy.model.apps import App, Idle
from argosy.testing.shared_answers import STARTED_MS

APP: Final = App(
    name="jupyter", title="JupyterLab", about="Notebooks, terminals and files.", listens="socket"
)
SESSION: Final = SessionView(
    id="ses-1",
    name="lab",
    app="jupyter",
    title="JupyterLab",
    status="running",
    user="me",
    project="default",
    resources="A100:0.5",
    infra="local",
    is_proxied=True,
    created_ms=STARTED_MS,
    started_ms=STARTED_MS,
    up_ms=STARTED_MS,
    job="job-1",
    idle=Idle(after_s=1800),
    use=IdleView(
        used_ms=STARTED_MS,
        used_by="requests",
        rests_at_ms=STARTED_MS + 1_800_000,
        why="nobody used it for 30m",
        snoozes_left=5,
    ),
)
SNAPSHOT: Final = SnapshotView(
    id="snp-1",
    name="lab-1",
    app="jupyter",
    session="lab",
    at_ms=STARTED_MS,
    size_bytes=1 << 20,
    user="me",
    project="default",
)
_DONE: Final = Done(names=("lab",))
ANSWERS: Final[dict[str, object]] = {
    "apps": AppList(apps=(APP,)),
    "start_session": SESSION,
    "session": SESSION,
    "sessions": SessionList(sessions=(SESSION,)),
    "rest_session": _DONE,
    "resume_session": _DONE,
    "end_session": _DONE,
    "set_session_idle": _DONE,
    "share_session": _DONE,
    "snooze_session": _DONE,
    "snapshot_session": SNAPSHOT,
    "snapshots": SnapshotList(snapshots=(SNAPSHOT,)),
    "remove_snapshot": _DONE,
}
