"""A stand-in for NVIDIA's `nvidia-cuda-mps-control`, for machines without a GPU.

`install(folder)` puts an executable of that name there; with the folder first on PATH the agent finds it. It
takes the commands that we use (`-f`, `-d`; get_server_list, get_server_status, start_server -uid, set_ and
get_ of the default and the per-server limits, quit), keeps pid file, socket and logs where the real one has
them, and writes lines like its. A client can only tighten what its server says, as NVIDIA documents it. What
real clients do through the driver is three commands of its own: `fake_client LIMITS PERCENT` (answers the
limits that hold for it), `fake_fault` (a client breaks the server) and `fake_environment`.

A file `refuse` beside the executable makes it fail to start, as on a card that MPS does not support.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

NAME = "nvidia-cuda-mps-control"
_LOADED = (  # not for programs without MPS: what the daemon was started with, or the documented default
    ("pipe", "CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"),
    ("log", "CUDA_MPS_LOG_DIRECTORY", "/var/log/nvidia-mps"),
)


def install(folder: Path) -> Path:
    """The executable, in `folder`."""
    program = folder / NAME
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{Path(__file__).resolve()}" "$0" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP)
    return program


def call(pipe: Path | str, command: str) -> str:
    """One command to the daemon that listens below `pipe`. Raises OSError when none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.connect(f"{pipe}/control")
        line.sendall(command.encode() + b"\n")
        line.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    return answer.decode()


def _mib(text: str) -> int:
    """Of `512M`, `4G`."""
    return int(text[:-1]) * {"M": 1, "G": 1024}[text[-1]]


class _Server:
    def __init__(self, percent: float, mib: int | None) -> None:
        self.process = subprocess.Popen(["/bin/sleep", "86400"])  # of the daemon's process group
        self.percent = percent
        self.mib = mib


class _Daemon:
    def __init__(self, pipe: Path, log: Path) -> None:
        self.pipe = pipe
        self.log = log
        self.percent = 100.0
        self.mib: int | None = None
        self.servers: dict[int, _Server] = {}

    def note(self, text: str, file: str = "control.log", who: str = "Control") -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with (self.log / file).open("a") as out:
            out.write(f"[{stamp}.000 {who} {os.getpid():5}] {text}\n")

    def serve(self) -> None:
        path = self.pipe / "control"
        (self.pipe / f"{NAME}.pid").write_text(f"{os.getpid()}\n")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(64)
        self.note(f"Starting control daemon using socket {path}")
        signal.signal(signal.SIGTERM, lambda *_: self.quit())
        while True:
            line, _ = listener.accept()
            with line, line.makefile("rw") as text:
                self.note("NEW UI")
                for command in text:
                    self.note(f"Cmd:{command.strip()}")
                    if command.strip() == "quit":
                        self.quit()
                    text.write(self.answer(command.split()))
                    text.flush()

    def quit(self) -> None:
        for server in self.servers.values():
            server.process.kill()
        for name in ("control", f"{NAME}.pid"):
            (self.pipe / name).unlink(missing_ok=True)
        self.note("Exit")
        os._exit(0)

    def start_server(self) -> _Server:
        server = _Server(self.percent, self.mib)
        self.servers[server.process.pid] = server
        self.note(f"Starting new server {server.process.pid} for user {os.getuid()}")
        self.note(f"Active Threads Percentage set to {self.percent}", "server.log", "Server")
        return server

    def answer(self, words: list[str]) -> str:
        match words:
            case ["get_server_list"]:
                return "".join(f"{pid}\n" for pid in self.servers)
            case ["get_server_status", pid]:
                return "ACTIVE\n" if int(pid) in self.servers else "Server not found\n"
            case ["start_server", "-uid", _]:
                self.start_server()
            case ["get_default_active_thread_percentage"]:
                return f"{self.percent}\n"
            case ["set_default_active_thread_percentage", percent]:
                self.percent = float(percent)
            case ["set_active_thread_percentage", pid, percent] if int(pid) in self.servers:
                self.servers[int(pid)].percent = float(percent)
            case ["get_active_thread_percentage", pid] if int(pid) in self.servers:
                return f"{self.servers[int(pid)].percent}\n"
            case ["get_default_device_pinned_mem_limit", "0"]:
                return f"{self.mib}M\n" if self.mib is not None else "No limit set\n"
            case ["set_default_device_pinned_mem_limit", "0", limit]:
                self.mib = _mib(limit)
            case ["set_device_pinned_mem_limit", pid, "0", limit] if int(pid) in self.servers:
                self.servers[int(pid)].mib = _mib(limit)
            case ["get_device_pinned_mem_limit", pid, "0"] if int(pid) in self.servers:
                return f"{self.servers[int(pid)].mib}M\n"
            case ["fake_client", limits, percent]:
                return self.connect(limits, percent)
            case ["fake_fault"]:
                for number, server in self.servers.items():
                    server.process.kill()
                    server.process.wait()
                    self.note("Server encountered a fatal exception. Shutting down")
                    self.note(f"Server {number} exited with status 1")
                self.servers.clear()
            case ["fake_environment"]:
                return os.environ.get("CUDA_VISIBLE_DEVICES", "") + "\n"
            case _:
                return f"Invalid command: {' '.join(words)}\n"
        return ""

    def connect(self, limits: str, percent: str) -> str:
        """A program starts: MiB and percent that hold for it. `-`: its environment says nothing."""
        server = next(iter(self.servers.values()), None) or self.start_server()
        mib, share = server.mib, server.percent
        if limits != "-":
            own = _mib(limits.removeprefix("0="))
            mib = own if mib is None else min(mib, own)
        if percent != "-":
            share = min(share, float(percent))
        return f"{mib} {share:g}\n"


def _main(program: str, options: list[str]) -> int:
    pipe, log = (Path(os.environ.get(name, default)) for _, name, default in _LOADED)
    if not options:
        try:
            answers = [call(pipe, command.strip()) for command in sys.stdin]
        except OSError:
            sys.stderr.write("Cannot find MPS control daemon process\n")
            return 1
        sys.stdout.write("".join(answers))
        return 0
    if Path(program).with_name("refuse").exists():
        with (log / "control.log").open("a") as out:
            out.write("[2025-01-01 00:00:00.000 Control     1] Failed to start : operation not supported\n")
        return 1
    if (pipe / "control").exists():
        sys.stderr.write("An instance of this daemon is already running\n")
        return 1
    if options == ["-d"] and os.fork():
        return 0
    _Daemon(pipe, log).serve()
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
