"""Buckets that tasks fill from this machine, before they are launched: `name`, `store` and a local `source`.

A bucket that is missing is made. Only what it lacks, or what has changed here, is sent; nothing is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from argosy.client.buckets import Place, is_same, parse_place
from argosy.client.client import Client
from argosy.client.progress import OnProgress, Progress, is_filled_here
from argosy.client.sending import expand
from argosy.client.transfers import Transfer
from argosy.model.errors import ArgosyError
from argosy.model.mounts import extra_of, url_of
from argosy.model.syncing import Rules
from argosy.model.task import StorageMount, SyncRules, Task

_TELL_S: Final = 0.2


async def fill_buckets(
    task: Task, client: Client, *, cwd: Path, on_progress: OnProgress | None = None
) -> tuple[int, int]:
    """Files and bytes that went to buckets. Errors: "workdir-missing", and what a store refuses."""
    files, sent_bytes = 0, 0
    for mount in task.storage_mounts:
        if not is_filled_here(mount):
            continue
        sources = [cwd / expand(source, client.env) for source in mount.sources]
        for source in sources:
            if not source.exists():
                text = f"file_mounts `{mount.target}`: there is no `{source}` here"
                raise ArgosyError("workdir-missing", text, hint="check the path")
        with _told(mount.target, on_progress) as on_bytes, _transfer(client, cwd, mount, on_bytes) as moving:
            _ensure(client, moving, mount)
            for source in sources:
                _fill(moving, source, url_of(mount), task.sync, alone=len(sources) == 1)
            files += len(moving.copied)
            sent_bytes += sum(size for _, _, size in moving.copied)
    return files, sent_bytes


def _fill(moving: Transfer, source: Path, url: str, sync: SyncRules, *, alone: bool) -> None:
    """A folder that is the only source is the bucket's content; of several each keeps its name."""
    rules = Rules(include=sync.include, exclude=sync.exclude)
    if source.is_file():
        to = f"{url.rstrip('/')}/{source.name}"
        place = parse_place(to)
        there = moving.buckets.find(place) if place is not None else None
        if there is None or not is_same(source, there):
            moving.copy(str(source), to, recursive=False)
    elif alone:
        moving.sync(str(source), url, removes=False, rules=rules)
    else:
        moving.sync(str(source), f"{url.rstrip('/')}/{source.resolve().name}", removes=False, rules=rules)


def _ensure(client: Client, moving: Transfer, mount: StorageMount) -> None:
    url = url_of(mount)
    place = parse_place(url)
    if place is None:
        raise ArgosyError("usage", f"`{url}` is no bucket", hint="name its kind: `store: s3`")
    try:
        next(moving.buckets.listed(Place(place.bucket, place.key), below=False), None)
    except ArgosyError as error:
        if error.code != "not-found":
            raise
        client.make_bucket(place.bucket, passing=not mount.persistent)


@contextmanager
def _told(target: str, on_progress: OnProgress | None) -> Iterator[Callable[[int, int], None]]:
    """A few times a second."""
    last_s = 0.0

    def on_bytes(done: int, total: int) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if on_progress is not None and now_s - last_s >= _TELL_S:
            last_s = now_s
            on_progress(Progress(target, "send", 0, done, total))

    yield on_bytes


def _transfer(
    client: Client, cwd: Path, mount: StorageMount, on_bytes: Callable[[int, int], None]
) -> Transfer:
    wish = extra_of(mount).encryption
    encryption = f"{wish.type}:{wish.key_id}" if wish.key_id else wish.type
    return Transfer(client.location, cwd, on_bytes, sign=client.sign_objects, encryption=encryption)
