"""Fetching a copy of what a job keeps: a flow, which the blocking and the async client share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from argosy.api.checkpoints import CheckpointCalls
from argosy.model.errors import ArgosyError

OnBytes = Callable[[int, int], None]  # done, of how many


async def fetch_checkpoint(
    job: str, checkpoint: str, folder: Path, on_bytes: OnBytes = lambda done, total: None
) -> int:
    """A flow: write the files of one copy below `folder`, each in one rename. Returns how many.

    Links are made only where they stay inside. Errors: "not-found"; "conflict" when `folder` is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgosyError(
            "conflict", f"`{folder}` is there and not empty", hint="name a folder that is to be made"
        )
    tree = (await CheckpointCalls.checkpoint_files(job, checkpoint)).tree
    total, done, count = sum(entry.size for entry in tree.entries), 0, 0
    folder.mkdir(parents=True, exist_ok=True)
    for entry in tree.entries:
        path = folder / entry.path
        if ".." in path.parts or not path.is_relative_to(folder):
            raise ArgosyError("path-escapes", f"`{entry.path}` is not a path inside the checkpoint")
        if entry.kind == "d":
            path.mkdir(parents=True, exist_ok=True)
        elif entry.kind == "l":
            inner = os.path.normpath(path.parent / entry.target)
            if Path(inner).is_relative_to(folder):
                path.symlink_to(entry.target)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.part")
            with draft.open("wb") as file:
                for digest in entry.chunks:
                    done += file.write(await CheckpointCalls.checkpoint_chunk(job, checkpoint, digest))
                    on_bytes(done, total)
            draft.chmod(entry.mode & 0o777)
            draft.rename(path)
            count += 1
    return count
