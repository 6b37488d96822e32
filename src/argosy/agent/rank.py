"""One rank: what it is in memory and on disk.

Its folder holds `state` (who runs it, for the next agent), `exit` (its exit code), `log`, `setup.sh` and
`run.sh`. `state` and `exit` get their full size when the rank is prepared and are then overwritten in place:
a disk that fills up later cannot take the exit code away, and one small write is never seen half done after a
kill.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time

from argosy.agent.programs import start_ticks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.sharing import Held

PREPARING = "preparing"
READY = "ready"
RUNNING = "running"
EXITED = "exited"
VANISHED = "vanished"

NO_EXIT_CODE = b"....\n"  # in `exit`, before the program was let run
_STATE_BYTES = 1024
POLL_FAST_S = 0.005
#: What keeps a rank from beginning here, and may be otherwise on another node.
NODE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class Rank:
    """One rank. `offset`s of its log count every byte ever written, also when the program truncated the
    file."""

    def __init__(self, folder: str, rank_id: str) -> None:
        self.id = rank_id
        self.folder = folder
        self.phase = PREPARING
        self.stage = "run"
        self.exit_code: int | None = None
        self.oom = False
        self.detail = ""
        self.started_ms = 0
        self.ended_ms = 0
        self.pid = 0  # of the wrapper
        self.ticks = 0  # its start time
        self.spawned_s = 0.0
        self.groups: list[str] = []  # cgroup folders
        self.has_setup = False
        self.has_run = False
        self.has_app = False  # it runs the app of a session
        self.env: dict[str, str] = {}  # holds secrets: never written anywhere
        self.workdir = ""
        self.held: Held | None = (
            None  # shared devices; None: none, or its wrapper has them since an earlier agent
        )
        self.mps: tuple[str, list[int]] | None = None  # which daemon it uses, and where its logs ended before
        self.gpu_limit: tuple[int, int] | None = (
            None  # device and bytes that its processes may hold there together
        )
        self.verdict = ""  # why we killed it
        self.lease_ms = 0  # for how long its lease is given; 0: it has none
        self.lease_until_ms = 0  # by `clock_ms`
        self.lapsed = False  # its lease has ended, and so does it
        self.unbegun = False  # the node could not begin it: it says nothing of the program
        self.run_wanted = False
        self.job = ""  # whose attempt it belongs to, and the attempt's number in it
        self.attempt = 0
        self.gated = False  # as it was saved: its wrapper notes that it was let run
        self.gate = -1  # its program runs when a line is written here
        self.stop_at_s: float | None = None  # monotonic: when SIGKILL is due
        self.log_bytes = 0
        self.log_base = 0  # log offset of the file's first byte
        self.is_adopted = False  # nobody has read its log since
        self.is_truncated = False  # since its state was saved
        self.ready_ms = 0  # since when its app answers
        self.active_ms = 0  # when its app was last seen at work, and by what sign
        self.active_by = ""
        self.gpu_active_ms = 0  # when its programs last computed on an accelerator; 0: nobody says
        self.gpu_seen_us = 0  # up to when that is known, by the driver's clock
        self.grew_s = -1e9  # monotonic: when the log was last seen to grow
        self.poll_s = POLL_FAST_S
        self.poll_at_s = 0.0

    @property
    def ended(self) -> bool:
        return self.phase in (EXITED, VANISHED)

    @property
    def log_path(self) -> str:
        return self.folder + "/log"

    def fact(self) -> dict[str, object]:
        """A RankFact."""
        fact: dict[str, object] = {
            "id": self.id,
            "phase": READY if self.phase == RUNNING and self.gate >= 0 else self.phase,
            "stage": self.stage,
            "log_bytes": self.log_bytes,
            "started_ms": self.started_ms,
            "ended_ms": self.ended_ms,
        }
        if self.exit_code is not None:
            fact["exit_code"] = self.exit_code
        if self.oom:
            fact["oom"] = True
        if self.detail:
            fact["detail"] = self.detail
        if self.ready_ms:
            fact["ready_ms"] = self.ready_ms
            fact["active_ms"], fact["active_by"] = self.active_ms, self.active_by
            fact["gpu_active_ms"] = self.gpu_active_ms
        return fact

    def measure_log(self) -> bool:
        """Look how long the log is; True when it grew."""
        if self.ended:
            return False
        try:
            size = os.stat(self.log_path).st_size
        except OSError:
            return False
        if self.log_base + size < self.log_bytes:  # `> /dev/stderr` truncates a log that is a file
            self.log_base = self.log_bytes
            self.is_truncated = True
        grew = self.log_base + size > self.log_bytes
        self.log_bytes = self.log_base + size
        return grew

    def verify_offset(self, cursor: int) -> None:
        """A reader has `cursor` bytes. More than there are: the program truncated its log while no agent
        looked, and all that is in the file now came afterwards."""
        is_first, self.is_adopted = self.is_adopted, False
        if is_first and cursor > self.log_bytes:
            size = self.log_bytes - self.log_base
            self.log_base, self.log_bytes = cursor, cursor + size
            self.is_truncated = True

    def read_log(self, offset: int, size: int) -> tuple[int, bytes]:
        """At most `size` bytes from `offset` on, or from where the log still has some; with their offset."""
        offset = max(offset, self.log_base)
        handle = os.open(self.log_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return offset, os.pread(handle, min(size, self.log_bytes - offset), offset - self.log_base)
        finally:
            os.close(handle)

    def open_gate(self) -> None:
        """Let the program run. Once."""
        if self.gate >= 0:
            try:
                os.write(self.gate, b"go\n")
            except OSError:
                pass  # its wrapper is gone
            self.close_gate()

    def close_gate(self) -> None:
        if self.gate >= 0:
            os.close(self.gate)
            self.gate = -1

    def wait_for_gate(self, same_boot: bool, patience_s: float) -> None:
        """After the agent was killed: whether its program was let run. The wrapper is just about to say so,
        or to end, because nobody holds its gate any more."""
        if self.phase != RUNNING or not self.gated or not same_boot:
            return
        due_s = time.monotonic() + patience_s
        while self.read_exit() == NO_EXIT_CODE and start_ticks(self.pid) == self.ticks:
            if time.monotonic() > due_s:
                try:
                    os.kill(self.pid, signal.SIGKILL)
                except OSError:
                    pass
            time.sleep(0.002)
        if self.read_exit() == NO_EXIT_CODE:
            self.phase = READY

    def save(self, boot_id: str) -> None:
        """Raises OSError."""
        state = {
            "id": self.id,
            "boot": boot_id,
            "phase": self.phase,
            "stage": self.stage,
            "pid": self.pid,
            "ticks": self.ticks,
            "groups": self.groups,
            "started_ms": self.started_ms,
            "ended_ms": self.ended_ms,
            "exit_code": self.exit_code,
            "oom": self.oom,
            "detail": self.detail,
            "log_base": self.log_base,
            "log_bytes": self.log_bytes,
            "mps": self.mps,
            "gpu_limit": self.gpu_limit,
            "job": self.job,
            "attempt": self.attempt,
            "app": self.has_app,
            "gated": True,
        }
        data = json.dumps(state).encode()
        handle = os.open(self.folder + "/state", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, data.ljust(_STATE_BYTES), 0)
            if len(data) > _STATE_BYTES:
                os.ftruncate(handle, len(data))
        finally:
            os.close(handle)

    def load(self) -> str:
        """Read the saved state; the boot id under which it was written. Raises OSError, ValueError or
        KeyError."""
        with open(self.folder + "/state", "rb") as file:
            state = json.loads(file.read())
        for name in (
            "phase",
            "stage",
            "pid",
            "ticks",
            "groups",
            "started_ms",
            "ended_ms",
            "exit_code",
            "oom",
        ):
            setattr(self, name, state[name])
        for name in ("detail", "log_base", "log_bytes"):
            setattr(self, name, state[name])
        self.job, self.attempt = state.get("job", ""), state.get("attempt", 0)
        self.has_app = state.get("app", False)
        self.gated = state.get("gated", False)  # not there after an older agent
        mps = state.get("mps")
        self.mps = (mps[0], mps[1]) if mps else None
        limit = state.get("gpu_limit")
        self.gpu_limit = (limit[0], limit[1]) if limit else None
        return str(state["boot"])

    def read_exit(self) -> bytes:
        try:
            with open(self.folder + "/exit", "rb") as file:
                return file.read(16)
        except OSError:
            return b""

    def read_exit_code(self) -> int | None:
        data = self.read_exit()
        text = data.strip()
        return int(text) if data.endswith(b"\n") and text.isdigit() else None


class Observer:
    """Somebody who wants to know of changes (a watch)."""

    def rank_changed(self, rank: Rank) -> None:
        raise NotImplementedError

    def log_grew(self, rank: Rank) -> None:
        raise NotImplementedError

    def rank_forgotten(self, rank_id: str) -> None:
        raise NotImplementedError

    def node_changed(self) -> None:
        raise NotImplementedError


def reason_of(error: OSError) -> str:
    return error.strerror or type(error).__name__


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def clock_ms() -> int:
    """A clock that nobody sets, and that goes on while the machine sleeps."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)


def warn(text: str) -> None:
    """A line to the agent's own log; a full disk there must not end the agent."""
    try:
        sys.stderr.write("argosy-agent: " + text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
