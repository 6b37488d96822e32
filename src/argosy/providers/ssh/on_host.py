"""Runs on a host, in its own Python (3.8 or newer, standard library): what it is, what claims hold there.

It is sent as text before each order, so that nothing has to be installed. Its input is one line of JSON, the
order, and perhaps the agent's zipapp; its output one line of JSON.

    <folder>/agent/agent-<hash>.pyz           the agent, once for each version
    <folder>/nodes/<host name>/lock           held while claims are looked at or changed
    <folder>/nodes/<host name>/<claim id>/    claim.json, and a folder for each node of the claim here
    <folder>/nodes/<host name>/.released/     claims that must not come back

Law: a claim's file is there before anything of the claim is, and goes last. Files of other servers are never
touched: who finds one takes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False  # what is only sometimes needed is imported there: each import costs milliseconds
if TYPE_CHECKING:
    from typing import IO, Any

    Order = dict[str, Any]  # JSON
    Answer = dict[str, Any]

_RANK_MARK = b"ARGOSY_RANK_KEY="
_RELEASED_MAX = 5000
_LATELY = 512  # so many new pids are looked at one by one
_SPACE_BYTES = 32 << 20  # below this nothing useful can run
_ST_NOEXEC = 8
_CODES = {
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "no-space",
    errno.EROFS: "read-only",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
}


class Place:
    """Where this host keeps what is ours."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(os.path.expanduser(folder))
        self.agents = os.path.join(self.folder, "agent")
        # Homes may be shared by many hosts.
        self.nodes = os.path.join(self.folder, "nodes", os.uname().nodename.split(".")[0] or "host")
        self.released = os.path.join(self.nodes, ".released")

    def make(self) -> None:
        for path in (self.agents, self.nodes, self.released):
            os.makedirs(path, mode=0o700, exist_ok=True)

    def lock(self) -> IO[str]:
        """Held until the file is closed."""
        file = open(os.path.join(self.nodes, "lock"), "w")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def claim(self, claim_id: str) -> str:
        return os.path.join(self.nodes, claim_id)

    def records(self) -> dict[str, Answer]:
        """What claims hold, by id. One whose file was cut off by a crash holds nothing."""
        names = sorted(os.listdir(self.nodes))
        return {name: self.record(name) for name in names if name.startswith("clm-")}

    def record(self, claim_id: str) -> Answer:
        """What a claim holds."""
        try:
            with open(os.path.join(self.nodes, claim_id, "claim.json")) as file:
                return dict(json.load(file))
        except (OSError, ValueError, TypeError):
            return {}


def write(path: str, value: Answer) -> None:
    """All or nothing, also when the power goes out in between."""
    part = path + ".new"
    with open(part, "w") as file:
        file.write(json.dumps(value))  # `json.dump` does it in Python, ten times as slowly
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)


# --- what it is ------------------------------------------------------------------------------------


def look(place: Place, order: Order) -> Answer:
    """What the host is, whether nodes can live on it, and what claims hold there."""
    answer: Answer = {
        "hostname": os.uname().nodename,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "user": os.environ.get("USER") or str(os.getuid()),
        "ip": (os.environ.get("SSH_CONNECTION", "").split() + [""] * 3)[2],
        "bash": os.access("/bin/bash", os.X_OK),
    }
    agent = os.path.join(place.agents, order["agent"])
    if not os.path.exists(agent):
        answer["need"] = True
        return answer
    if order.get("probe"):
        check_writable(place)
        answer["facts"] = probe(agent, place)
    with place.lock():
        records = place.records()
        for name in [name for name, record in records.items() if not record]:
            remove(place.claim(name))  # a crash left it before anything was written down, or started
            del records[name]
        answer["claims"] = [state_of(place, name, record) for name, record in records.items()]
    return answer


def check_writable(place: Place) -> None:
    """Raises OSError where nodes cannot live: no room, no right to write, nothing can be started."""
    path = os.path.join(place.nodes, ".try-%d" % os.getpid())
    try:
        with open(path, "wb") as file:
            file.write(b"#" * 65536)
    finally:
        if os.path.exists(path):
            os.unlink(path)
    state = os.statvfs(place.nodes)
    if state.f_flag & _ST_NOEXEC:
        raise OSError(errno.ENOEXEC, "mounted noexec", place.nodes)
    if state.f_bavail * state.f_frsize < _SPACE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place.nodes)


def probe(agent: str, place: Place) -> Answer:
    """The agent's facts of this machine."""
    import importlib

    sys.path.insert(0, agent)
    node = importlib.import_module("argosy.agent.node").Node(place.nodes, "", None)
    node.discover_devices()
    facts: Answer = node.facts()
    return facts


def state_of(place: Place, claim_id: str, record: Answer) -> Answer:
    """A claim, with which of its nodes have a live agent."""
    alive = []
    for index in record.get("nodes", {}):
        alive.append([int(index), agent_pid(os.path.join(place.claim(claim_id), index)) > 0])
    return {
        "claim": claim_id,
        "tag": record.get("tag", ""),
        "owner": record.get("owner", ""),
        "state": record.get("state", "made"),
        "alive": alive,
        "since_ms": record.get("since_ms", 0),
    }


def agent_pid(home: str) -> int:
    """Of the agent that holds the lock of a node's folder; 0: there is none."""
    try:
        with open(os.path.join(home, "agent.lock"), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read(32) or b"0")
    except (OSError, ValueError):
        pass
    return 0


# --- taking ----------------------------------------------------------------------------------------


def take(place: Place, order: Order) -> Answer:
    """Write down what a claim holds here, if nobody else has it. Repeating it is harmless."""
    claim_id, tags = order["claim"], order["tags"]
    with place.lock():
        if os.path.exists(os.path.join(place.released, claim_id)):
            return {"refused": "released", "claim": claim_id}
        records = place.records()
        mine = records.pop(claim_id, {})
        for other, record in records.items():
            if record and record.get("tag") not in tags:
                return {"refused": "other", "claim": other, "owner": record.get("owner", "")}
        if order["state"] == "run":
            full = [device for device, milli in shares_of([*records.values(), order]).items() if milli > 1000]
            if full:
                return {"refused": "busy", "device": full[0]}
        record = {
            "tag": order["tag"],
            "owner": order["owner"],
            "state": order["state"],
            "nodes": order["nodes"],
            "since_ms": mine.get("since_ms") or order["now_ms"],
        }
        folder = place.claim(claim_id)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if record != mine:
            write(os.path.join(folder, "claim.json"), record)
    if order["state"] == "stop":
        end(place, claim_id)
    homes = {index: os.path.join(folder, index) for index in order["nodes"]}
    for home in homes.values():
        os.makedirs(home, mode=0o700, exist_ok=True)
    environ = {"ARGOSY_PLACED_DIR": os.path.join(place.nodes, ".placed"), "ARGOSY_NODES_DIR": place.nodes}
    return {"homes": homes, "root": min(homes.values()), "environ": environ}


def shares_of(records: Any) -> dict[int, int]:
    """Thousandths that are held, by device."""
    taken: dict[int, int] = {}
    for record in records:
        if record.get("state") == "run":
            for node in record.get("nodes", {}).values():
                for device, milli in node:
                    taken[device] = taken.get(device, 0) + milli
    return taken


# --- giving back -----------------------------------------------------------------------------------


def give(place: Place, order: Order) -> Answer:
    """Nothing of a claim is left. `forget`: it may come back, its order was undone."""
    claim_id = order["claim"]
    record = place.record(claim_id)
    if record and record.get("tag") not in order["tags"]:
        return {"refused": "other", "claim": claim_id, "owner": record.get("owner", "")}
    if not order.get("forget"):
        with open(os.path.join(place.released, claim_id), "w"):
            pass
        if order["claim"][-1] in "0z":  # one of sixteen: they are thousands
            for old in sorted(os.listdir(place.released))[:-_RELEASED_MAX]:
                os.unlink(os.path.join(place.released, old))
    folder = place.claim(claim_id)
    if os.path.isdir(folder):
        end(place, claim_id)
        agent = os.path.join(place.agents, order["agent"])
        for index in indices(folder):
            outside(agent, place, os.path.join(folder, index))
        with place.lock():
            remove(folder)
    return {}


def indices(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.isdigit())


def outside(agent: str, place: Place, home: str) -> None:
    """What the node put outside of its folder goes, unless others use it too. Raises OSError."""
    placed = os.path.join(place.nodes, ".placed")
    if not os.path.exists(placed) or not os.path.exists(agent):
        return
    import subprocess

    done = subprocess.run(
        [sys.executable, "-I", "-S", agent, "release", "--root", home],
        env=dict(os.environ, ARGOSY_PLACED_DIR=placed),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise OSError(errno.EIO, done.stdout.decode("utf-8", "replace").strip()[-300:], home)


def remove(folder: str) -> None:
    """A folder with whatever modes its owner gave to things in it; claim.json goes last. Raises OSError."""
    import shutil

    for name in sorted(os.listdir(folder), key=lambda name: name == "claim.json"):
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            for top, _, _ in os.walk(path, onerror=None):
                if os.lstat(top).st_mode & 0o700 != 0o700:
                    os.chmod(top, 0o700)
            shutil.rmtree(path, onerror=unlock)
        else:
            os.unlink(path)
    os.rmdir(folder)


def unlock(act: Any, path: str, _: Any) -> None:
    """What could not be removed is removed once its folder may be entered."""
    for each in (os.path.dirname(path), path):
        if os.path.isdir(each) and not os.path.islink(each):
            os.chmod(each, 0o700)
    if act in (os.scandir, os.listdir, os.open, os.lstat):
        import shutil

        shutil.rmtree(path)
    else:
        act(path)


def end(place: Place, claim_id: str) -> None:
    """Kill every process of a claim. Raises OSError when some cannot be killed.

    First all are stopped, then killed: what forks faster than it is killed is found in the next round.
    """
    folder = place.claim(claim_id)
    marks, agents = [], []
    for index in indices(folder):
        home = os.path.join(folder, index)
        stat = os.stat(home)
        marks.append(_RANK_MARK + b"%x-%x:" % (stat.st_dev, stat.st_ino))
        agents.append(home)
    newest = 0
    found: dict[int, bytes] = {}
    for turn in range(100):
        before, newest = newest, last_pid()
        lately = 0 < before <= newest < before + _LATELY  # then only what has come since can be new
        among = [*found, *range(before + 1, newest + 1)] if lately else None
        found = processes(marks, [pid for pid in map(agent_pid, agents) if pid], found, among)
        if not found:
            break
        for number in (signal.SIGSTOP, signal.SIGKILL) if turn else (signal.SIGKILL,):
            for pid in found:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass  # ended by itself in the meantime
        time.sleep(0.002 if turn < 5 else 0.05)
    else:
        raise OSError(errno.EBUSY, "processes %s cannot be killed" % sorted(found)[:5], folder)
    for index in indices(folder):
        remove_cgroups(os.path.join(folder, index))


def last_pid() -> int:
    """The newest pid here; 0: nobody says."""
    try:
        return int(content("/proc/loadavg").split()[4])
    except (OSError, ValueError, IndexError):
        return 0


def content(path: str) -> bytes:
    """Of a small file of the kernel's. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while True:
            piece = os.read(handle, 1 << 16)
            if not piece:
                return data
            data += piece
    finally:
        os.close(handle)


def processes(
    marks: list[bytes], agents: list[int], known: dict[int, bytes], among: list[int] | None
) -> dict[int, bytes]:
    """Agents, ranks with these marks in their environment, those that are `known` already, and all that
    descends from them: their pids, with when they began. `among`: who is looked at; None: all."""
    me = os.getpid()
    found: dict[int, bytes] = {}
    began: dict[int, bytes] = {}
    children: dict[int, list[int]] = {}
    listed = [int(name) for name in os.listdir("/proc") if name.isdigit()] if among is None else among
    for pid in {*listed, *agents}:
        if pid == me:
            continue
        try:
            fields = content("/proc/%d/stat" % pid).rpartition(b")")[2].split()
            if fields[0] in (b"Z", b"X"):
                continue
            began[pid] = fields[19]
            children.setdefault(int(fields[1]), []).append(pid)
            is_ours = pid in agents or known.get(pid) == fields[19]
            if not is_ours:
                environ = b"\0" + content("/proc/%d/environ" % pid)
                is_ours = any(b"\0" + mark in environ for mark in marks)
        except OSError:
            continue
        if is_ours:
            found[pid] = began[pid]
    grown = list(found)
    while grown:
        for child in children.get(grown.pop(), ()):
            if child not in found:
                found[child] = began[child]
                grown.append(child)
    return found


def remove_cgroups(home: str) -> None:
    """The control groups of a node's ranks, which the agent notes beside each rank. Those in use stay."""
    ranks = os.path.join(home, "ranks")
    for name in os.listdir(ranks) if os.path.isdir(ranks) else ():
        try:
            with open(os.path.join(ranks, name, "state")) as file:
                groups = json.load(file).get("groups", [])
        except (OSError, ValueError, AttributeError):
            continue
        for group in groups:
            try:
                os.rmdir(group)
            except OSError:
                pass


# --- the order -------------------------------------------------------------------------------------


def keep(place: Place, order: Order) -> None:
    """The agent's zipapp, which follows the order, is kept once."""
    data = sys.stdin.buffer.read(order["size"])
    if len(data) != order["size"]:
        raise OSError(errno.EIO, "the agent did not come whole", place.agents)
    path = os.path.join(place.agents, order["agent"])
    part = "%s.%d" % (path, os.getpid())
    try:
        with open(part, "wb") as file:
            file.write(data)
        os.rename(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def load() -> None:
    """What orders import on their way, for a process that does many of them."""
    import shutil  # noqa: F401


def obey(order: Order) -> Answer:
    """Do what an order says."""
    place = Place(order["folder"])
    try:
        os.umask(0o077)
        place.make()
        if order.get("size"):
            keep(place, order)
        return {"look": look, "take": take, "give": give}[order["verb"]](place, order)
    except OSError as error:
        code = "no-exec" if error.errno == errno.ENOEXEC else _CODES.get(error.errno or 0, "failed")
        path, text = str(error.filename or place.folder), error.strerror or str(error)
        return {"error": code, "path": path, "text": text}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(obey(json.loads(sys.stdin.buffer.readline()))) + "\n")
