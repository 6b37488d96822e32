"""volumes: what tasks name under `volumes`, by SkyPilot's command names: folders, and volumes of places."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from argosy.cli.session import Session, answering, examples, yes_option
from argosy.model.folders import TRASH_DAYS
from argosy.model.units import render_bytes

if TYPE_CHECKING:
    from argosy.api.folders import FolderView
    from argosy.api.volumes import NamedVolumeView
    from argosy.model.errors import ArgosyError

_FIELDS: Final = ("name", "type", "infra", "size", "config", "use_existing", "labels")
_CONFIG: Final = ("storage_class_name", "access_mode", "host_path")


class VolumeRow(NamedTuple):
    """One line of what there is: a volume of a place, or a folder."""

    name: str
    project: str
    owner: str  # "": the project
    type: str  # `folder`, or that of a place
    infra: str  # of a folder: the volume of the server that it is on
    size_bytes: int
    state: str

    @property
    def size(self) -> str:
        return render_bytes(self.size_bytes) if self.size_bytes else ""


@click.group(
    epilog=examples(
        "argosy volumes apply data.yaml",
        "argosy volumes apply --name train --size 200GB",
        "argosy volumes ls",
        "argosy volumes delete data -y",
    )
)
def volumes() -> None:
    """Volumes that tasks name under `volumes`: folders of the server, and volumes of providers."""


@volumes.command(
    epilog="""\b
Examples:
  argosy volumes apply data.yaml
  argosy volumes apply --name data --type k8s-pvc --infra k8s/lab --size 100GB
  argosy volumes apply --name old --type k8s-pvc --use-existing
  argosy volumes apply --name train --size 200GB

Without a type it is a folder of the server, and its size is the quota. data.yaml:
  name: data
  type: k8s-pvc          # or k8s-hostpath, runpod-network-volume
  infra: k8s/lab         # runpod/US/US-KS-2
  size: 100GB
  config: {storage_class_name: fast, access_mode: ReadWriteMany}
"""
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("-n", "--name", help="Its name.")
@click.option("--type", "kind", help="Type of a volume of the provider's own.")
@click.option("--infra", help="PLACE[/REGION[/ZONE]].")
@click.option("--size", help="Size of a new one, such as 100GB.")
@click.option("--use-existing", is_flag=True, help="It exists already; create nothing.")
@answering
def apply(
    session: Session,
    file: Path | None,
    name: str | None,
    kind: str | None,
    infra: str | None,
    size: str | None,
    use_existing: bool,
) -> None:
    """Make a volume, or change the quota of a folder; what is there stays."""
    told = _read(session.cwd / file) if file is not None else {}
    flags = {"name": name, "type": kind, "infra": infra, "size": size, "use_existing": use_existing or None}
    told.update({field: value for field, value in flags.items() if value is not None})
    if not told.get("name"):
        raise click.UsageError("which volume is meant? Write `name: NAME` in a file, or --name NAME")
    if not told.get("type"):
        _apply_folder(session, told)
        return
    from argosy.model.own_volumes import VolumeConfig

    exists = bool(told.get("use_existing"))
    made = session.client.apply_volume(
        str(told["name"]),
        str(told["type"]),
        infra=str(told.get("infra") or ""),
        size_bytes=0 if exists else _size(told.get("size")),
        config=VolumeConfig(**told.get("config") or {}),
        user=session.user,
    )
    if session.screen.told(_of_place(made)._asdict()):
        return
    how = "made" if made.is_ours else "there"
    session.screen.say(f"The volume {made.name} is {how}. In a task: `volumes: {{/data: {made.name}}}`")


def _apply_folder(session: Session, told: dict[str, Any]) -> None:
    from argosy.api.folders import FolderChange
    from argosy.model.errors import ArgosyError

    name, size = str(told["name"]), _size(told.get("size"))
    if told.get("infra"):
        raise click.UsageError(f"`infra` needs `type`: without it {name} is a folder of the server")
    try:
        found = session.client.folder(name)
    except ArgosyError as error:
        if error.code != "not-found":
            raise
        if told.get("use_existing"):
            raise
        found = session.client.make_folder(name, quota_bytes=size, user=session.user)
    if size and found.quota_bytes != size:
        found = session.client.change_folder(found.id, FolderChange(quota_bytes=size))
    if session.screen.told(_of_folder(found)._asdict()):
        return
    quota = f" with a quota of {render_bytes(found.quota_bytes)}" if found.quota_bytes else ""
    session.screen.say(f"The folder {found.name} is there{quota}. In a task: `volumes: {{/data: {name}}}`")


def _read(path: Path) -> dict[str, Any]:  # Any: what people write
    import yaml

    from argosy.model.errors import ArgosyError

    def wrong(what: str, hint: str) -> ArgosyError:
        return ArgosyError("spec-invalid", what, hint=hint, where=str(path))

    try:
        told = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ArgosyError("not-found", f"`{path}`: {error.strerror}", hint="check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise wrong(
            f"this is no YAML: {' '.join(str(error).split())}", "write `name: NAME` and more"
        ) from None
    if not isinstance(told, dict):
        raise wrong("this is no mapping", f"it has {', '.join(_FIELDS)}")
    config = told.get("config") or {}
    unknown = [str(each) for each in told if each not in _FIELDS]
    if not isinstance(config, dict):
        unknown.append("config")
    else:
        unknown += [f"config.{each}" for each in config if each not in _CONFIG]
    if unknown:
        known = [*_FIELDS, *(f"config.{each}" for each in _CONFIG)]
        raise wrong(f"`{unknown[0]}` is no field of a volume", f"known are {', '.join(known)}")
    return told


def _size(text: object) -> int:
    from argosy.spec.notation import parse_bytes

    try:
        return parse_bytes(str(text)) if text else 0
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@volumes.command(epilog=examples("argosy volumes ls", "argosy volumes ls --json"))
@answering
def ls(session: Session) -> None:
    """List what tasks may name under `volumes`."""
    rows = [_of_place(each) for each in session.client.named_volumes().volumes]
    rows += [_of_folder(each) for each in session.client.folders().folders if each.access]
    cells = [
        (each.name, each.type, each.infra, each.size, each.state, each.owner or f"project {each.project}")
        for each in rows
    ]
    session.screen.listed(
        {"volumes": [each._asdict() for each in rows]},
        ("NAME", "TYPE", "WHERE", "SIZE", "STATE", "OWNER"),
        cells,
        none="No volumes. Make one: argosy volumes apply --name NAME",
    )


def _of_place(each: NamedVolumeView) -> VolumeRow:
    state = "not made yet" if not each.made_ms else "made here" if each.is_ours else "was there"
    return VolumeRow(each.name, each.project, each.owner, each.type, each.infra, each.size_bytes, state)


def _of_folder(each: FolderView) -> VolumeRow:
    state = "in the trash" if each.trashed_ms else each.access
    return VolumeRow(each.name, each.project, each.owner, "folder", each.volume, each.quota_bytes, state)


@volumes.command(epilog=examples("argosy volumes delete data", "argosy volumes delete data train -y"))
@click.argument("names", nargs=-1, required=True)
@yes_option
@answering
def delete(session: Session, names: tuple[str, ...], yes: bool) -> None:
    """Delete volumes with their bytes; a folder goes to the trash, what was there before is forgotten."""
    from argosy.api.folders import FolderChange

    named = {each.name: each for each in session.client.named_volumes().volumes}
    folders = {name: session.client.folder(name) for name in names if name not in named}
    lost = [name for name in names if name in named and named[name].is_ours]
    if lost:
        session.screen.confirm(f"Delete {', '.join(lost)} with all bytes for good?", yes=yes)
    done = []
    for name in names:
        if name in named:
            session.client.delete_volume(name, project=named[name].project)
            how = "deleted" if named[name].is_ours else "forgotten; it stays at its place"
        else:
            session.client.change_folder(folders[name].id, FolderChange(trashed=True))
            how = f"in the trash for {TRASH_DAYS} days: argosy folder restore {name}"
        done.append({"name": name, "how": how})
        if not session.screen.for_programs:
            session.screen.say(f"{name}: {how}.")
    session.screen.told({"deleted": done})
