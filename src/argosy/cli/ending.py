"""All that a server still runs: told, ended and waited for, before `server stop --all`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.model.units import many

if TYPE_CHECKING:
    from argosy.cli.session import Session

#: Programs have their grace, and clouds are slow to take machines back.
_END_S: Final = 300.0
_LOOK_S: Final = 0.3


class Live(NamedTuple):
    """Something that goes on without the server."""

    kind: str
    name: str
    end: Callable[[], object]


def end_all(session: Session, *, yes: bool) -> None:
    """End what runs, and wait until it is gone. Raises `conflict` for what does not end."""
    from argosy.model.errors import ArgosyError

    screen = session.screen
    found = _living(session)
    if not found:
        return
    for kind in dict.fromkeys(each.kind for each in found):
        names = [each.name for each in found if each.kind == kind]
        screen.print(f"{many(len(names), kind)}: {', '.join(names)}")
    screen.confirm("End all of it? The disks of clusters go too.", yes=yes)
    for each in found:
        each.end()
    deadline = time.monotonic() + _END_S
    while left := _living(session):
        if time.monotonic() > deadline:
            rest = ", ".join(f"{each.kind} {each.name}" for each in left)
            raise ArgosyError(
                "conflict",
                f"has not ended within {_END_S:.0f} s: {rest}",
                hint="`argosy events` says what it waits for; the server goes on meanwhile",
            )
        time.sleep(_LOOK_S)
    session.note_clusters()


def _living(session: Session) -> list[Live]:
    """Those that bring jobs of their own come first: they would start them anew."""
    client = session.client

    def called(project: str, name: str) -> str:
        return name if project in ("", session.project) else f"{project}/{name}"

    found: list[Live] = []
    for service in client.services().services:
        name = called(service.project, service.name)
        found.append(Live("service", name, partial(client.down_service, name, now=True)))
    for pool in client.job_pools().pools:
        found.append(Live("job pool", pool.name, partial(client.down_job_pool, pool.name)))
    for each in client.sessions().sessions:
        name = called(each.project, each.name)
        found.append(Live("session", name, partial(client.end_session, name)))
    status = client.status()
    for cluster in status.clusters:
        name = session.called(cluster)
        found.append(Live("cluster", name, partial(client.down, name)))
    for job in status.jobs:
        found.append(Live("managed job", str(job.number), partial(client.cancel, None, [job.id])))
    return found
