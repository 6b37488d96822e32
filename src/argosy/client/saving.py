"""Saving logs on disk, one file per rank."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO

from argosy.client.flow import ReadLog
from argosy.client.frames import LogPiece


async def save_logs(job_id: str, folder: Path) -> list[Path]:
    """A flow: write what the job has printed so far to `folder/rank-N.log`. Returns the files."""
    files: dict[int, IO[bytes]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:

        def take(piece: LogPiece) -> None:
            if not piece.data:
                return
            rank = piece.frame.rank
            if rank not in files:
                files[rank] = stack.enter_context((folder / f"rank-{rank}.log").open("wb"))
            files[rank].write(piece.data)

        await ReadLog(job_id, take, follow=False)
    return [folder / f"rank-{rank}.log" for rank in sorted(files)]
