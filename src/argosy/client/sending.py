"""Sending the files of tasks: flows, which the blocking and the async client share.

Order of things: while files are read, ask which chunks are missing and send only those; then those of files
that need not be read again; then the tree. Nothing refers to a tree before all of it is there, so stopping
anywhere leaves only chunks that the server may forget.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import msgspec

from argosy.api.files import FileCalls
from argosy.client.files import (
    READ_TRIES,
    Hear,
    Rescanned,
    Scanned,
    Take,
    check_source,
    read_chunks,
    rescan,
    scan,
)
from argosy.client.looking import cache_file, load_notes, look, save_notes
from argosy.client.progress import OnProgress, Progress, Sent, is_local
from argosy.client.reading_ahead import PACK_BYTES, Pack, ReadAhead
from argosy.model.errors import ArgosyError
from argosy.model.patterns import travels
from argosy.model.task import FileMount, SyncRules, Task
from argosy.model.tree import CHUNK_BYTES

ASK_AT_ONCE: Final = 20_000  # digests in one question


_Tell = Callable[[str, int, int, int], None]  # stage, files, bytes done, bytes in all


class _Names(NamedTuple):
    what: str  # as errors call it
    label: str  # as progress does
    rules: SyncRules


class _Folder(NamedTuple):
    digest: str
    is_file: bool
    entries: int
    warnings: tuple[str, ...]
    sent_bytes: int


async def send_files(
    task: Task,
    *,
    cwd: Path,
    env: Mapping[str, str],
    home: Path | None,
    now_ns: int,
    on_progress: OnProgress | None = None,
) -> Sent:
    """Send workdir and local mounts. The task that comes back names trees by digest.

    Paths are relative to `cwd`; `home` is the folder of the hash cache. Errors: as of `files.scan`, and of
    the server.
    """
    folders: dict[tuple[Path, bool], _Folder] = {}
    warnings: list[str] = []
    everything = SyncRules()

    async def one(source: str, what: str, label: str) -> _Folder:
        path = cwd / expand(source, env)
        key = (path, what == "workdir")
        if key not in folders:
            names = _Names(what, label, everything if what == "workdir" else task.sync)
            folders[key] = folder = await _send_folder(path, names, home, now_ns, on_progress)
            warnings.extend(f"{label}: {warning}" for warning in folder.warnings)
        return folders[key]

    if task.workdir_git is not None and not task.workdir_tree:
        from argosy.client.repository import checkout, without_credentials

        place = home or Path(env.get("HOME") or Path.home()) / ".cache" / "argosy"
        folder = await one(str(checkout(task.workdir_git, place / "git", env)), "workdir", "workdir")
        task = msgspec.structs.replace(
            task, workdir_tree=folder.digest, workdir_git=without_credentials(task.workdir_git)
        )
    elif task.workdir and not task.workdir_tree:
        folder = await one(task.workdir, "workdir", "workdir")
        task = msgspec.structs.replace(task, workdir_tree=folder.digest)
    mounts: list[FileMount] = []
    for mount in task.file_mounts:
        if mount.tree is None and is_local(mount.source):
            folder = await one(mount.source, f"file_mounts `{mount.target}`", mount.target)
            mount = msgspec.structs.replace(mount, tree=folder.digest, is_file=folder.is_file)
        mounts.append(mount)
    if mounts:
        task = msgspec.structs.replace(task, file_mounts=tuple(mounts))
    return Sent(
        task,
        tuple(warnings),
        sum(folder.entries for folder in folders.values()),
        sum(folder.sent_bytes for folder in folders.values()),
    )


def check_files(task: Task, *, cwd: Path, env: Mapping[str, str]) -> None:
    """Whatever of `task` has to travel is there; nothing is read. Errors: "workdir-missing"."""
    if task.workdir and not task.workdir_tree and task.workdir_git is None:
        check_source(cwd / expand(task.workdir, env), "workdir")
    for mount in task.file_mounts:
        if mount.tree is None and is_local(mount.source):
            check_source(cwd / expand(mount.source, env), f"file_mounts `{mount.target}`")


def expand(source: str, env: Mapping[str, str]) -> str:
    """With the home that `~` stands for."""
    if source == "~" or source.startswith("~/"):
        return (env.get("HOME") or str(Path.home())) + source[1:]
    return os.path.expanduser(source)  # noqa: PTH111  `~other`


async def _send_folder(
    path: Path, names: _Names, home: Path | None, now_ns: int, on_progress: OnProgress | None
) -> _Folder:
    what, label, rules = names

    def tell(stage: str, files: int, done_bytes: int, total_bytes: int) -> None:
        if on_progress is not None:
            on_progress(Progress(label, stage, files, done_bytes, total_bytes))

    notes = load_notes(path, home) if not (rules.include or rules.exclude) else None
    held = notes and (await FileCalls.missing_chunks(trees=[notes.digest], changing=notes.digest)).trees
    if notes is not None and home is not None and held:
        seen = look(path, notes)
        if seen is not None and seen.is_same:
            tell("done", notes.entries, 0, 0)
            return _Folder(notes.digest, False, notes.entries, notes.warnings, 0)
        found = rescan(seen, path, what=what, now_ns=now_ns) if seen is not None else None
        folder = await _send_change(found, home, tell) if found is not None else None
        if folder is not None:
            return folder
    sent_bytes = 0
    for again in range(READ_TRIES):
        known = None if again else home  # what the cache says was not what was read
        scanned, told, done_bytes = await _read_and_send(path, names, known, now_ns, tell)
        sent_bytes += done_bytes
        files = len(scanned.tree.entries)
        done_bytes, is_all = await _send_chunks(scanned, tell, told)
        sent_bytes += done_bytes
        if not is_all:
            continue  # a file changed since the scan: what it is now is found by the next one
        stored = await FileCalls.put_tree(scanned.tree)
        tell("done", files, sent_bytes, sent_bytes)
        return _Folder(stored.digest, scanned.tree.is_file, files, scanned.warnings, sent_bytes)
    raise ArgosyError(
        "conflict",
        f"{what} `{path}` keeps changing while it is sent",
        hint="wait for what writes there, or list it in `.argosyignore`",
    )


async def _read_and_send(
    path: Path, names: _Names, home: Path | None, now_ns: int, tell: _Tell
) -> tuple[Scanned, Collection[str], int]:
    """What a folder holds, which chunks of it the server has now, and the bytes of those that were sent."""
    what, _, rules = names
    if rules.include or rules.exclude:  # not all that is read is sent

        def told(files: int, size: int) -> None:
            tell("scan", files, size, 0)

        return _chosen(scan(path, what=what, home=home, now_ns=now_ns, progress=told), rules), (), 0
    sent_bytes = asked = unasked = 0

    def read(take: Take, hear: Hear) -> Scanned:
        return scan(path, what=what, home=home, now_ns=now_ns, progress=hear, take=take)

    with ReadAhead(read) as ahead:
        for pack in ahead.packs():
            tell("scan", *ahead.seen, 0)
            if pack:
                sending = pack
                if unasked < asked:
                    unasked += 1
                else:  # where all was new, it is likely to go on so; what is there already does no harm
                    lacks = set((await FileCalls.missing_chunks([digest for digest, _ in pack])).missing)
                    sending = [each for each in pack if each[0] in lacks]
                    asked, unasked = (min(2, asked + 1) if len(sending) == len(pack) else 0), 0
                if sending:
                    await FileCalls.put_chunks(sending)
                sent_bytes += sum(len(data) for _, data in sending)
        scanned = ahead.scanned()
    tell("scan", *ahead.seen, 0)
    return scanned, ahead.given, sent_bytes


async def _send_change(found: Rescanned, home: Path, tell: _Tell) -> _Folder | None:
    """None: it cannot be told as a change."""
    scanned, change, notes = found.scanned, found.change, found.notes
    digest, sent_bytes = change.since, 0
    if change.entries or change.removed:
        sent_bytes, is_all = await _send_chunks(scanned, tell, ())
        if not is_all:
            return None
        try:
            digest = (await FileCalls.change_tree(change)).digest
        except ArgosyError as error:
            if error.code not in ("not-found", "conflict", "unsupported"):
                raise
            return None
    save_notes(msgspec.structs.replace(notes, digest=digest), cache_file(home, scanned.root))
    tell("done", notes.entries, sent_bytes, sent_bytes)
    return _Folder(digest, False, notes.entries, notes.warnings, sent_bytes)


async def _send_chunks(scanned: Scanned, tell: _Tell, told: Collection[str]) -> tuple[int, bool]:
    """Bytes that were sent, and whether these are all that the server lacked: files may have changed. `told`:
    chunks that it has."""
    sizes = {digest: size for digest, size in _chunk_sizes(scanned).items() if digest not in told}
    digests = list(sizes)
    missing: set[str] = set()
    for start in range(0, len(digests), ASK_AT_ONCE):
        reply = await FileCalls.missing_chunks(digests[start : start + ASK_AT_ONCE])
        missing.update(reply.missing)
    missing &= sizes.keys()
    files = len(scanned.tree.entries)
    total_bytes = sum(sizes[digest] for digest in missing)
    done_bytes = 0
    packs = _packs(read_chunks(scanned, missing))
    for pack in _ahead(packs) if total_bytes > PACK_BYTES else packs:
        await FileCalls.put_chunks(pack)
        done_bytes += sum(len(data) for _, data in pack)
        tell("send", files, done_bytes, total_bytes)
    return done_bytes, done_bytes == total_bytes


def _ahead(packs: Iterator[Pack]) -> Iterator[Pack]:
    """One pack is read while the server takes the one before it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, packs, ())
        while pack := coming.result():
            coming = reader.submit(next, packs, ())
            yield pack


def _packs(chunks: Iterator[tuple[str, bytes]]) -> Iterator[Pack]:
    pack: list[tuple[str, bytes]] = []
    size = 0
    for digest, data in chunks:
        if pack and size + len(data) > PACK_BYTES:
            yield pack
            pack, size = [], 0
        pack.append((digest, data))
        size += len(data)
    if pack:
        yield pack


def _chosen(scanned: Scanned, rules: SyncRules) -> Scanned:
    """Without what `sync` leaves out, and without folders that nothing lies in then."""
    if not (rules.include or rules.exclude) or scanned.tree.is_file:
        return scanned
    files = [
        entry
        for entry in scanned.tree.entries
        if entry.kind != "d" and travels(entry.path, rules.include, rules.exclude)
    ]
    above = {parent.as_posix() for entry in files for parent in PurePosixPath(entry.path).parents}
    folders = [entry for entry in scanned.tree.entries if entry.kind == "d" and entry.path in above]
    entries = tuple(sorted([*files, *folders], key=lambda entry: entry.path))
    return scanned._replace(tree=msgspec.structs.replace(scanned.tree, entries=entries))


def _chunk_sizes(scanned: Scanned) -> dict[str, int]:
    """Size of each chunk, in the order of the files."""
    return {
        digest: min(CHUNK_BYTES, entry.size - index * CHUNK_BYTES)
        for entry in scanned.tree.entries
        for index, digest in enumerate(entry.chunks)
    }
