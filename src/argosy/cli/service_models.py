"""Services that share an endpoint (`service.models`): named as one, they are meant all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.cli.session import Session

if TYPE_CHECKING:
    from argosy.api.services import ServiceView
    from argosy.model.serving import Strategy
    from argosy.model.task import Task


def shared_as(tasks: list[Task], name: str) -> list[Task]:
    """The tasks of one file, with an endpoint of another name where one is given."""
    import msgspec

    if not name:
        return tasks
    found = []
    for task in tasks:
        assert task.service is not None
        old = task.service.endpoint
        service = msgspec.structs.replace(task.service, endpoint=name)
        called = f"{name}{(task.name or '').removeprefix(old)}"
        found.append(msgspec.structs.replace(task, name=called, service=service))
    return found


def members(session: Session, name: str) -> tuple[ServiceView, ...]:
    """The service of this name, or those that share an endpoint of it. Errors: "not-found"."""
    from argosy.model.errors import ArgosyError

    try:
        return (session.client.service(name),)
    except ArgosyError as error:
        shared = tuple(each for each in session.client.services().services if each.shared == name)
        if error.code != "not-found" or not shared:
            raise
        return shared


def update_shared(
    session: Session, name: str, tasks: list[Task], *, strategy: Strategy, force: bool, note: str
) -> None:
    """A new revision of each model that is there; new models are started, others are taken down."""
    tasks = shared_as(tasks, name)
    there = {each.name for each in session.client.services().services if each.shared == name}
    if not there:
        session.client.service(name)  # says that there is none
    for task in tasks:
        called = task.name or ""
        is_there = called in there
        reply = session.client.apply_service(
            called, task, update=is_there, strategy=strategy, force=force, note=note, user=session.user
        )
        session.screen.warn(reply.warnings)
        session.screen.print(reply.said)
    for gone in sorted(there - {task.name for task in tasks}):
        session.client.down_service(gone)
        session.screen.print(f"service `{gone}` ends: the file has no such model any more")
    session.screen.say(f"  watch it:  argosy serve status {name}", "dim")
