"""The part of Ray's Python library that drivers of claims use, over a `FakeRay`: an actor is a forked
process.

It is no module of Argosy: the fake cluster puts it on the path of the jobs that it runs as
`ray/__init__.py`. Standard library only. What is not here, a driver must not use before it is tried on the
real Ray.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import types
from typing import Any

_HEAD = struct.Struct(">I")
_changed = threading.Condition()
_groups: dict[
    str, list[dict[str, Any]]
] = {}  # placement groups of this driver: bundles with node and devices


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


def _ask(what: str, **fields: Any) -> Any:
    """A call to the fake cluster, as its library's own protocol would be."""
    host, _, port = os.environ["RAY_ADDRESS"].removeprefix("http://").rpartition(":")
    body = json.dumps(fields).encode()
    with socket.create_connection((host, int(port)), timeout=30) as line:
        head = f"POST /library/{what} HTTP/1.1\r\nauthorization: {os.environ['FAKE_RAY_PASS']}\r\n"
        line.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        with line.makefile("rb") as file:
            if b" 200 " not in file.readline():
                raise RayError(f"the cluster refuses {what}")
            size = 0
            while row := file.readline().strip():
                if row.lower().startswith(b"content-length:"):
                    size = int(row.split(b":")[1])
            return json.loads(file.read(size))


def init(*, logging_level: str, log_to_driver: bool) -> None:
    _ask("init", job=os.environ["FAKE_RAY_JOB"])


# -- placement groups
# ------------------------------------------------------------------------------------------


class PlacementGroup:
    def __init__(self, id: str) -> None:
        self.id = id

    def wait(self, timeout_seconds: float) -> bool:
        until = time.monotonic() + timeout_seconds
        while True:
            placed = _ask("placed", group=self.id)
            if placed:
                _groups[self.id] = placed
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.02)


def placement_group(bundles: list[dict[str, float]], strategy: str, name: str) -> PlacementGroup:
    if strategy not in ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"):
        raise ValueError(f"Invalid placement group strategy {strategy}")
    if not bundles or any(not each or not any(each.values()) for each in bundles):
        raise ValueError("Bundles cannot be an empty dictionary or resources with only 0 values")
    fields = {"job": os.environ["FAKE_RAY_JOB"], "bundles": bundles, "strategy": strategy, "name": name}
    return PlacementGroup(_ask("group", **fields))


def remove_placement_group(group: PlacementGroup) -> None:
    _ask("ungroup", group=group.id)


class PlacementGroupSchedulingStrategy:
    def __init__(self, group: PlacementGroup, *, placement_group_bundle_index: int) -> None:
        self.bundle = _groups[group.id][placement_group_bundle_index]


# -- actors
# ----------------------------------------------------------------------------------------------------


class ObjectRef:
    def __init__(self) -> None:
        self.is_done = False
        self.value: Any = None
        self.error: Exception | None = None

    def settle(self, value: Any, error: Exception | None) -> None:
        with _changed:
            if not self.is_done:
                self.value, self.error, self.is_done = value, error, True
                _changed.notify_all()


class _Method:
    def __init__(self, actor: _Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *arguments: Any) -> ObjectRef:
        return self._actor.call(self._name, arguments)


class _Actor:
    """A handle: calls go to the process, answers come back in any order."""

    def __init__(self, line: socket.socket, name: str) -> None:
        self._line, self._name_ = line, name
        self._refs: dict[int, ObjectRef] = {}
        self._lock = threading.Lock()
        self._is_dead = False
        threading.Thread(target=self._listen, daemon=True).start()

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, name)

    def call(self, name: str, arguments: tuple[Any, ...]) -> ObjectRef:
        ref = ObjectRef()
        self._refs[id(ref)] = ref
        try:
            if self._is_dead:
                raise OSError
            with self._lock:
                _send(self._line, (id(ref), name, arguments))
        except OSError:
            ref.settle(None, RayActorError("The actor died unexpectedly before finishing this task."))
        return ref

    def _listen(self) -> None:
        said = "The actor died unexpectedly before finishing this task."
        try:
            while True:
                number, value, error = _receive(self._line)
                if number < 0:  # its constructor failed
                    said = "The actor died because of an error raised in its creation task, " + error
                    continue
                self._refs.pop(number).settle(value, RayError(error) if error else None)
        except (OSError, EOFError):
            self._is_dead = True
            _ask("state", name=self._name_, state="DEAD", pid=0)
            for ref in list(self._refs.values()):
                ref.settle(None, RayActorError(said))


def _send(line: socket.socket, what: Any) -> None:
    data = pickle.dumps(what)
    line.sendall(_HEAD.pack(len(data)) + data)


def _receive(line: socket.socket) -> Any:
    data = b""
    wanted = _HEAD.size
    while len(data) < wanted:
        piece = line.recv(wanted - len(data))
        if not piece:
            raise EOFError
        data += piece
        if wanted == _HEAD.size and len(data) == wanted:
            wanted += _HEAD.unpack(data)[0]
    return pickle.loads(data[_HEAD.size :])


class _Kind:
    def __init__(self, of: type, resources: dict[str, float], options: dict[str, Any]) -> None:
        self._of, self._resources, self._options = of, resources, options

    def options(self, *, name: str, scheduling_strategy: PlacementGroupSchedulingStrategy) -> _Kind:
        return _Kind(self._of, self._resources, {"name": name, "bundle": scheduling_strategy.bundle})

    def remote(self, *arguments: Any) -> _Actor:
        name, bundle = self._options["name"], self._options["bundle"]
        for resource, amount in self._resources.items():
            if amount > bundle["amounts"].get(resource, 0):
                raise ValueError(f"the bundle has no {amount} {resource}")
        ours, theirs = socket.socketpair()
        fields = {"job": os.environ["FAKE_RAY_JOB"], "name": name, "class_name": self._of.__name__}
        _ask("actor", **fields, node=bundle["node"])
        if os.fork() == 0:
            ours.close()
            try:
                _be_actor(self._of, name, bundle, theirs, arguments)
            finally:
                _end_children()
                os._exit(0)
        theirs.close()
        return _Actor(ours, name)


def _end_children() -> None:
    """As Ray does: the children of an actor that ends are killed."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        for child in file.read().split():
            os.kill(int(child), signal.SIGKILL)


def _be_actor(
    of: type, name: str, bundle: dict[str, Any], line: socket.socket, arguments: tuple[Any, ...]
) -> None:
    os.setsid()
    global _here
    _here = bundle
    _ask("state", name=name, state="PENDING_CREATION", pid=os.getpid())
    try:
        made = of(*arguments)
    except Exception as error:  # noqa: BLE001  whatever it is, the driver is told
        _send(line, (-1, None, f"{type(error).__name__}: {error}"))
        _ask("state", name=name, state="DEAD", pid=os.getpid())
        return
    _ask("state", name=name, state="ALIVE", pid=os.getpid())
    lock = threading.Lock()

    def obey(number: int, method: str, given: tuple[Any, ...]) -> None:
        value, error = None, ""
        try:
            value = getattr(made, method)(*given)
        except Exception as caught:  # noqa: BLE001  the caller is told
            error = f"{type(caught).__name__}: {caught}"
        with lock:
            _send(line, (number, value, error))

    try:
        while True:
            threading.Thread(target=obey, args=_receive(line), daemon=True).start()
    except (OSError, EOFError):
        pass  # the driver is gone: so are we


_here: dict[str, Any] = {}


class _Context:
    def get_accelerator_ids(self) -> dict[str, list[str]]:
        return {"GPU": [str(each) for each in _here.get("devices", [])], "TPU": []}


def get_runtime_context() -> _Context:
    return _Context()


def remote(
    *,
    max_restarts: int,
    max_concurrency: int,
    resources: dict[str, float],
    num_cpus: float,
    num_gpus: float,
    memory: float = 0,
) -> Any:
    amounts = {"CPU": num_cpus, "GPU": num_gpus, "memory": memory, **resources}
    return lambda of: _Kind(of, amounts, {})


def get(refs: Any) -> Any:
    if isinstance(refs, list):
        return [get(each) for each in refs]
    with _changed:
        while not refs.is_done:
            _changed.wait(0.2)
    if refs.error is not None:
        raise refs.error
    return refs.value


def wait(
    refs: list[ObjectRef], *, num_returns: int = 1, timeout: float
) -> tuple[list[ObjectRef], list[ObjectRef]]:
    if not refs or num_returns > len(refs):
        raise ValueError("num_returns cannot be greater than the number of refs")
    until = time.monotonic() + timeout
    with _changed:
        while sum(each.is_done for each in refs) < num_returns and time.monotonic() < until:
            _changed.wait(max(0.0, until - time.monotonic()))
    done = [each for each in refs if each.is_done][:num_returns]
    return done, [each for each in refs if each not in done]


# -- what a driver imports from parts of the library
# -----------------------------------------------------------


def _internal_kv_get(key: str) -> bytes | None:
    found = _ask("kv", key=key)
    return None if found is None else found.encode("latin-1")


def _internal_kv_del(key: str) -> int:
    return int(_ask("unkv", key=key))


def _part(name: str, **content: Any) -> None:
    module = types.ModuleType(f"ray.{name}")
    module.__dict__.update(content)
    sys.modules[f"ray.{name}"] = module
    setattr(sys.modules[__name__], name.partition(".")[0], sys.modules[f"ray.{name.partition('.')[0]}"])


_part("exceptions", RayError=RayError, RayActorError=RayActorError)
_part("experimental")
_part("experimental.internal_kv", _internal_kv_get=_internal_kv_get, _internal_kv_del=_internal_kv_del)
_part("util")
_part("util.placement_group", placement_group=placement_group, remove_placement_group=remove_placement_group)
_part("util.scheduling_strategies", PlacementGroupSchedulingStrategy=PlacementGroupSchedulingStrategy)
