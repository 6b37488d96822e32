"""Scheduler and kubelet of the fake cluster.

Its pods are real processes, each in a namespace of pids of its own, or (`paper`) only say so: then an exec
meets an agent that takes streams and says nothing in them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from argosy.agent.mux import GREETING, Mux
from argosy.infra.mux import carry
from argosy.testing.fake_kube_devices import Device, Devices
from argosy.testing.fake_kube_rules import JSON, amount
from argosy.testing.fake_kube_store import Key, Store, stamp

#: Speaks the agent's side of a stream that carries streams, to its end.
Agent = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
KUEUE_GATE: Final = "kueue.x-k8s.io/admission"
_QUEUE: Final = "kueue.x-k8s.io/queue-name"
_GROUP: Final = "kueue.x-k8s.io/pod-group-name"
_TOTAL: Final = "kueue.x-k8s.io/pod-group-total-count"
_OPEN: Final = ("Pending", "Running")


def why_no_pods() -> str:
    """Why no real pods can be had on this machine; "" when they can."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "no unshare and nsenter (util-linux)"
    return "" if os.geteuid() == 0 else "namespaces of pids need root"


def a_node(name: str, *, labels: Mapping[str, str] = {}, taints: Sequence[JSON] = (), **have: str) -> JSON:
    """A node; `have` as `cpu="8"`, `gpu="8"` (nvidia.com/gpu), `memory="32Gi"`."""
    full = {"gpu": "nvidia.com/gpu"}
    allocatable = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "200Gi", "pods": "110"}
    allocatable |= {full.get(key, key): value for key, value in have.items()}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/arch": "amd64", **labels}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
    }


class Kubelets:
    """Places pods on nodes and runs them. `images`: those that can be pulled (None: all but names with
    `missing`)."""

    def __init__(self, store: Store, folder: Path, *, paper: bool) -> None:
        self.store, self.folder, self.paper = store, folder, paper
        self.devices = Devices(store)
        self.agent: Agent = paper_agent  # what an exec meets in a pod of paper
        self.images: set[str] | None = None
        self.kueue_room: int | None = None  # GPUs that Kueue may admit; None: there is no Kueue
        self.quiet: set[str] = set()  # nodes whose kubelet does nothing
        self.running: dict[Key, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[Key, None] = {}
        store.removed = self._removed

    def mutate(self, pod: JSON) -> None:
        """What admission puts into a pod before it is kept."""
        labels = pod["metadata"].get("labels") or {}
        if self.kueue_room is not None and _QUEUE in labels:
            pod["spec"].setdefault("schedulingGates", []).append({"name": KUEUE_GATE})
            labels["kueue.x-k8s.io/managed"] = "true"
            if _GROUP in labels:
                pod["metadata"].setdefault("finalizers", []).append("kueue.x-k8s.io/managed")

    def arrived(self, key: Key) -> None:
        """It is kept: it waits for a node."""
        self._waiting[key] = None

    def turn(self) -> None:
        """One pass of Kueue and of the scheduler."""
        if self.kueue_room is not None:
            self._admit()
        groups: dict[str, list[Key]] = {}
        for key in list(self._waiting):
            pod = self.store.objects.get(key)
            if pod is None or pod["metadata"].get("deletionTimestamp"):
                self._waiting.pop(key, None)
            elif not pod["spec"].get("schedulingGates"):
                group = (pod["spec"].get("schedulingGroup") or {}).get("podGroupName") or key[3]
                groups.setdefault(f"{key[2]}/{group}", []).append(key)
        for name, keys in groups.items():
            self._place(name, keys)

    def _admit(self) -> None:
        """Groups that are whole and fit."""
        gated: dict[str, list[JSON]] = {}
        used = 0
        for _, pod in self.store.of("pods"):
            if _QUEUE not in (pod["metadata"].get("labels") or {}):
                continue
            if pod["spec"].get("schedulingGates"):
                gated.setdefault(pod["metadata"]["labels"].get(_GROUP, pod["metadata"]["name"]), []).append(
                    pod
                )
            elif pod["status"]["phase"] in _OPEN:
                used += int(_gpus(pod))
        for pods in gated.values():
            total = int(pods[0]["metadata"].get("annotations", {}).get(_TOTAL, "1"))
            asks = int(sum(_gpus(pod) for pod in pods))
            if len(pods) >= total and used + asks <= (self.kueue_room or 0):
                used += asks
                for pod in pods:
                    pod["spec"]["schedulingGates"] = []
                    self.store.tell("MODIFIED", _key(pod), pod)

    def _place(self, name: str, keys: list[Key]) -> None:
        wanted = 1
        for group in ("scheduling.k8s.io/v1beta1",):
            namespace, _, group_name = name.partition("/")
            gang = self.store.objects.get((group, "podgroups", namespace, group_name))
            if gang is not None:
                wanted = gang["spec"]["schedulingPolicy"]["gang"]["minCount"]
        placed: dict[Key, str] = {}
        given: dict[Key, list[Device]] = {}
        for key in keys:
            node, devices = self._node_for(self.store.objects[key], placed, given)
            if node:
                placed[key], given[key] = node, devices
        whole = len(placed) >= wanted
        for key in keys:
            if whole and key in placed:
                self._waiting.pop(key, None)
                self.store.objects[key]["spec"]["nodeName"] = placed[key]
                self.devices.allot(self.store.objects[key], given[key])
                self._condition(key, "PodScheduled", "True")
                if placed[key] not in self.quiet:
                    self._spawn(self._start(key))
            elif not self._is_told(key):
                total = len(list(self.store.of("nodes")))
                text = f"0/{total} nodes are available: {total} Insufficient nvidia.com/gpu."
                self._condition(key, "PodScheduled", "False", "Unschedulable", text)

    def _is_told(self, key: Key) -> bool:
        conditions = self.store.objects[key].get("status", {}).get("conditions") or ()
        return any(each["type"] == "PodScheduled" and each["status"] == "False" for each in conditions)

    def _condition(self, key: Key, type_: str, status: str, reason: str = "", message: str = "") -> None:
        pod = self.store.objects.get(key)
        if pod is not None:
            others = [each for each in pod["status"].get("conditions") or () if each["type"] != type_]
            news = {"type": type_, "status": status, "reason": reason, "message": message}
            self.store.change(key, conditions=[*others, news])

    def _node_for(
        self, pod: JSON, placed: Mapping[Key, str], given: Mapping[Key, list[Device]]
    ) -> tuple[str, list[Device]]:
        """The first node that has room, and that pod and node agree on, and which of its devices it gives."""
        for key, node in self.store.of("nodes"):
            ready = any(
                each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"]
            )
            if not ready or node["spec"].get("unschedulable") or not _agree(pod, node):
                continue
            left = {name: amount(value) for name, value in node["status"]["allocatable"].items()}
            for other, one in self.store.of("pods"):
                on = placed.get(other) or one["spec"].get("nodeName")
                if on == key[3] and one["status"]["phase"] in _OPEN:
                    for name, value in _requests(one).items():
                        left[name] = left.get(name, Decimal(0)) - value
            devices = self.devices.fit(pod, key[3], given)
            if devices is not None and all(
                left.get(name, Decimal(0)) >= value for name, value in _requests(pod).items()
            ):
                return key[3], devices
        return "", []

    # -- the kubelet -----------------------------------------------------------------------------------------

    async def _start(self, key: Key) -> None:
        pod = self.store.objects[key]
        image = pod["spec"]["containers"][0]["image"]
        missing = "missing" in image if self.images is None else image not in self.images
        if missing:
            for reason in ("ErrImagePull", "ImagePullBackOff"):
                state = {
                    "waiting": {"reason": reason, "message": f'failed to pull image "{image}": not found'}
                }
                self.store.change(key, containerStatuses=[self._container(pod, state)])
                await asyncio.sleep(0)
            return
        try:
            process = None if self.paper else await self._run(key, pod)
        except KeyError as missing_map:
            state = {"waiting": {"reason": "ContainerCreating", "message": ""}}
            self.store.change(key, containerStatuses=[self._container(pod, state)])
            await asyncio.sleep(0.02)
            if key in self.store.objects and not pod["metadata"].get("deletionTimestamp"):
                self._spawn(self._start(key))
            del missing_map
            return
        if key not in self.store.objects:
            if process is not None:
                process.kill()
            return
        if process is not None:
            self.running[key] = process
            self._spawn(self._wait(key, process))
        conditions = [
            {"type": each, "status": "True"} for each in ("PodScheduled", "ContainersReady", "Ready")
        ]
        self.store.change(
            key,
            phase="Running",
            podIP="127.0.0.1",
            conditions=conditions,
            containerStatuses=[self._container(pod, {"running": {"startedAt": stamp()}})],
        )

    def _container(self, pod: JSON, state: JSON) -> JSON:
        first = pod["spec"]["containers"][0]
        told = {"name": first["name"], "image": first["image"], "imageID": "", "restartCount": 0}
        return {**told, "ready": "running" in state, "state": state}

    def place_of(self, key: Key) -> Path:
        return self.folder / str(self.store.objects[key]["metadata"]["uid"])

    async def _run(self, key: Key, pod: JSON) -> asyncio.subprocess.Process:
        """Its command, with the paths at which volumes appear put where they are. Raises KeyError for a
        ConfigMap that is not there."""
        first, place = pod["spec"]["containers"][0], self.place_of(key)
        place.mkdir(parents=True, exist_ok=True)
        for volume in pod["spec"].get("volumes") or ():
            folder = place / volume["name"]
            folder.mkdir(parents=True, exist_ok=True)
            if "configMap" in volume:
                held = self.store.objects["v1", "configmaps", key[2], volume["configMap"]["name"]]
                for name, data in (held.get("binaryData") or {}).items():
                    (folder / name).write_bytes(base64.b64decode(data))
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(place),
            "HOSTNAME": pod["spec"].get("hostname", key[3]),
        }
        for entry in first.get("env") or ():
            env[entry["name"]] = self._moved(entry.get("value", ""), key)
        words = [self._moved(word, key) for word in (*first.get("command", ()), *first.get("args", ()))]
        with (place / "log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", *words),
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _moved(self, text: str, key: Key) -> str:
        pod, place = self.store.objects[key], self.place_of(key)
        mounts = pod["spec"]["containers"][0].get("volumeMounts") or ()
        for mount in sorted(mounts, key=lambda each: -len(each["mountPath"])):
            pattern = rf"(?<![\w.\-/]){re.escape(mount['mountPath'])}(?![\w\-])"
            text = re.sub(pattern, str(place / mount["name"]), text)
        return text

    async def _wait(self, key: Key, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        code = status if status >= 0 else 128 - status
        pod = self.store.objects.get(key)
        if pod is None:
            return
        log = self.place_of(key) / "log"
        said = log.read_text(errors="replace")[-2048:] if log.exists() else ""
        reason = "Completed" if code == 0 else "OOMKilled" if code == 137 else "Error"
        ended = {"exitCode": code, "reason": reason, "message": said if code else ""}
        phase = "Succeeded" if code == 0 else "Failed"
        self.store.change(key, phase=phase, containerStatuses=[self._container(pod, {"terminated": ended})])
        if pod["metadata"].get("deletionTimestamp"):
            self.store.remove(key)

    def init_of(self, key: Key) -> int:
        """The pid of process 1 of a pod. Raises KeyError."""
        parent = self.running[key].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(children[0]) if children else parent

    def delete(self, key: Key, grace_s: float) -> None:
        """TERM, then KILL after the grace, then gone."""
        pod = self.store.objects[key]
        self._waiting.pop(key, None)
        process = self.running.get(key)
        pod["metadata"].setdefault("deletionTimestamp", stamp())
        self.store.tell("MODIFIED", key, pod)
        if process is None or process.returncode is not None:
            self.store.remove(key)
            return
        with contextlib.suppress(KeyError, OSError):
            os.kill(self.init_of(key), signal.SIGTERM)

        async def later() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await process.wait()
            if process.returncode is None:
                process.kill()

        self._spawn(later())

    def _removed(self, key: Key, given: JSON) -> None:
        process = self.running.pop(key, None)
        if process is not None and process.returncode is None:
            process.kill()
        if key[1] == "pods":
            shutil.rmtree(self.folder / given["metadata"]["uid"], ignore_errors=True)

    async def exec(self, key: Key, words: Sequence[str]) -> asyncio.subprocess.Process:
        """A command in a pod. Raises KeyError when it does not run."""
        target = str(self.init_of(key))
        return await asyncio.create_subprocess_exec(
            *(
                "nsenter",
                "--target",
                target,
                "--mount",
                "--pid",
                "--",
                *(self._moved(word, key) for word in words),
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.place_of(key))},
        )

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        for process in self.running.values():
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in self.running.values()))


async def paper_agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What answers in a pod of paper: streams open, and nothing is said in them."""

    async def accept(_: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        await near.wait_closed()

    writer.write(GREETING)
    await carry(Mux(reader, writer, accept))


def _requests(pod: JSON) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {"pods": Decimal(1)}
    for each in pod["spec"]["containers"]:
        have = each.get("resources") or {}
        for name, value in {**(have.get("limits") or {}), **(have.get("requests") or {})}.items():
            total[name] = total.get(name, Decimal(0)) + amount(value)
    return total


def _gpus(pod: JSON) -> Decimal:
    return _requests(pod).get("nvidia.com/gpu", Decimal(0))


def _key(pod: JSON) -> Key:
    return "v1", "pods", pod["metadata"]["namespace"], pod["metadata"]["name"]


def _agree(pod: JSON, node: JSON) -> bool:
    """Selectors, affinity and taints."""
    labels, spec = node["metadata"]["labels"], pod["spec"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not any(
            _tolerates(each, taint) for each in spec.get("tolerations") or ()
        ):
            return False
    wanted = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = wanted["nodeSelectorTerms"] if wanted else None
    return terms is None or any(
        all(_holds(each, labels) for each in term["matchExpressions"]) for term in terms
    )


def _tolerates(toleration: JSON, taint: JSON) -> bool:
    same = toleration.get("key") in (None, taint["key"]) and toleration.get("effect") in (
        None,
        "",
        taint["effect"],
    )
    return same and (toleration.get("operator") == "Exists" or toleration.get("value") == taint.get("value"))


def _holds(expression: JSON, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
    return key not in labels
