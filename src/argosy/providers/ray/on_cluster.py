"""Runs in a Ray cluster: the driver of the one job that is a claim, and the actor that is a node of it.

Ray starts it on the head node. It makes a placement group with one bundle for each node, on different
machines, and in each bundle an actor, whose keeper (`on_node`) starts Argosy's agent there. The job, its
placement group, its actors and their agents share one fate. What goes wrong is the last line of its output
that begins with `argosy: `. Python 3.8 or newer with Ray; what it is to do stands in the metadata of its
job, as JSON. Orders of a server come later, in Ray's store of packages.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import on_post  # type: ignore[import-not-found]  # it lies beside us there
import ray
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    Plan = dict[str, Any]  # JSON

NO_CAPACITY, NOT_STARTED, ENDED = 3, 4, 5  # exit statuses
_END_S = 2.5  # Ray gives a job 3 s between SIGTERM and SIGKILL
_FIRST_LOOK_S, _LAST_LOOK_S = 0.1, 2.0
_MAIL = "gcs://argosy-%s.json"
_POST = "gcs://argosy-%s-%d"
_CALLS = 16  # of one actor at a time: `serve`, and one for each server that reaches it through the dashboard
_PIECE_BYTES = 64 << 10


class ArgosyNode:
    """One node of a claim: it holds a bundle, and the keeper of the agent there."""

    def __init__(self, plan: Plan) -> None:
        found = ray.get_runtime_context().get_accelerator_ids()
        devices: list[Any] = next((ids for ids in found.values() if ids), [])
        if not all(str(each).isdigit() for each in devices):
            raise RuntimeError(
                "argosy: Ray names the accelerators here %s, and the agent needs their numbers: unset "
                "CUDA_VISIBLE_DEVICES where `ray start` runs" % ", ".join(map(str, devices))
            )
        self._keeper = subprocess.Popen(
            [_bare_python(), "-I", "-S", os.path.abspath("on_node.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # it outlives us, and ends what is ours: its input ends with us
            env=environ(),
        )
        self._joined: dict[str, subprocess.Popen[bytes]] = {}
        self.tell(json.dumps(dict(plan, devices=[int(each) for each in devices])))
        assert self._keeper.stdout is not None
        answer = json.loads(self._keeper.stdout.readline() or b"{}")
        if "root" not in answer:
            raise RuntimeError("argosy: the agent did not start: " + answer.get("error", "it said nothing"))
        self._root = answer["root"]
        self._over = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Its output ends with it."""
        assert self._keeper.stdout is not None
        self._keeper.stdout.read()
        self._over.set()

    def tell(self, line: str) -> None:
        """An order for the keeper."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(line.encode() + b"\n")
        self._keeper.stdin.flush()

    def is_here(self) -> str:
        """The host's name; answers when the agent listens, or waits for its order."""
        return os.uname().nodename

    def serve(self) -> None:
        """Returns when the node has ended."""
        self._over.wait()

    def join(self, key: str) -> None:
        """Connect to the agent: bytes go by `send` and `receive` from now on."""
        agent = [_bare_python(), "-I", "-S", self._root + "/agent.pyz", "connect", "--mux"]
        self._joined[key] = subprocess.Popen(
            [*agent, "--socket", self._root + "/agent.sock"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ(),
        )

    def send(self, key: str, data: bytes) -> None:
        """b"" ends the connection."""
        stdin = self._joined[key].stdin
        assert stdin is not None
        if data:
            stdin.write(data)
            stdin.flush()
        else:
            self._joined[key].kill()

    def receive(self, key: str) -> bytes:
        """Some bytes; b"" at the end."""
        process = self._joined[key]
        assert process.stdout is not None
        data = os.read(process.stdout.fileno(), _PIECE_BYTES)
        if not data:
            process.wait()
            self._joined.pop(key).stdout.close()  # type: ignore[union-attr]
        return data

    def end(self) -> None:
        """Ends the agent and all that it runs."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._over.wait()


def _bare_python() -> str:
    """The Python below a virtual environment: the agent hides an environment that it runs in from
    programs."""
    return getattr(sys, "_base_executable", "") or sys.executable


def environ() -> dict[str, str]:
    """The worker's environment without what Ray put there; Ray's own Python comes first on the PATH."""
    here = os.getcwd()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "ARGOSY_")) and name not in ("LD_PRELOAD", "PYTHONPATH")
    }
    folders = [os.path.dirname(sys.executable), *kept.get("PATH", os.defpath).split(os.pathsep)]
    kept["PATH"] = os.pathsep.join(dict.fromkeys(each for each in folders if each != here))
    return kept


def main() -> int:
    config = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])
    plan = json.loads(config["metadata"]["argosy_claim"])
    ray.init(logging_level="ERROR", log_to_driver=False)
    signal.signal(signal.SIGTERM, _leave)
    nodes: list[Any] = []
    posts: list[on_post.Post] = []
    bundle = dict(plan["bundle"])
    group = placement_group(
        [bundle] * plan["count"],
        strategy="STRICT_SPREAD" if plan["count"] > 1 else "PACK",
        name=plan["claim"],
    )
    try:
        if not _wait_for(group, plan["wait_s"]):
            print("argosy: no room in the cluster within %d s" % plan["wait_s"], flush=True)
            return NO_CAPACITY
        nodes += [_start(plan, bundle, group, index) for index in range(plan["count"])]
        return _attend(plan, nodes, posts)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for post in posts:
            post.end()
        if nodes:
            ray.wait([node.end.remote() for node in nodes], num_returns=len(nodes), timeout=_END_S)
        remove_placement_group(group)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _wait_for(group: Any, wait_s: float) -> bool:
    """`wait_s`: 0 is as long as it takes."""
    left = wait_s
    while not group.wait(1):  # one second
        left -= 1
        if wait_s and left <= 0:
            return False
    return True


def _start(plan: Plan, bundle: dict[str, float], group: Any, index: int) -> Any:
    amounts = dict(bundle)
    options: Plan = {"num_cpus": amounts.pop("CPU", 0), "num_gpus": amounts.pop("GPU", 0)}
    if "memory" in amounts:
        options["memory"] = amounts.pop("memory")
    kind = ray.remote(max_restarts=0, max_concurrency=_CALLS, resources=amounts, **options)(ArgosyNode)
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    name = "%s-%d" % (plan["claim"], index)
    own = {"name": name, "node_dir": plan["node_dir"], "dials": plan["dials"], "agent": plan["agent"]}
    return kind.options(name=name, scheduling_strategy=place).remote(own)


def _attend(plan: Plan, nodes: list[Any], posts: list[on_post.Post]) -> int:
    """All nodes start or none does. Then until the last one has ended."""
    try:
        for index, host in enumerate(ray.get([node.is_here.remote() for node in nodes])):
            print("node %d is on %s" % (index, host), flush=True)
    except ray.exceptions.RayError as error:
        print(_said(error, "a node did not start"), flush=True)
        return NOT_STARTED
    served = {node.serve.remote(): index for index, node in enumerate(nodes)}
    look_s = _FIRST_LOOK_S
    while served:
        ended, _ = ray.wait(list(served), timeout=look_s)
        for each in ended:
            index = served.pop(each)
            try:
                ray.get(each)
                print("argosy: the agent of node %d ended" % index, flush=True)
            except ray.exceptions.RayError as error:
                print(_said(error, "node %d is lost" % index), flush=True)
        look_s = _FIRST_LOOK_S if _deliver(plan, nodes, posts) else min(_LAST_LOOK_S, look_s * 1.2)
    return ENDED


def _deliver(plan: Plan, nodes: list[Any], posts: list[on_post.Post]) -> bool:
    """Hand over what the server has put where packages are kept: orders for nodes, by index, or one for us to
    carry what it says to them."""
    mail = _taken(_MAIL % plan["claim"])
    if not mail:
        return False
    orders = json.loads(mail)
    posts[:] = [each for each in posts if not each.is_over]
    if "post" in orders:
        # What we say goes into the log of our job, which lies in Ray's folder for logs.
        folder = os.path.dirname(os.readlink("/proc/self/fd/1"))
        posts.append(
            on_post.Post(
                orders.pop("post"),
                folder,
                lambda post, number: _taken(_POST % (post, number)),
                lambda index, method, *given: ray.get(getattr(nodes[index], method).remote(*given)),
            )
        )
    for index, order in orders.items():
        nodes[int(index)].tell.remote(json.dumps(order))
    return True


def _taken(key: str) -> bytes | None:
    """A package, which is not kept any longer."""
    data: bytes | None = _internal_kv_get(key)
    if data is not None:
        _internal_kv_del(key)
    return data


def _said(error: Exception, what: str) -> str:
    """Our own words in an error of Ray, else its first line."""
    text = str(error)
    ours = [line.rpartition("argosy: ")[2] for line in text.splitlines() if "argosy: " in line]
    return "argosy: %s: %s" % (
        what,
        ours[-1] if ours else (text.strip().splitlines() or [type(error).__name__])[0],
    )


if __name__ == "__main__":
    try:
        status = main()
    except SystemExit:
        status = 0
    sys.stdout.flush()
    os._exit(status)  # all is ended: Ray's own way out takes seconds
