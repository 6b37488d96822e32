"""One MPS control daemon for each device and tenant: started with the first share, ended with the last.

Who uses a daemon holds a shared lock on the file `use` in its folder: the agent for a rank that waits, the
wrapper for one that runs. The daemon's **keeper**, a process that belongs to no agent, waits until it can
have that lock alone. So agents of several claims share a daemon, ranks keep it while an agent restarts, and
nothing is left of it when all of them were killed; the kernel keeps the books.

    <base>/<hash of device and tenant>/   use  turn  keeper   locks: of the users, of who starts one, of the
    keeper
                                          limits  daemon      what clients may have at most; who runs
                                          pipe/  log/         CUDA_MPS_PIPE_DIRECTORY, CUDA_MPS_LOG_DIRECTORY
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time

from argosy.agent import programs
from argosy.agent.cgroups import read_text

CONTROL = "nvidia-cuda-mps-control"
_START_S = 20.0  # a driver that sleeps needs seconds
_ASK_S = 10.0
_END_S = 5.0
_LOOK_S = 0.25
_LOGS = ("control.log", "server.log")
# What the logs say of a fault: `Server encountered a fatal exception`, a server in the state FAULT, an exit
# with 1.
_FAULT = re.compile(r"[^\n]*(?:[Ff]atal|FAULT|exited with status [1-9-])[^\n]*")


class NoDaemon(Exception):
    """Says why there is none."""


def folder_of(base: str, device: str, tenant: str) -> str:
    """Short, because the daemon's socket must fit into 107 bytes; the same for every agent of this user."""
    import hashlib

    return "%s/%s" % (base, hashlib.sha256(("%s\0%s" % (device, tenant)).encode()).hexdigest()[:12])


def client_env(folder: str, milli: int, memory_bytes: int) -> dict[str, str]:
    """For a program with so much of a device. The daemon shows one device, so it is number 0."""
    return {
        "CUDA_MPS_PIPE_DIRECTORY": folder + "/pipe",
        "CUDA_MPS_LOG_DIRECTORY": folder + "/log",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(_percent(milli)),
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=%dM" % _mib(memory_bytes),
    }


def _percent(milli: int) -> int:
    return max(1, -(-milli // 10))


def _mib(memory_bytes: int) -> int:
    return max(1, memory_bytes >> 20)


def take(folder: str, device: str, milli: int, memory_bytes: int) -> int:
    """Use the daemon of this folder, started when it does not run; the handle of the lock that keeps it.
    Blocks for seconds. Raises NoDaemon or OSError."""
    program = programs.find(CONTROL)
    if not program:
        raise NoDaemon("%s is not installed; it comes with the driver" % CONTROL)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    turn = programs.hold(folder + "/turn", True, _START_S)
    use = programs.hold(folder + "/use", False, 2 * _END_S) if turn is not None else None
    good = False
    try:
        if turn is None or use is None:
            raise NoDaemon("another program holds its MPS daemon (%s)" % folder)
        started = False
        due_s = time.monotonic() + _START_S
        while time.monotonic() < due_s:
            keeper = programs.hold(folder + "/keeper", True)
            if keeper is not None:
                if started:
                    os.close(keeper)
                    break  # it gave up
                _write(folder + "/limits", "%d %d" % (_percent(milli), _mib(memory_bytes)))
                _start_keeper(folder, device, program, keeper)
                started = True
            if _answers(folder, program):
                _widen(folder, program, milli, memory_bytes)
                good = True
                return use
            time.sleep(0.05)
        raise NoDaemon("its MPS daemon does not start: %s" % _last_words(folder))
    finally:
        for handle in (turn, None if good else use):
            if handle is not None:
                os.close(handle)


def _last_words(folder: str) -> str:
    for path in (folder + "/log/control.log", folder + "/keeper.log"):
        lines = read_text(path).strip().splitlines()
        if lines:
            return "%s (%s)" % (lines[-1][-200:], path)
    return "it said nothing (%s)" % folder


def _daemon_env(folder: str, device: str) -> dict[str, str]:
    names = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR")
    env = {name: os.environ[name] for name in names if name in os.environ}
    env["CUDA_VISIBLE_DEVICES"] = device
    env["CUDA_MPS_PIPE_DIRECTORY"] = folder + "/pipe"
    env["CUDA_MPS_LOG_DIRECTORY"] = folder + "/log"
    return env


def ask(folder: str, program: str, command: str) -> str:
    """What the daemon answers; "" also when it does not."""
    env = _daemon_env(folder, "")
    del env["CUDA_VISIBLE_DEVICES"]
    return programs.answer_of([program], _ASK_S, env, command + "\n").strip()


def _answers(folder: str, program: str) -> bool:
    if not os.path.exists(folder + "/pipe/control"):
        return False
    return bool(re.match(r"\d", ask(folder, program, "get_default_active_thread_percentage")))


def _widen(folder: str, program: str, milli: int, memory_bytes: int) -> None:
    """What a program that unsets its environment is held to: the largest share that this daemon has carried.
    A client can only tighten what the server says, so it must not be less than any share."""
    limits = [int(word) for word in read_text(folder + "/limits").split()] or [0, 0]
    limits = [max(limits[0], _percent(milli)), max(limits[1], _mib(memory_bytes))]
    _write(folder + "/limits", "%d %d" % (limits[0], limits[1]))
    _tell_limits(folder, program)


def _tell_limits(folder: str, program: str) -> None:
    percent, mib = read_text(folder + "/limits").split()
    ask(folder, program, "set_default_active_thread_percentage " + percent)
    ask(folder, program, "set_default_device_pinned_mem_limit 0 %sM" % mib)
    for server in ask(folder, program, "get_server_list").split():
        if server.isdigit():  # defaults are for servers to come
            ask(folder, program, "set_active_thread_percentage %s %s" % (server, percent))
            ask(folder, program, "set_device_pinned_mem_limit %s 0 %sM" % (server, mib))


def _tell_in_turn(folder: str, program: str) -> bool:
    """Tell them while nobody takes a share: what was read before another widened them would undo that."""
    turn = programs.hold(folder + "/turn", True)
    if turn is None:
        return False
    try:
        _tell_limits(folder, program)
    finally:
        os.close(turn)
    return True


def _write(path: str, text: str) -> None:
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(text)
    os.rename(path + ".new", path)


# ---- faults


def log_sizes(folder: str) -> list[int]:
    """Where the daemon's logs end now."""
    sizes = []
    for name in _LOGS:
        try:
            sizes.append(os.stat("%s/log/%s" % (folder, name)).st_size)
        except OSError:
            sizes.append(0)
    return sizes


def fault_since(folder: str, sizes: list[int]) -> str:
    """The first line about a fault that the logs got after `sizes`; "" when there is none."""
    for count, name in enumerate(_LOGS):
        offset = sizes[count]
        try:
            with open("%s/log/%s" % (folder, name), "rb") as file:
                file.seek(0 if os.fstat(file.fileno()).st_size < offset else offset)
                found = _FAULT.search(file.read(1 << 20).decode("utf-8", "replace"))
        except OSError:
            continue
        if found:
            return found.group().strip()[:200]
    return ""


# ---- the keeper


def _start_keeper(folder: str, device: str, program: str, lock: int) -> None:
    from argosy.agent import processes

    argv = [sys.executable, "-I", "-S", os.path.abspath(sys.argv[0]), "keep", folder, device, program]
    env = _daemon_env(folder, device)  # without the marks by which what belongs to a claim is found and ended
    try:
        processes.spawn(
            argv, env, "/dev/null", folder + "/keeper.log", append=True, inherit=[(lock, programs.INHERITED)]
        )
    finally:
        os.close(lock)


def keep(folder: str, device: str, program: str) -> int:
    """The keeper's life. It leaves the process that started it at once: who ends a claim ends its agent's
    children."""
    if os.fork():
        return 0
    os.set_inheritable(programs.INHERITED, False)  # its lock
    answered, deaths = False, 0
    while True:
        begun_s = time.monotonic()
        pid, ticks = _running(folder) or _start_daemon(folder, device, program)
        told = False
        while _is_alive(pid, ticks):
            if not told and _answers(folder, program):
                answered, told = True, _tell_in_turn(folder, program)
            if programs.hold(folder + "/use", True) is not None:
                ask(folder, program, "quit")
                _end(pid, ticks)
                return 0
            time.sleep(_LOOK_S)
        lived_s = time.monotonic() - begun_s
        deaths = deaths + 1 if lived_s < 10 else 0
        sys.stderr.write("the MPS daemon ended after %.1f s\n" % lived_s)
        sys.stderr.flush()
        if (deaths > 1 and not answered) or programs.hold(folder + "/use", True) is not None:
            return 1
        time.sleep(min(5.0, 0.2 * deaths))  # its users would run on without limits: start it again


def _start_daemon(folder: str, device: str, program: str) -> tuple[int, int]:
    """In the foreground, in a process group of its own with its servers; its pid and start time."""
    for name in ("pipe", "log"):
        os.makedirs("%s/%s" % (folder, name), mode=0o700, exist_ok=True)
    if os.path.exists(folder + "/pipe/control"):
        os.unlink(folder + "/pipe/control")  # nobody listens there any more
    pid = os.posix_spawn(program, [program, "-f"], _daemon_env(folder, device), setpgroup=0)
    ticks = programs.start_ticks(pid)
    _write(folder + "/daemon", "%d %d %s" % (pid, ticks, _boot_id()))
    return pid, ticks


def _boot_id() -> str:
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def _running(folder: str) -> tuple[int, int] | None:
    """The daemon of a keeper that was killed."""
    fields = read_text(folder + "/daemon").split()
    if len(fields) != 3 or fields[2] != _boot_id() or not _is_alive(int(fields[0]), int(fields[1])):
        return None
    return int(fields[0]), int(fields[1])


def _is_alive(pid: int, ticks: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # adopted
        pass
    return bool(ticks) and programs.start_ticks(pid) == ticks


def _end(pid: int, ticks: int) -> None:
    """It was asked to quit; with its servers, and for certain."""
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        due_s = time.monotonic() + _END_S
        if number and _is_alive(pid, ticks):
            os.killpg(pid, number)
        while _is_alive(pid, ticks) and time.monotonic() < due_s:
            time.sleep(0.02)
