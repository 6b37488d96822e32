"""Saving logs on disk, one file per rank."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO

from argosy.client.client import Client


def save_logs(client: Client, job_id: str, folder: Path) -> list[Path]:
    """Write what the job has printed so far to `folder/rank-N.log`. Returns the files."""
    files: dict[int, IO[bytes]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for piece in client.logs(job_id, follow=False):
            if not piece.data:
                continue
            rank = piece.frame.rank
            if rank not in files:
                files[rank] = stack.enter_context((folder / f"rank-{rank}.log").open("wb"))
            files[rank].write(piece.data)
    return [folder / f"rank-{rank}.log" for rank in sorted(files)]
