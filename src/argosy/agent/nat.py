"""A way out of a sandbox for every protocol, for sessions that ask for it (`--network nat`): pasta, which
gives the sandbox's network an address, and carries what its programs send as a program of the node would.

It opens no port of this machine. What a session does not reach stays the same as through the outlet: this
machine by any of its addresses, and what is only reached on its own wires.
"""

from __future__ import annotations

import os
import signal
import socket
import struct

from argosy.agent import programs
from argosy.agent.cgroups import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Tuple

READY = "net.ready"  # in the session's folder: empty, or why it has no way out
DNS = "198.51.100.53"  # what the sandbox asks for names; pasta asks the node's own server
_PROGRAMS = (("pasta", "passt"), ("ip", "iproute2"), ("nsenter", "util-linux"))
#: Link-local, where clouds keep credentials; and where two of them do so elsewhere.
_FORBIDDEN = ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32")
_TUN = "/dev/net/tun"
_GET_OWNER = 0xB701  # NS_GET_USERNS of ioctl_ns(2)


def why_not() -> str:
    """What is missing for it on this node; "": nothing."""
    for name, package in _PROGRAMS:
        if not programs.find(name):
            return "the program `%s` is not installed (package %s)" % (name, package)
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return "%s cannot be opened; `chmod 666 %s` is usual" % (_TUN, _TUN)
    return ""


def begin(folder: str, pid_file: str) -> None:
    """Give the session whose sockets lie in `folder` its way out, and let its app start. Once: what an
    earlier agent began goes on."""
    if os.path.exists(folder + "/" + READY):
        return
    try:
        text = _begin(_pid_behind(folder + "/in.sock"), pid_file)
    except OSError as error:
        text = error.strerror or str(error)
    temporary = folder + "/" + READY + ".new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    info = os.stat(folder)  # whose programs may have another user id
    os.chown(temporary, info.st_uid, info.st_gid)
    os.rename(temporary, folder + "/" + READY)


def _begin(pid: int, pid_file: str) -> str:
    """Why it failed; "": it did not."""
    network = "/proc/%d/ns/net" % pid
    enter, flags = [programs.find("nsenter"), "--net=" + network], ["--runas", "0:0", "--netns-only"]
    handles: List[int] = []
    if os.geteuid() != 0:
        owner, handles = _owner_of(network)
        enter += ["--user=" + owner, "--preserve-credentials"]
        flags = ["--userns", owner]
    argv = [programs.find("pasta"), "--config-net", "--ipv4-only", "--no-map-gw", "--dns-forward", DNS]
    for kind in ("--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"):
        argv += [kind, "none"]
    try:
        said = programs.answer_of([*argv, *flags, "--pid", pid_file, "--netns", network], timeout_s=10)
        if not read_text(pid_file).strip():
            return "pasta does not start: %s" % (said.strip().splitlines() or ["it said nothing"])[-1]
        lines = ["ip route add blackhole %s" % each for each in (*_FORBIDDEN, *_own_addresses())]
        said = programs.answer_of([*enter, "--", "/bin/sh", "-ec", "\n".join(lines)], timeout_s=10)
        if said.strip():  # nobody goes out who might reach what is forbidden
            end(pid_file)
            return "its routes cannot be set: %s" % said.strip().splitlines()[-1]
    finally:
        for handle in handles:
            os.close(handle)
    return ""


def _own_addresses() -> List[str]:
    said = programs.answer_of([programs.find("ip"), "-4", "-o", "addr", "show"], timeout_s=10)
    words = [line.split() for line in said.splitlines()]
    found = [each[each.index("inet") + 1].partition("/")[0] for each in words if "inet" in each]
    return [each + "/32" for each in found if not each.startswith("127.")]


def _owner_of(network: str) -> Tuple[str, List[int]]:
    """The user namespace that a network namespace belongs to, as a path, and what must stay open for it."""
    import fcntl

    handle = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    owner = fcntl.ioctl(handle, _GET_OWNER)
    return "/proc/%d/fd/%d" % (os.getpid(), owner), [handle, owner]


def _pid_behind(path: str) -> int:
    """Of the program that listens on a socket. Raises OSError."""
    from argosy.agent.addresses import socket_address

    address, handle = socket_address(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        finally:
            if handle is not None:
                os.close(handle)
        told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", told)[0])


def end(pid_file: str) -> None:
    """Of a session that has ended."""
    text = read_text(pid_file).strip()
    if text.isdigit() and pid_file in read_text("/proc/%s/cmdline" % text).split("\0"):
        try:
            os.kill(int(text), signal.SIGTERM)
        except OSError:
            pass
    try:
        os.unlink(pid_file)
    except OSError:
        pass
