"""Checks tasks as clients send them: what our own client never sends is refused, and presets are filled
in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.model.access import Caller, Target
from argosy.model.errors import ArgosyError
from argosy.model.folders import called
from argosy.model.hooks import MOMENTS
from argosy.model.named_volumes import NamedVolume, with_named
from argosy.model.notify import HIDDEN, OCCASIONS, Notify, is_channel
from argosy.model.offer import Plan
from argosy.model.own_volumes import with_own_volumes
from argosy.model.task import Task, render_ignored
from argosy.server.channels import ChannelFile
from argosy.server.data_checks import DataChecks
from argosy.server.folder_mounts import FolderMounts, with_dots
from argosy.server.guarding import DEFAULT, project_of, require
from argosy.server.identity import Identity
from argosy.server.tenancy import Tenants
from argosy.storage.blobs import BlobStore
from argosy.store.acting import note_used
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

if TYPE_CHECKING:
    from argosy.planning.ability import Ability

_TASKS_MAX: Final = 20_000
_SERVES: Final = "this runs the program once; `argosy serve up FILE.yaml` makes a service of it"
_VARIABLE_MAX: Final = (128 << 10) - 2  # bytes of name and value, with `=` and the end


class Intake:
    """Looks at every task before anything is planned or written."""

    def __init__(self, *, store: Store, blobs: BlobStore, tenants: Tenants, channels: ChannelFile) -> None:
        self._store, self._blobs, self._tenants = store, blobs, tenants
        self._channels = channels
        self.data: DataChecks | None = None  # looks at storage that tasks name; None: nobody does
        self.folders: FolderMounts | None = None  # what `volumes` of a task mean
        self.identity: Identity | None = None  # knows what `argosy:NAME` in a task means

    async def task(
        self,
        task: Task,
        caller: Caller,
        *,
        with_files: bool,
        project: str = "",
        owner: str = "",
        links: bool = True,
    ) -> Task:
        """Checked, with its presets, its folders, and what the project's secrets have where it names them.
        `project`: "" means the caller's; `owner`: whose dot folders come along, "": nobody's; `links`:
        whether what runs can follow a link to a folder. Raises `spec-invalid`, `conflict` (files are
        missing), `not-found`, `forbidden`."""
        if with_files:
            await self._bring_files((task,))
        rows = await self._store.snapshot()
        meant = _with_named(rows, self._checked(task, with_files=with_files), caller, project)
        checked = with_own_volumes(meant)
        if with_files and self.data is not None:
            await self.data.check((checked,))
        ready = self._tenants.prepared(rows, checked, caller)
        if not with_files:
            return ready
        [ready] = await self._with_folders([ready], caller, owner, links=links)
        return await self._with_secrets(ready, caller, project)

    async def tasks(
        self, tasks: Sequence[Task], caller: Caller, *, project: str = "", owner: str = ""
    ) -> tuple[Task, ...]:
        await self._bring_files(tasks[:_TASKS_MAX])
        rows = await self._store.snapshot()
        meant = [_with_named(rows, each, caller, project) for each in self._checked_all(tasks)]
        checked = tuple(map(with_own_volumes, meant))
        if self.data is not None:
            await self.data.check(checked)
        ready = [self._tenants.prepared(rows, task, caller) for task in checked]
        ready = await self._with_folders(ready, caller, owner)
        return tuple([await self._with_secrets(task, caller, project) for task in ready])

    async def folder_lines(self, task: Task, caller: Caller, owner: str = "") -> tuple[str, ...]:
        """What nodes would get for the folders of a task. Raises as `task`."""
        if self.folders is None:
            return ()
        return await self.folders.told(task, caller, owner)

    async def _with_folders(
        self, tasks: Sequence[Task], caller: Caller, owner: str, *, links: bool = True
    ) -> list[Task]:
        if self.folders is None:
            return list(tasks)
        dots = await self.folders.dots(caller, owner, links=links)
        ready = [await self.folders.resolved(task, caller, owner, links=links) for task in tasks]
        return [with_dots(task, dots) for task in ready]

    async def _with_secrets(self, task: Task, caller: Caller, project: str) -> Task:
        if not task.secrets or self.identity is None:
            return task
        from argosy.identity.project_secrets import names_in

        named = names_in(task.secrets)
        if not named:
            return task
        project = project_of(caller, project)
        require(caller, Target(project), "secrets.use")
        note_used(f"{project}/{name}" for name in named)
        return msgspec.structs.replace(
            task, secrets=await self.identity.secrets.filled(project, task.secrets)
        )

    async def _bring_files(self, tasks: Sequence[Task]) -> None:
        """What was uploaded to another server of the database comes here."""
        trees = {each.workdir_tree for each in tasks}
        trees.update(mount.tree for each in tasks for mount in each.file_mounts)
        for digest in sorted(filter(None, trees)):
            await self._blobs.holds_tree(digest)

    def _checked_all(self, tasks: Sequence[Task]) -> tuple[Task, ...]:
        if not tasks:
            raise ArgosyError("usage", "no task is given")
        if len(tasks) > _TASKS_MAX:
            raise ArgosyError("too-large", f"at most {_TASKS_MAX:,} tasks at once, these are {len(tasks):,}")
        return tuple(
            self._checked(task, with_files=True, where=f"tasks[{i}]") for i, task in enumerate(tasks)
        )

    def _checked(self, task: Task, *, with_files: bool, where: str = "task") -> Task:
        """What a client of ours never sends, and others may. Raises `spec-invalid`, `conflict` (files are
        missing)."""
        # Here, not above: it brings the parser of YAML along, which a server needs to answer nothing else.
        from argosy.spec.names import check_name, parse_variable

        if task.name:
            check_name("task", task.name)
        wrong = ""
        if not 1 <= task.num_nodes <= 10_000:
            wrong = f"num_nodes is {task.num_nodes}: at least 1"
        elif not 0 <= task.min_nodes < max(task.num_nodes, 2):
            wrong = f"min_nodes is {task.min_nodes}: below num_nodes, or 0"
        elif task.min_nodes and (task.deadline_s is not None or task.deadline_at_ms is not None):
            wrong = "a task with a deadline has a fixed number of nodes"
        elif not task.resources:
            wrong = "resources has no candidate"
        elif any(hook.at not in MOMENTS or hook.timeout_s < 1 for hook in task.hooks):
            wrong = f"a hook has a time limit of 1 s at least, and is one of {', '.join(MOMENTS)}"
        elif task.grace_s < 0 or any(
            each is not None and each <= 0
            for each in (task.max_duration_s, task.deadline_s, task.estimated_s)
        ):
            wrong = "a duration is below 0"
        elif not 0 <= task.progress_milli <= 1000:
            wrong = f"progress_milli is {task.progress_milli}: 0 to 1000"
        elif task.objective not in ("cost", "time", "carbon"):
            wrong = f"objective is `{task.objective}`: cost, time or carbon"
        elif set(task.secret_files) - set(task.secrets):
            wrong = f"there is no secret `{min(set(task.secret_files) - set(task.secrets))}` to be a file"
        if wrong:
            raise ArgosyError("spec-invalid", wrong, where=where)
        for name in (*task.envs, *task.secrets):
            try:
                parse_variable(name)
            except ValueError as error:
                raise ArgosyError("spec-invalid", str(error), where=where) from None
        for name, value in (*task.envs.items(), *task.secrets.items()):
            if len(name) + len(value.encode("utf-8", "surrogateescape")) > _VARIABLE_MAX:
                raise ArgosyError(
                    "too-large",
                    f"the value of `{name}` is larger than the 128 KiB that Linux allows a variable",
                    hint="put it into a file, and name that in `file_mounts`",
                    where=where,
                )
        self.check_notify(task.notify, where)
        if with_files:
            self._check_files(task, where)
        return task

    def check_notify(self, wishes: Sequence[Notify], where: str) -> None:
        """Raises `spec-invalid`, `not-found` for a channel that the server does not have."""
        for wish in wishes:
            wrong = [each for each in wish.on if each not in OCCASIONS]
            if wrong or wish.to == HIDDEN or not wish.to:
                raise ArgosyError("spec-invalid", "`notify` cannot be read", where=where)
            if is_channel(wish.to):
                self._channels.check(wish.to)

    def _check_files(self, task: Task, where: str) -> None:
        if task.workdir_git is not None and not task.workdir_tree:
            raise ArgosyError(
                "unsupported",
                "a git repository as `workdir` is fetched by the client, and this one did not",
                hint="launch with `argosy` or its Python module, or send the files as a tree",
                where=where,
            )
        trees = [("workdir", task.workdir_tree)] if task.workdir_tree else []
        trees += [(mount.target, mount.tree) for mount in task.file_mounts if mount.tree]
        for target, digest in trees:
            if digest and not self._blobs.has_tree(digest):
                raise ArgosyError(
                    "conflict",
                    f"the files of `{target}` are not on the server",
                    hint="repeat the command: it uploads them",
                    where=where,
                )


def _with_named(rows: Snapshot, task: Task, caller: Caller, project: str) -> Task:
    """With what the names of volumes mean in the project. Raises `spec-invalid`."""
    where = project or caller.project or DEFAULT
    names = {each.folder for each in task.volumes if each.folder}
    found = [rows.entry_called(called(where, "", name)) for name in names]
    return with_named(task, {each.name: each for each in found if isinstance(each, NamedVolume)})


def check_fixed(*tasks: Task) -> None:
    """Raises `spec-invalid` for a gang that makes do with fewer nodes, where there is a cluster."""
    for task in tasks:
        if task.min_nodes:
            nodes = f"{task.min_nodes}-{task.num_nodes}"
            raise ArgosyError(
                "spec-invalid",
                f"`num_nodes: {nodes}` is a range, and a cluster has a fixed number of nodes",
                hint="write one number, or run it as a managed job: `argosy jobs launch`",
            )


def closed_ports(cluster: str, plan: Plan, abilities: Mapping[str, Ability]) -> tuple[str, ...]:
    """What to do where the chosen place cannot open the `ports` of a task to others; () where it can."""
    choice = plan.choices[0] if plan.choices else None
    if choice is None or not choice.resources.ports:
        return ()
    provider = choice.offer.provider
    if provider in abilities and abilities[provider].ports:
        return ()
    numbers = " ".join(port.partition("-")[0] for port in choice.resources.ports)
    return (f"`ports` are not opened on {provider}: `argosy port-forward {cluster} {numbers}` reaches them",)


def render_warnings(*tasks: Task, heeded: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """What tasks say that is not supported yet, in one warning.

    >>> render_warnings(Task(not_executed=("inputs",)))
    ('not supported yet, ignored: inputs',)
    """
    fields = sorted({field for task in tasks for field in task.not_executed} - heeded)
    told = (render_ignored(fields),) if fields else ()
    return (*told, _SERVES) if any(task.service is not None for task in tasks) else told
