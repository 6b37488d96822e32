"""Runs on a node of a Ray cluster, in the Python of Ray: starts the agent of one node and ends it.

Its input is lines of JSON: first the plan {"name", "node_dir", "agent", "dials", "devices"}, then orders
to dial (`agent.dial_order`). When its input ends, because the actor that started it has ended in whatever
way, all that runs on the node ends, its files go, and so does it. Standard library only, Python 3.8 or newer.

    <node_dir>/argosy-<claim>-<index>/     the agent's root; `agent.sock` and `agent.pyz` in it
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Plan = dict[str, Any]  # JSON

_TURNS = 200
_LOOK_S = 1.0


class Keeper:
    """The agent of one node."""

    def __init__(self, plan: Plan, package: str) -> None:
        self._plan = plan
        self.root = os.path.join(plan["node_dir"], "argosy-" + plan["name"])
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        if os.stat(self.root).st_uid != os.getuid():
            raise OSError("%s belongs to somebody else" % self.root)
        self._pyz = os.path.join(self.root, "agent.pyz")  # Ray removes its copy when the job has ended
        shutil.copyfile(os.path.join(package, plan["agent"]), self._pyz)
        self._agent: subprocess.Popen[bytes] | None = None
        home = os.stat(self.root)
        self._mark = "%x-%x:" % (home.st_dev, home.st_ino)  # how ranks of this root are marked

    def start(self) -> None:
        """Returns when the agent listens. Raises OSError with the last line that it said."""
        arguments = [sys.executable, "-I", "-S", self._pyz, "serve", "--root", self.root]
        arguments += ["--socket", self.root + "/agent.sock", "--name=" + os.uname().nodename]
        arguments.append("--devices=" + ",".join(map(str, self._plan["devices"])))
        with open(self.root + "/agent.log", "ab") as log:
            self._agent = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._agent.stdout is not None
        if b"listening" not in self._agent.stdout.readline():
            with open(self.root + "/agent.log", errors="replace") as said:
                lines = said.read().strip().splitlines()
            raise OSError(lines[-1] if lines else "it said nothing")
        self._agent.stdout.close()

    def dial(self, order: Plan) -> None:
        """From now on the agent keeps a connection to the server."""
        path = self.root + "/dial.json"
        temporary = path + ".new"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(order, file)
        os.replace(temporary, path)
        if self._agent is None:
            self.start()

    def has_ended(self) -> bool:
        return self._agent is not None and self._agent.poll() is not None

    def end(self) -> None:
        """Kill every process of the node, and remove what it placed."""
        agent = self._agent
        if os.path.exists(self.root + "/started") and os.path.getsize(self.root + "/started"):
            self._end_ranks()  # some have begun here
        if agent is not None:
            agent.kill()
            agent.wait()
        command = [sys.executable, "-I", "-S", self._pyz, "release", "--root", self.root]
        if os.path.exists(self.root + "/placed"):
            subprocess.call(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._remove_cgroups()
        shutil.rmtree(self.root, ignore_errors=True)

    def _end_ranks(self) -> None:
        """The agent, ranks of its root, and all that descends from them. First all are stopped, then killed:
        what forks faster than it is killed is found in the next turn."""
        sys.path.insert(0, self._pyz)
        from argosy.agent.processes import send_signal, snapshot_all

        agent = self._agent
        for turn in range(_TURNS):
            found = snapshot_all()
            own = {agent.pid} if agent is not None and agent.poll() is None else set()
            pids = found.below(own | set(found.marked(self._mark)))
            if not pids:
                return
            for number in (signal.SIGSTOP, signal.SIGKILL) if turn else (signal.SIGKILL,):
                send_signal(pids, number)
            time.sleep(0.002 if turn < 5 else 0.05)

    def _remove_cgroups(self) -> None:
        ranks = self.root + "/ranks"
        for name in os.listdir(ranks) if os.path.isdir(ranks) else ():
            try:
                with open("%s/%s/state" % (ranks, name)) as file:
                    groups = json.load(file).get("groups", [])
                for group in groups:
                    os.rmdir(group)
            except (OSError, ValueError, AttributeError):
                continue  # in use by others, or none


def _say(answer: Plan) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _lines() -> Iterator[bytes | None]:
    """Lines of the input as they come; None now and then, when none does."""
    rest = b""
    while True:
        if not select.select([0], [], [], _LOOK_S)[0]:
            yield None
            continue
        data = os.read(0, 65536)
        if not data:
            return
        rest += data
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            yield line


def main() -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of the input tells
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper = None
    try:
        for line in _lines():
            if line is None and keeper is not None and keeper.has_ended():
                return 1
            if line is None:
                continue
            if keeper is not None:
                keeper.dial(json.loads(line))
                continue
            plan = json.loads(line)
            keeper = Keeper(plan, os.path.dirname(os.path.abspath(__file__)))
            if not plan["dials"]:
                keeper.start()
            _say({"root": keeper.root})
        return 0
    except OSError as error:
        _say({"error": str(error)})
        return 1
    finally:
        if keeper is not None:
            keeper.end()


if __name__ == "__main__":
    sys.exit(main())
