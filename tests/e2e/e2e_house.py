"""The real thing: the installed command line, a server of its own, real agents and processes, below /tmp."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from argosy.cli.shapes import complete
from argosy.client.client import Client
from argosy.model.errors import ArgosyError

REPO = Path(__file__).resolve().parents[2]
ARGOSY = Path(sys.executable).parent / "argosy"
#: How long anything may take before a test gives up. Never how long it should take.
PATIENCE_S = 120.0


class House:
    """One state folder with its server, and what a person would type."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="argosy-e2e-", dir="/tmp", ignore_cleanup_errors=True
        )
        self.root = Path(self._folder.name)
        self.state = self.root / "state"
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ARGOSY_", "SKYPILOT_", "PYTEST_")) and name not in ("COLUMNS", "LINES")
        } | {
            "ARGOSY_HOME": str(self.state),
            "PATH": f"{ARGOSY.parent}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
        }
        self._names = 0

    def name(self, stem: str = "c") -> str:
        self._names += 1
        return f"{stem}{self._names}"

    def run(
        self,
        *words: str | Path,
        ok: bool = True,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """One command, to its end. `ok` None of the exit status is not looked at."""
        done = subprocess.run(
            [str(ARGOSY), *map(str, words)],
            env=self.env | (env or {}),
            cwd=cwd or REPO,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S * 2,
            check=False,
        )
        if ok:
            assert done.returncode == 0, (
                f"argosy {' '.join(map(str, words))} -> "
                f"{done.returncode}\n{done.stdout}\n{done.stderr}\n{self.server_log()}"
            )
        return done

    def json(self, *words: str | Path) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def spawn(self, *words: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(ARGOSY), *map(str, words)],
            env=self.env | (env or {}),
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def file(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    # --- what is seen ------------------------------------------------------------------------------

    # Tests look many times: each look is a request, not a process that starts a command line. Where no server
    # answers, the command is typed after all, and starts one.

    def _look(self, ask: Callable[[Client], object], *words: str) -> Any:
        try:
            with Client(env=self.env, start=False) as client:
                return json.loads(msgspec.json.encode(complete(ask(client))))
        except ArgosyError as error:
            if error.code not in ("server-unreachable", "server-starting"):
                raise AssertionError(f"argosy {' '.join(words)}: {error}\n{self.server_log()}") from None
            return self.json(*words)

    def jobs(self, cluster: str | None = None) -> list[dict[str, Any]]:
        words = ("queue", cluster) if cluster else ("jobs", "queue")
        told = self._look(lambda client: client.queue(cluster, limit=100), *words)
        return list(told["jobs"])

    def clusters(self) -> list[dict[str, Any]]:
        return list(self._look(lambda client: client.status(), "status")["clusters"])

    def job(self, cluster: str | None, number: int) -> dict[str, Any]:
        return next(job for job in self.jobs(cluster) if job["number"] == number)

    def cluster(self, name: str) -> dict[str, Any] | None:
        return next((cluster for cluster in self.clusters() if cluster["name"] == name), None)

    def text_of(self, job: dict[str, Any]) -> str:
        """What a job has printed so far."""
        with Client(env=self.env) as client:
            pieces = client.logs(job["id"], follow=False)
            return b"".join(piece.data for piece in pieces if piece.data).decode(errors="replace")

    def log(self, *words: str) -> str:
        return self.run("logs", *words, ok=False).stdout  # its exit status is the job's

    def wait(self, what: str, seen: Callable[[], Any]) -> Any:
        """Until `seen()` is true; its value. Fails with `what` when patience ends."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if value := seen():
                return value
            time.sleep(0.1)
        raise AssertionError(f"waited in vain: {what}\n{self.server_log()}")

    def wait_job(self, cluster: str | None, number: int, status: str) -> dict[str, Any]:
        def seen() -> dict[str, Any] | None:
            job = self.job(cluster, number)
            if job["status"] != status and job["phase"] == "finished":
                words = ("logs", cluster) if cluster else ("jobs", "logs")
                text = self.run(*words, str(number), ok=False).stdout[-1500:]
                raise AssertionError(f"job {number} ended as {job['status']}, not {status}: {job}\n{text}")
            return job if job["status"] == status else None

        return self.wait(f"job {number} of {cluster} {status}", seen)

    def server_pid(self) -> int:
        told = self._look(lambda client: client.server_status(), "server", "status")
        return int(told["health"]["pid"])

    def server_log(self) -> str:
        path = self.state / "server.log"
        return (
            "server.log:\n" + path.read_text(errors="replace")[-3000:] if path.exists() else "(no server.log)"
        )

    def processes(self, text: str) -> list[int]:
        """Processes of this house whose command line or environment contains `text`."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                seen = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and text.encode() in seen and str(self.root).encode() in seen:
                found.append(int(entry.name))
        return found

    def kill_server(self) -> None:
        pid = self.server_pid()
        os.kill(pid, signal.SIGKILL)
        self.wait("the killed server is gone", lambda: not is_alive(pid))

    def close(self) -> None:
        """Clusters are taken down by the server, as some of them are elsewhere; what is here is killed."""
        try:
            with contextlib.suppress(ArgosyError), Client(env=self.env, start=False) as client:
                if client.status().clusters:
                    words = ("down", "--all", "--yes")
                    subprocess.run(
                        [str(ARGOSY), *words], env=self.env, capture_output=True, timeout=60, check=False
                    )
        finally:
            deadline = time.monotonic() + PATIENCE_S
            while (left := self.processes("")) and time.monotonic() < deadline:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
            self._folder.cleanup()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def read_until(child: subprocess.Popen[bytes], pattern: str) -> str:
    """Output of a spawned command until it matches; fails when it ends without."""
    assert child.stdout is not None
    seen = b""
    while data := os.read(child.stdout.fileno(), 1 << 16):
        seen += data
        if re.search(pattern, seen.decode(errors="replace")):
            return seen.decode(errors="replace")
    raise AssertionError(f"the output ended without {pattern!r}:\n{seen.decode(errors='replace')}")
