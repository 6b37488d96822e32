"""Programs that listen on a fixed port, several of them on one machine: each gets a port of its own.

    python agent.pyz ports 8000=24001 -- COMMAND...

runs COMMAND so that whatever it, or a program that it starts, binds to port 8000 is bound to 24001. The
kernel (seccomp's user notification, Linux 5.9) asks us at every `bind`: we take the program's socket
(`pidfd_getfd`), bind it to the other port, and give the result back. Programs need no library and notice
nothing; no rights are needed. Where the kernel cannot do that, COMMAND runs as it is, and a line says so.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import struct
import sys

_NUMBERS = {  # bind, seccomp, and how seccomp calls the machine
    "x86_64": (49, 317, 0xC000003E),
    "aarch64": (200, 277, 0xC00000B7),
}
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
_SET_NO_NEW_PRIVS, _SET_SUBREAPER = 38, 36
_NEW_LISTENER = 1 << 3
_SET_MODE_FILTER = 1
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTIF = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, nr, arch, ip, arguments
_RESPONSE = struct.Struct("=QqiI")  # id, value, error, flags
_ADDRESS_MAX = 128
_FAMILIES = (2, 10)  # AF_INET, AF_INET6

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def run(words: list[str]) -> int:
    """The exit status of the command. `words`: `WRITTEN=OWN ...`, `--`, the command."""
    if "--" not in words or not words[words.index("--") + 1 :]:
        sys.stderr.write("argosy-agent: ports wants WRITTEN=OWN -- COMMAND\n")
        return 2
    split = words.index("--")
    try:
        moved = {int(a): int(b) for a, b in (word.split("=") for word in words[:split])}
    except ValueError:
        sys.stderr.write("argosy-agent: ports wants numbers: 8000=24001\n")
        return 2
    return _supervise(words[split + 1 :], moved)


def _supervise(command: list[str], moved: dict[int, int]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the command gets them itself
    _libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0)  # what it leaves behind stays below us: we may look into it
    told, tell = os.pipe()
    go, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.close(let_go)
        _become(command, tell, go)
    os.close(tell)
    os.close(go)
    words = os.read(told, 64).split()
    os.close(told)
    listener = _take_handle(child, int(words[1])) if words[:1] == [b"ok"] else -1
    if listener < 0:
        why = words[1].decode() if len(words) > 1 else "?"
        sys.stderr.write(
            "argosy: this kernel moves no ports (%s): the program has to listen on $ARGOSY_SERVICE_PORT\n"
            % why
        )
    os.write(let_go, b"go")
    os.close(let_go)
    for handle in range(3, 10):  # gates and locks belong to the wrapper and the command
        if handle != listener:
            try:
                os.close(handle)
            except OSError:
                pass
    return _serve(child, listener, moved)


def _become(command: list[str], tell: int, go: int) -> None:
    """The child: put the filter on, say where its listener is, wait, become the command."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    listener, why = _filter()
    os.write(tell, ("ok %d" % listener if listener >= 0 else "no %s" % why).encode())
    os.close(tell)
    os.read(go, 2)
    os.close(go)
    if listener >= 0:
        os.close(listener)
    try:
        os.execvp(command[0], command)  # noqa: S606  # the point of it all
    except OSError as error:
        sys.stderr.write("argosy: cannot run %s: %s\n" % (command[0], error.strerror))
    os._exit(127)


def _filter() -> tuple[int, str]:
    """(the handle of the listener, why there is none)."""
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        return -1, platform.machine()
    bind, seccomp, machine = numbers
    steps = [
        (0x20, 0, 0, 4),  # load the machine
        (0x15, 0, 3, machine),  # another: allow
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 0, 1, bind),
        (0x06, 0, 0, _NOTIFY),
        (0x06, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(code))
    if os.geteuid() != 0:
        _libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    found = _libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    return (found, "") if found >= 0 else (-1, errno.errorcode.get(ctypes.get_errno(), "?"))


def _take_handle(pid: int, number: int) -> int:
    """A copy of another process's handle; below 0 when it cannot be had."""
    process = _libc.syscall(_PIDFD_OPEN, pid, 0)
    if process < 0:
        return -1
    try:
        return int(_libc.syscall(_PIDFD_GETFD, process, number, 0))
    finally:
        os.close(process)


def _serve(child: int, listener: int, moved: dict[int, int]) -> int:
    """Answer until the command has ended; its exit status."""
    low, high = os.pipe()
    for handle in (low, high):
        os.set_blocking(handle, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(high, warn_on_full_buffer=False)
    asked = select.poll()
    asked.register(low, select.POLLIN)
    if listener >= 0:
        asked.register(listener, select.POLLIN)
    while True:
        status = _reap(child)
        if status is not None:
            return status
        for handle, what in asked.poll(1000):
            if handle == low:
                os.read(low, 4096)
            elif what & select.POLLIN:
                _answer(listener, moved)
            else:
                asked.unregister(listener)  # nobody is left who could bind anything


def _reap(child: int) -> int | None:
    """The exit status of the command, once it has ended; what it left behind is reaped, too."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 127
        if pid == 0:
            return None
        if pid == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _answer(listener: int, moved: dict[int, int]) -> None:
    """One `bind`. What we cannot do the kernel does itself."""
    asked = bytearray(_NOTIF.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, asked, True)
    except OSError:
        return  # who asked is gone
    fields = _NOTIF.unpack(asked)
    answer = _RESPONSE.pack(fields[0], 0, 0, _CONTINUE)
    try:
        error = _bind_elsewhere(fields[1], fields[6], fields[7], fields[8], moved)
        if error is not None:
            answer = _RESPONSE.pack(fields[0], 0, -error, 0)
    except OSError:
        pass
    try:
        fcntl.ioctl(listener, _SEND, answer)
    except OSError:
        pass  # who asked is gone


def _bind_elsewhere(thread: int, handle: int, place: int, size: int, moved: dict[int, int]) -> int | None:
    """0, or the number of the error, of a `bind` that we did; None for one that is none of ours."""
    if not 4 <= size <= _ADDRESS_MAX:
        return None
    memory = os.open("/proc/%d/mem" % thread, os.O_RDONLY)
    try:
        address = os.pread(memory, size, place)
    finally:
        os.close(memory)
    family, port = struct.unpack("=H", address[:2])[0], struct.unpack("!H", address[2:4])[0]
    if family not in _FAMILIES or port not in moved:
        return None
    socket = _take_handle(_process_of(thread), handle)
    if socket < 0:
        return None
    try:
        other = address[:2] + struct.pack("!H", moved[port]) + address[4:]
        return 0 if _libc.bind(socket, other, len(other)) == 0 else ctypes.get_errno()
    finally:
        os.close(socket)


def _process_of(thread: int) -> int:
    with open("/proc/%d/status" % thread) as file:
        return int(next(line for line in file if line.startswith("Tgid:")).split()[1])
