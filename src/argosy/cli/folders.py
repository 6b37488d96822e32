"""folder: virtual folders that people and projects share, on volumes of the server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from argosy.cli.session import Session, answering, examples, pass_session, yes_option
from argosy.model.folders import TRASH_DAYS
from argosy.model.units import many, parse_size, render_bytes

if TYPE_CHECKING:
    from argosy.api.folders import FolderView, IoView, NfsView
    from argosy.client.folders import FolderFiles


@click.group(
    epilog=examples(
        "argosy folder create train --quota 200GB",
        "argosy folder upload train ./images images",
        "argosy folder share train bob rw",
        "argosy folder ls train/images",
    )
)
def folder() -> None:
    """Folders on volumes of the server, shared by people and projects."""


@folder.command(epilog=examples("argosy folder create train --quota 200GB", "argosy folder create .config"))
@click.argument("name")
@click.option("--volume", default="server", help="Volume that stores it.  [default: server]")
@click.option("--quota", default="", metavar="SIZE", help="How much it may hold, such as 200GB.")
@click.option(
    "--use",
    type=click.Choice(["general", "data", "model"]),
    default="general",
    help="What it is for; of `data` and `model` others only read.",
)
@click.option("--project", default="", help="Project that it belongs to.")
@click.option("--shared", is_flag=True, help="It belongs to the project: its members read and write.")
@answering
def create(
    session: Session, name: str, volume: str, quota: str, use: str, project: str, shared: bool
) -> None:
    """Create a folder. One whose name begins with a dot appears in all of your sessions."""
    made = session.client.make_folder(
        name,
        project=project,
        volume=volume,
        use=use,
        quota_bytes=_size(quota),
        for_project=shared,
        user=session.user,
    )
    session.screen.remark(made, f"Made the folder {name}.")


@folder.command(epilog=examples("argosy folder ls", "argosy folder ls train/images --json"))
@click.argument("place", required=False, default="")
@click.option("--trash", is_flag=True, help="Also folders in the trash.")
@answering
def ls(session: Session, place: str, trash: bool) -> None:
    """List folders that you may use, or what is in one."""
    if place:
        name, path = _place(place)
        files = session.client.folder_files(name, path)
        rows = [
            (each.name + "/" * (each.kind == "folder"), _bytes(each.size), each.kind) for each in files.files
        ]
        session.screen.listed(files, ("NAME", "SIZE", "KIND"), rows)
        return
    found = session.client.folders(trashed=trash)
    session.screen.listed(
        found,
        ("FOLDER", "ACCESS", "OWNER", "USED", "QUOTA", "VOLUME"),
        [_row(each) for each in found.folders],
        none="No folders. Make one: argosy folder create NAME",
    )


def _row(each: FolderView) -> tuple[str, ...]:
    state = (
        "in the trash"
        if each.trashed_ms
        else f"invited by {each.invited_by}"
        if each.invited_by
        else each.access
    )
    return (
        each.name,
        state,
        each.owner or f"project {each.project}",
        _bytes(each.used_bytes),
        _bytes(each.quota_bytes),
        each.volume,
    )


@folder.command(epilog=examples("argosy folder info train"))
@click.argument("name")
@answering
def info(session: Session, name: str) -> None:
    """Show who may use a folder, and its size, counted now."""
    found = session.client.folder(name, count=True)
    rows = [("id", found.id), ("project", found.project), ("owner", found.owner or "the project")]
    rows += [("use", found.use), ("volume", found.volume), ("your access", found.access)]
    rows += [("used", render_bytes(found.used_bytes)), ("quota", _quota_words(found))]
    rows += [("through the server", _io_words(found.io))] if found.io is not None else []
    nfs = next((each.nfs for each in session.client.volumes().volumes if each.name == found.volume), None)
    rows += [("its volume by NFS", _nfs_words(nfs))] if nfs is not None else []
    rows += [(f"shared with {each.to}", each.level) for each in found.grants]
    rows += [(f"invited {each.to}", each.level) for each in found.invitations]
    session.screen.listed(found, ("FOLDER", found.name), rows)


@folder.command(
    epilog=examples(
        "argosy folder rm old", "argosy folder rm train/images/tmp", "argosy folder rm old --forever"
    )
)
@click.argument("place")
@click.option("--forever", is_flag=True, help="Also out of the trash.")
@yes_option
@answering
def rm(session: Session, place: str, forever: bool, yes: bool) -> None:
    """Put a folder into the trash, or remove a file in it."""
    from argosy.api.folders import FolderChange

    name, path = _place(place)
    if path:
        done = session.client.remove_files(name, path)
        session.screen.remark(done, f"Removed {name}/{path}.")
        return
    found = session.client.folder(name)
    if forever:
        session.screen.confirm(
            f"Remove {found.name} with {render_bytes(found.used_bytes)} for good?", yes=yes
        )
    if not found.trashed_ms:
        session.client.change_folder(found.id, FolderChange(trashed=True))
    if forever:
        done = session.client.purge_folder(found.id)
        session.screen.remark(done, f"Removed {found.name} for good.")
        return
    again = session.client.folder(found.id)
    text = f"{name} is in the trash for {TRASH_DAYS} days. Back: argosy folder restore {name}"
    session.screen.remark(again, text)


@folder.command(epilog=examples("argosy folder restore old"))
@click.argument("name")
@answering
def restore(session: Session, name: str) -> None:
    """Take a folder out of the trash."""
    from argosy.api.folders import FolderChange

    back = session.client.change_folder(name, FolderChange(trashed=False))
    session.screen.remark(back, f"{back.name} is back.")


@folder.command(
    epilog=examples("argosy folder share train bob rw", "argosy folder share train project:vision ro")
)
@click.argument("name")
@click.argument("to")
@click.argument("level", type=click.Choice(["ro", "rw", "rw+delete"]), default="ro")
@answering
def share(session: Session, name: str, to: str, level: str) -> None:
    """Let a user, or project:NAME, use a folder: ro, rw, or rw+delete."""
    changed = session.client.share_folder(name, to, level)
    session.screen.remark(changed, f"{to} has {level} on {changed.name}.")


@folder.command(epilog=examples("argosy folder unshare train bob"))
@click.argument("name")
@click.argument("to")
@answering
def unshare(session: Session, name: str, to: str) -> None:
    """Stop sharing a folder with somebody, or withdraw an invitation."""
    changed = session.client.unshare_folder(name, to)
    session.screen.remark(changed, f"{changed.name} is no longer shared with {to}.")


@folder.command(epilog=examples("argosy folder invite train bob rw"))
@click.argument("name")
@click.argument("to")
@click.argument("level", type=click.Choice(["ro", "rw", "rw+delete"]), default="ro")
@answering
def invite(session: Session, name: str, to: str, level: str) -> None:
    """Invite somebody to a folder; they answer with `argosy folder accept`."""
    changed = session.client.share_folder(name, to, level, invite=True)
    session.screen.remark(changed, f"Invited {to} to {changed.name} with {level}, for 30 days.")


@folder.command(epilog=examples("argosy folder accept train", "argosy folder accept train --decline"))
@click.argument("name")
@click.option("--decline", is_flag=True, help="Say no.")
@answering
def accept(session: Session, name: str, decline: bool) -> None:
    """Accept an invitation to a folder, or decline it."""
    done = session.client.answer_invitation(name, accept=not decline, user=session.user)
    session.screen.remark(done, f"{'Declined' if decline else 'Accepted'}: {name}.")


@folder.command(epilog=examples("argosy folder transfer train bob", "argosy folder transfer train project"))
@click.argument("name")
@click.argument("to")
@answering
def transfer(session: Session, name: str, to: str) -> None:
    """Give a folder to somebody else, or to its `project`."""
    from argosy.api.folders import FolderChange

    changed = session.client.change_folder(name, FolderChange(owner="" if to == "project" else to))
    session.screen.remark(changed, f"{changed.name} belongs to {changed.owner or 'its project'}.")


@folder.command(epilog=examples("argosy folder clone train train-2"))
@click.argument("name")
@click.argument("new")
@answering
def clone(session: Session, name: str, new: str) -> None:
    """Make a folder with all that another one holds; blocks are shared where the volume can."""
    made = session.client.make_folder(new, clone_of=name, user=session.user)
    session.screen.remark(made, f"Made {new} from {name}.")


@folder.command(epilog=examples("argosy folder quota train 500GB", "argosy folder quota train none"))
@click.argument("name")
@click.argument("size")
@answering
def quota(session: Session, name: str, size: str) -> None:
    """Set how much a folder may hold; `none` removes the limit."""
    from argosy.api.folders import FolderChange

    limit = 0 if size == "none" else _size(size)
    changed = session.client.change_folder(name, FolderChange(quota_bytes=limit))
    session.screen.remark(changed, f"{changed.name}: {_quota_words(changed)}.")


@folder.command(
    epilog=examples(
        "argosy folder upload train ./images images", "argosy folder upload train model.bin --replace"
    )
)
@click.argument("name")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("path", required=False, default="")
@click.option("--replace", is_flag=True, help="Replace what is there.")
@answering
def upload(session: Session, name: str, source: Path, path: str, replace: bool) -> None:
    """Upload a file or a folder; an upload that was interrupted resumes."""
    with _files(session, name) as files:
        sent = files.upload(session.cwd / source, path, replace=replace)
    session.screen.remark(
        {"files": sent.files, "bytes": sent.bytes},
        f"Sent {many(sent.files, 'file')} ({render_bytes(sent.bytes)}) to {name}.",
    )


@folder.command(
    epilog=examples("argosy folder download train/model.bin .", "argosy folder download train ./copy -r")
)
@click.argument("place")
@click.argument("target", type=click.Path(path_type=Path), default=Path())
@click.option("-r", "--recursive", is_flag=True, help="A folder with all that it holds.")
@answering
def download(session: Session, place: str, target: Path, recursive: bool) -> None:
    """Download a file, or with -r all below a folder."""
    name, path = _place(place)
    if not path and not recursive:
        raise click.UsageError(f"name a file, as {name}/model.bin, or fetch all of it with -r")
    with _files(session, name) as files:
        here = session.cwd / target
        if recursive:
            here.mkdir(parents=True, exist_ok=True)
            got = files.download_tree(path, here)
        else:
            got = files.download(path, here)
    session.screen.remark(
        {"files": got.files, "bytes": got.bytes},
        f"Fetched {many(got.files, 'file')} ({render_bytes(got.bytes)}).",
    )


@folder.command(
    epilog=examples("argosy folder mount train ~/train", "argosy folder mount train ~/train --read-only")
)
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--read-only", is_flag=True, help="Nothing is written there.")
@pass_session
def mount(session: Session, name: str, target: Path, read_only: bool) -> None:
    """Show a folder at a path of this machine, until Ctrl-C or fusermount -u. Needs rclone and FUSE."""
    from argosy.client.client import Client
    from argosy.client.folders import FolderFiles
    from argosy.client.mounting import mounted

    found = session.client.folder(name)
    here = session.cwd / target
    reads = read_only or found.access == "ro"
    files = FolderFiles(session.client.location, found.id)

    def make_client() -> Client:
        return Client(env=session.env, start=False)

    for each in (signal.SIGTERM, signal.SIGHUP):  # a terminal that is closed leaves no mount behind
        signal.signal(each, _interrupt)
    with mounted(found.id, here, make_client, files, session.env, read_only=reads) as process:
        how = "read-only" if reads else "read and write"
        session.screen.say(f"{name} is at {here} ({how}). Ctrl-C unmounts it.")
        try:
            process.wait()
        except KeyboardInterrupt:
            session.screen.say("What was written is sent, then it is unmounted.")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@folder.command(
    epilog=examples(
        "argosy folder volumes",
        "argosy folder volumes --add nas /mnt/nas/argosy --on-nodes /nas/argosy",
        "argosy folder volumes --add team s3://team/folders",
    )
)
@click.option("--add", nargs=2, metavar="NAME PATH", help="A path of the server, or the URL of a bucket.")
@click.option("--on-nodes", default="", metavar="PATH", help="With --add: where nodes see the same bytes.")
@click.option("--remove", metavar="NAME", help="Forget a volume without folders.")
@answering
def volumes(session: Session, add: tuple[str, str] | None, on_nodes: str, remove: str | None) -> None:
    """Show where folders may be, add a place, or forget one."""
    if add:
        session.client.make_volume(add[0], add[1], on_nodes)
    if remove:
        session.client.remove_volume(remove)
    found = session.client.volumes()
    if session.screen.told(found):
        return
    rows = [
        (each.name, each.path, each.node_path, str(each.folders), render_bytes(each.free_bytes))
        for each in found.volumes
    ]
    session.screen.table(("VOLUME", "PATH", "ON NODES", "FOLDERS", "FREE"), rows)
    for each in found.volumes:
        if each.nfs is not None:
            session.screen.print(f"{each.name}: {_nfs_words(each.nfs)}")


@contextmanager
def _files(session: Session, name: str) -> Iterator[FolderFiles]:
    from argosy.client.folders import FolderFiles

    client, done = session.client, [0]
    found = client.folder(name)  # starts the server if need be

    def on_bytes(size: int) -> None:
        done[0] += size
        session.screen.progress(f"{found.name}: {render_bytes(done[0])}")

    files = FolderFiles(client.location, found.id, on_bytes)
    try:
        yield files
    except OSError as error:  # of this machine: what the server says is an ArgosyError
        from argosy.model.errors import ArgosyError

        raise ArgosyError(
            "usage", f"`{error.filename}`: {error.strerror}", hint="name another place"
        ) from None
    finally:
        session.screen.end_progress()
        files.close()


def _place(text: str) -> tuple[str, str]:
    name, _, path = text.partition("/")
    return name, path


def _size(text: str) -> int:
    try:
        return parse_size(text) if text else 0
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _bytes(size: int) -> str:
    return render_bytes(size) if size else ""


def _io_words(io: IoView) -> str:
    return (
        f"{render_bytes(io.read_bytes)} read by {many(io.reads, 'request')}, "
        f"{render_bytes(io.written_bytes)} written by {many(io.writes, 'request')}, since it started"
    )


def _nfs_words(nfs: NfsView) -> str:
    again = f", {nfs.sent_again} sent again" if nfs.sent_again else ""
    return (
        f"{nfs.server}: {render_bytes(nfs.read_bytes)} read at {nfs.read_ms:.1f} ms, "
        f"{render_bytes(nfs.written_bytes)} written at {nfs.write_ms:.1f} ms{again}"
    )


def _quota_words(folder: FolderView) -> str:
    """The limit, and who holds it."""
    if not folder.quota_bytes:
        return "no limit"
    size = render_bytes(folder.quota_bytes)
    if folder.quota_by:
        return f"{size}, held by the file system ({folder.quota_by}): a write beyond it fails, whoever writes"
    return (
        f"{size}, counted by Argosy: what comes through it is refused beyond that; what nodes write to the "
        "volume itself is counted within a minute"
    )
