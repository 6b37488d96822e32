"""A real PostgreSQL server for tests, from the binaries of the distribution: a unix socket and no port, no
fsync.

PostgreSQL refuses to run as root: then it runs as `nobody`.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

_SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "shared_buffers": "32MB",
    "max_connections": "100",
}


def find_postgres() -> Path | None:
    """The folder of the newest server's binaries."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """Started by its constructor, within a second; `stop` leaves nothing behind."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = tempfile.TemporaryDirectory(
            prefix="argosy-pg-", dir="/tmp", ignore_cleanup_errors=True
        )  # sockets need a short path
        self.folder = Path(self._folder.name)
        self.log = self.folder / "log"
        self._count = itertools.count(1)
        self._as: dict[str, Any] = {}  # Any: arguments of Popen
        if os.getuid() == 0:
            shutil.chown(self.folder, "nobody")
            self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        self._run(
            "initdb", "-D", "data", "-U", "argosy", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"
        )
        self._start()
        atexit.register(self.stop)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            timeout=60,
            **self._as,
        )

    def _start(self) -> None:
        settings = {**_SETTINGS, "unix_socket_directories": str(self.folder)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", "data", *options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as,
            )
        import psycopg

        for _ in range(3000):
            try:
                psycopg.connect(self._dsn("postgres")).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text()}") from None
                time.sleep(0.01)
            else:
                return
        raise RuntimeError(f"PostgreSQL does not answer:\n{self.log.read_text()}")

    def _dsn(self, database: str) -> str:
        return f"host={self.folder} user=argosy dbname={database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the administrator; its rows."""
        import psycopg

        with psycopg.connect(self._dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def make_database(self) -> str:
        """The name of a new, empty database."""
        name = f"test{next(self._count)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def url(self, database: str) -> str:
        return f"postgresql://argosy@/{database}?host={self.folder}"

    def crash(self) -> None:
        """End without time to say goodbye."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def come_back(self) -> None:
        """After `crash`, as if nothing had been."""
        self._start()

    def restart(self) -> None:
        """Crash and come back."""
        self.crash()
        self.come_back()

    def stop(self) -> None:
        atexit.unregister(self.stop)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._folder.cleanup()
