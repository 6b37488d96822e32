"""`start`: make sure that an agent serves a node of this machine, and say where. Safe to repeat.

Reads one line of JSON from standard input, the plan:

    {"root", "name", "socket", "devices": [0, 1] or null, "environ": {...}, "options": ["--notice=aws"],
     "dial": {"url", "node", "token", "ca"} or null, "starter": name of a `starter` to leave behind, or ""}

and prints one line: {"root", "socket", "facts": NodeFacts, "started": whether it was not there before,
"starter": the starter's socket}, or {"error": a code of `CODES`, "path", "text"}.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import sys
import time

from argosy.agent import wire
from argosy.agent.cgroups import read_text
from argosy.agent.connect import dial
from argosy.agent.dial_order import read_order, write_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: What may be wrong with a host; `argosy.infra.bootstrap` has the words for people.
CODES = ("no-space", "read-only", "no-exec", "denied", "taken", "failed")
_SPACE_BYTES = 8 << 20  # below this nothing useful can run
_PATIENCE_S = 60.0
_ST_RDONLY, _ST_NOEXEC = 1, 8

_ERRNOS = {
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "no-space",
    errno.EROFS: "read-only",
    errno.EACCES: "denied",
}


class Cannot(Exception):
    """The host is not fit for it."""

    def __init__(self, code: str, path: str, text: str) -> None:
        super().__init__(text)
        self.answer = {"error": code, "path": path, "text": text}


def run(pyz: str) -> int:
    """Exit status 0 when an agent serves, else 1."""
    plan = json.loads(sys.stdin.buffer.readline())
    name = str(plan.get("starter") or "")
    if name:
        _load(bool(plan.get("dial")))  # once for both: what is forked from here has it
    answer = answer_to(plan, pyz)
    if name and "error" not in answer:
        from argosy.agent import starter

        try:
            answer["starter"] = starter.begin(_run_folder(), name, pyz)
        except (OSError, Cannot):
            pass  # it saves time, and no more
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 1 if "error" in answer else 0


def _load(dials: bool) -> None:
    """All that every agent loads."""
    if not dials:
        sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio would load it
    import concurrent.futures.thread  # noqa: F401
    import encodings.ascii  # noqa: F401
    import pwd  # noqa: F401

    from argosy.agent import __main__, daemon  # noqa: F401
    from argosy.agent.devices import pci  # noqa: F401


def answer_to(plan: dict[str, object], pyz: str) -> dict[str, object]:
    """Start the node of a plan: the line that `start` prints."""
    try:
        return _start(plan, pyz)
    except Cannot as error:
        return dict(error.answer)
    except OSError as error:
        return _failure(error, error.filename or "")


def close_others(*kept: int) -> None:
    """Close all handles but the standard ones and `kept`."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # of the list itself


def _failure(error: OSError, path: str) -> dict[str, object]:
    code = _ERRNOS.get(error.errno or 0, "failed")
    return {"error": code, "path": str(path), "text": error.strerror or str(error)}


def become(plan: dict[str, object], pyz: str, tell: Callable[[dict[str, object]], None]) -> None:
    """`answer_to` in a process that nobody needs any more: where no agent serves the node, this one
    becomes it, which costs no fork. `tell` is called once with the answer, unless the agent cannot begin."""
    try:
        node = _prepared(plan, pyz)
        if node.facts is not None:
            tell(node.answer(False))
            return
        log = os.open(node.root + "/agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.setsid()
        os.dup2(log, 2)
        os.chdir("/")
    except Cannot as error:
        tell(dict(error.answer))
        return
    except OSError as error:
        tell(_failure(error, error.filename or ""))
        return

    def serves(facts: dict[str, object]) -> None:
        node.facts = facts
        tell(node.answer(True))

    from argosy.agent.__main__ import serve

    serve(_arguments(plan, node), serves)


class _Node:
    """The node of a plan. `facts`: of the agent that serves it, None where there is none."""

    def __init__(self, name: str, root: str, where: str, facts: dict[str, object] | None) -> None:
        self.name, self.root, self.where, self.facts = name, root, where, facts

    def answer(self, started: bool) -> dict[str, object]:
        return {"root": self.root, "socket": self.where, "facts": self.facts, "started": started}


def _start(plan: dict[str, object], pyz: str) -> dict[str, object]:
    node = _prepared(plan, pyz)
    started = node.facts is None
    if started:
        _serve(plan, node)
        node.facts = _ask(node.where)
        if node.facts is None:
            raise Cannot("failed", node.root, "it ended at once; %s" % _log_tail(node.root))
    return node.answer(started)


def _prepared(plan: dict[str, object], pyz: str) -> _Node:
    """Where the node is, with all that an agent finds there when it begins. Raises Cannot and OSError."""
    name = str(plan["name"])
    root = os.path.abspath(os.path.expanduser(str(plan.get("root") or "~/.argosy/nodes/" + name)))
    where = str(plan.get("socket") or "") or _run_folder() + "/" + _short(name, root) + ".s"
    facts = _ask(where)
    if facts is not None and _needs_to_dial(plan, root):
        _end(root, where)  # its ranks go on; the next one adopts them
        facts = None
    if facts is None:
        _make_root(root)
        _write_connect(os.path.dirname(where), pyz)
        order = plan.get("dial")
        if isinstance(order, dict):
            _keep_order(root, order)
        environ = plan.get("environ")
        os.environ.update(environ if isinstance(environ, dict) else {})
    return _Node(name, root, where, facts)


def _needs_to_dial(plan: dict[str, object], root: str) -> bool:
    """Whether an agent that runs does not dial the server of the plan."""
    order, known = plan.get("dial"), read_order(root)
    return isinstance(order, dict) and (known is None or known.get("url") != order.get("url"))


def _keep_order(root: str, order: dict[str, object]) -> None:
    known = read_order(root)
    if known is None or known.get("url") != order.get("url") or not known.get("key"):
        write_order(root, {str(key): str(value) for key, value in order.items()})


def _end(root: str, where: str) -> None:
    try:
        with open(root + "/agent.lock", "rb") as file:
            os.kill(int(file.read(32)), signal.SIGTERM)
    except (OSError, ValueError) as error:
        raise Cannot("failed", root, "the agent there cannot be replaced: %s" % error) from None
    until_s = time.monotonic() + _PATIENCE_S
    while _ask(where) is not None and time.monotonic() < until_s:
        time.sleep(0.02)


def _short(name: str, root: str) -> str:
    """A file name for the node: its own where that is short and plain."""
    if len(name) <= 40 and all(c.isalnum() or c in "-_." for c in name) and name[0] != ".":
        return name
    import hashlib

    return hashlib.sha256((name + "\0" + root).encode()).hexdigest()[:16]


def _run_folder() -> str:
    """A folder of this host alone (a home may be shared by many hosts) that only we may enter."""
    user = os.getuid()
    folders = ["/tmp/argosy-%d" % user, "/run/user/%d/argosy" % user]
    for folder in folders:
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            continue
        info = os.lstat(folder)
        if stat.S_ISDIR(info.st_mode) and info.st_uid == user:
            os.chmod(folder, 0o700)
            return folder
    raise Cannot("taken", folders[0], "it belongs to somebody else")


def _make_root(root: str) -> None:
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        state = os.statvfs(root)
    except OSError as error:
        raise Cannot(_ERRNOS.get(error.errno or 0, "failed"), root, error.strerror or str(error)) from None
    if state.f_flag & _ST_RDONLY:
        raise Cannot("read-only", root, "Read-only file system")
    if state.f_flag & _ST_NOEXEC:
        raise Cannot("no-exec", root, "mounted noexec")
    if state.f_bavail * state.f_frsize < _SPACE_BYTES:
        raise Cannot("no-space", root, "%d bytes are free" % (state.f_bavail * state.f_frsize))


def _write_connect(folder: str, pyz: str) -> None:
    """The command beside the socket by which it is reached where forwards are forbidden."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    program = "'%s'" % sys.executable.replace("'", "'\\''")
    text = "exec %s -I -S '%s' connect \"$@\"\n" % (program, pyz.replace("'", "'\\''"))
    if read_text(folder + "/connect") == text:
        return
    temporary = "%s/.connect-%d" % (folder, os.getpid())
    with open(temporary, "w") as file:
        file.write(text)
    os.replace(temporary, folder + "/connect")


def _serve(plan: dict[str, object], node: _Node) -> None:
    """Become two: the child is the agent, in a session of its own; we return when it listens."""
    heard, said = os.pipe()
    log = os.open(node.root + "/agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(said, 1)
            os.dup2(log, 2)
            close_others()
            os.chdir("/")
            from argosy.agent.__main__ import main

            os._exit(main(_arguments(plan, node)))
        finally:
            os._exit(70)
    os.close(said)
    os.close(log)
    os.wait()
    with open(heard, "rb") as file:
        file.readline()  # "listening", or its end


def _arguments(plan: dict[str, object], node: _Node) -> list[str]:
    """The command line of the node's agent."""
    words = ["serve", "--root", node.root, "--socket", node.where, "--name=" + node.name]
    devices = plan.get("devices")
    if isinstance(devices, list):
        words.append("--devices=" + ",".join(map(str, devices)))
    options = plan.get("options")
    if isinstance(options, list):
        words += map(str, options)
    return words


def _ask(where: str) -> dict[str, object] | None:
    """NodeFacts of the agent that listens there; None when there is none."""
    try:
        line = dial(where)
    except OSError:
        return None
    with line:
        line.settimeout(_PATIENCE_S)
        line.sendall(b"GET %s/node HTTP/1.1\r\nContent-Length: 0\r\n\r\n" % wire.PREFIX.encode())
        with line.makefile("rb") as file:
            length = 0
            for row in iter(file.readline, b"\r\n"):
                if not row:
                    return None
                if row.lower().startswith(b"content-length:"):
                    length = int(row.split(b":")[1])
            return dict(json.loads(file.read(length)))


def _log_tail(root: str) -> str:
    try:
        with open(root + "/agent.log", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 500))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return "its log says: " + lines[-1] if lines else "it said nothing"
