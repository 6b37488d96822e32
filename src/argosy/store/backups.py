"""Daily copies of a SQLite file, and how to go back to one."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from argosy.store.state_dir import ensure_private_folder

KEPT: Final = 7
_DAILY: Final = re.compile(r"argosy-[0-9]{8}\.db")


def daily_backup(folder: Path, now_ms: int) -> Path:
    """Where the backup of this day (UTC) belongs."""
    return folder / f"argosy-{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%d}.db"


def list_backups(folder: Path) -> Sequence[Path]:
    """The daily backups, oldest first."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if _DAILY.fullmatch(path.name))
    return ()


def write_backup(source: Path, target: Path) -> None:
    """Copy the database while others read and write it: `target` appears complete or not at all, 0600.

    Raises sqlite3.Error and OSError."""
    ensure_private_folder(target.parent)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # its mode before its content
        with contextlib.closing(sqlite3.connect(source, timeout=30, isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(part),))
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def forget_old_backups(folder: Path) -> None:
    for path in list_backups(folder)[:-KEPT]:
        path.unlink(missing_ok=True)


def restore_lines(database: Path, folder: Path) -> tuple[str, ...]:
    """What to type to leave a damaged database behind, newest backup first; in a shell, word for word."""
    file, damaged = shlex.quote(str(database)), shlex.quote(f"{database}.damaged")
    rest = " ".join(shlex.quote(f"{database}{ending}") for ending in ("-wal", "-shm"))
    kept = list_backups(folder)
    move = f"mv {file} {damaged}; rm -f {rest}"
    if not kept:
        return (
            f"there is no backup in {folder}",
            "to start empty (running machines would be forgotten: look for them first):",
            f"  {move}",
            "  argosy server start",
        )
    newest = kept[-1]
    day = newest.stem.removeprefix("argosy-")
    return (
        f"the newest backup is {newest}, of {day[:4]}-{day[4:6]}-{day[6:]}; to go back to it:",
        f"  {move}",
        f"  cp -p {shlex.quote(str(newest))} {file}",
        "  argosy server start",
    )
