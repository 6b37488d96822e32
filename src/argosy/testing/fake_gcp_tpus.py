"""Cloud TPU in the fake of Google (API v2): nodes, queued resources, operations."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeMachine, Nothing, OverQuota, Shortage, route
from argosy.testing.fake_gcp_account import PROJECT
from argosy.testing.fake_gcp_network import FakeGcpNetwork

_L: Final = "/v2/projects/{project}/locations/{zone}"
_STATE: Final = {
    "starting": "CREATING",
    "running": "READY",
    "stopping": "STOPPING",
    "stopped": "STOPPED",
    "ending": "DELETING",
    "preempted": "PREEMPTED",
}
_TYPES: Final = {
    "v5litepod-1": "v2-alpha-tpuv5-lite",
    "v5p-8": "v2-alpha-tpuv5",
    "v5p-16": "v2-alpha-tpuv5",
    "v6e-8": "v2-alpha-tpuv6e",
    "v6e-16": "v2-alpha-tpuv6e",
}
_HOSTS: Final = {"v5p-16": 2, "v6e-16": 4}


class _Body(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    pass


class TpuNetwork(_Body):
    enable_external_ips: bool
    network: str = ""
    subnetwork: str = ""


class TpuScheduling(_Body):
    spot: bool = False


class TpuAccount(_Body):
    email: str
    scope: list[str]


class TpuOrder(_Body, kw_only=True):
    accelerator_type: str
    runtime_version: str
    network_config: TpuNetwork
    labels: dict[str, str]
    metadata: dict[str, str]
    tags: list[str]
    scheduling_config: TpuScheduling | None = None
    service_account: TpuAccount | None = None


class TpuSpec(_Body):
    parent: str
    node_id: str
    node: TpuOrder


class TpuSpecs(_Body):
    node_spec: list[TpuSpec]


class Until(_Body):
    valid_until_duration: str


class TpuQueue(_Body):
    tpu: TpuSpecs
    queueing_policy: Until
    spot: Nothing | None = None


class FakeGcpTpus(FakeGcpNetwork):
    """`tpu_on`: whether the API of TPUs is; `queue_s`: how long a queued resource waits."""

    def begin(self) -> None:
        super().begin()
        self.tpu_on, self.queue_s = True, 0.0
        self.queue_wildcard = True  # whether queued resources of all zones can be listed at once
        self.silent_tpus: set[str] = set()  # zones whose TPUs cannot be listed
        self.queue: dict[str, dict[str, Any]] = {}  # by name of the resource
        self.tpu_operations: dict[str, dict[str, Any]] = {}

    def _rpc(self, status: int, name: str, text: str) -> Answer:
        return Answer(status, {"error": {"code": status, "message": text, "status": name}})

    def _open(self) -> None:
        if not self.tpu_on:
            text = "Cloud TPU API has not been used in project 123 before or it is disabled."
            raise self._rpc(403, "PERMISSION_DENIED", text)

    def tpu(self, zone: str, name: str) -> FakeMachine | None:
        with self.lock:
            self.settle()
            found = [each for each in self.made.values() if (each.zone, each.name) == (zone, name)]
            return next((each for each in found if each.state != "ended" and "tpu" in each.extra), None)

    @route("POST", _L + "/nodes", body=TpuOrder, query=("nodeId",))
    def create_tpu(self, ask: Ask[TpuOrder]) -> object:
        self._open()
        zone, name = ask.parts["zone"], ask.query["nodeId"]
        self._check_tpu(ask.body)
        if self.tpu(zone, name) is not None:
            path = f"projects/{PROJECT}/locations/{zone}/nodes/{name}"
            raise self._rpc(409, "ALREADY_EXISTS", f"Resource '{path}' already exists")
        return self._tpu_operation(zone, self._make_tpu(zone, name, ask.body))

    def _check_tpu(self, told: TpuOrder) -> None:
        if told.accelerator_type not in _TYPES:
            raise self._rpc(400, "INVALID_ARGUMENT", f"Cloud TPU has no {told.accelerator_type}")
        if told.runtime_version not in (_TYPES[told.accelerator_type], "tpu-ubuntu2204-base"):
            raise self._rpc(400, "INVALID_ARGUMENT", f"invalid runtime version {told.runtime_version}")

    def _make_tpu(self, zone: str, name: str, told: TpuOrder, *, spot: bool = False) -> dict[str, Any] | None:
        """The error of its operation; None: it is made."""
        try:
            self.order(
                name=name,
                kind=f"tpu-{told.accelerator_type}",
                region=zone.rpartition("-")[0],
                zone=zone,
                labels=told.labels,
                user_data=told.metadata.get("ssh-keys", "").encode(),
                spot=spot or (told.scheduling_config is not None and told.scheduling_config.spot),
                extra={"tpu": told},
            )
        except Shortage:
            text = f'There is no more capacity in the zone "{zone}"; you can try in another zone'
            return {"code": 8, "message": text}
        except OverQuota as limit:
            text = f"Quota limit 'TPUV5sPerProjectPerZone' has been exceeded. Limit: {limit} in zone {zone}."
            return {"code": 8, "message": text}
        return None

    def _tpu_operation(self, zone: str, error: dict[str, Any] | None) -> dict[str, Any]:
        name = f"projects/{PROJECT}/locations/{zone}/operations/op-{len(self.tpu_operations)}"
        self.tpu_operations[name] = {"due": self.now() + self.op_s, "error": error}
        return self._shown_tpu_operation(name)

    def _shown_tpu_operation(self, name: str) -> dict[str, Any]:
        kept = self.tpu_operations[name]
        done = self.now() >= kept["due"]
        return {"name": name, "done": done, **({"error": kept["error"]} if done and kept["error"] else {})}

    @route("GET", _L + "/operations/{name}")
    def tpu_operation(self, ask: Ask[None]) -> object:
        name = f"projects/{PROJECT}/locations/{ask.parts['zone']}/operations/{ask.parts['name']}"
        if name not in self.tpu_operations:
            raise self._rpc(404, "NOT_FOUND", f"Resource '{name}' was not found")
        return self._shown_tpu_operation(name)

    @route("GET", _L + "/nodes", query=("pageSize", "pageToken"))
    def tpus(self, ask: Ask[None]) -> object:
        self._open()
        self._advance()
        shown = [each for each in self.shown() if "tpu" in each.extra and each.zone not in self.silent_tpus]
        every = [self.told_tpu(each) for each in shown]
        begin = int(ask.query.get("pageToken") or 0)
        more: dict[str, Any] = (
            {"nextPageToken": str(begin + self.page)} if begin + self.page < len(every) else {}
        )
        silent = [f"projects/{PROJECT}/locations/{zone}" for zone in sorted(self.silent_tpus)]
        more |= {"unreachable": silent} if silent else {}
        return {"nodes": every[begin : begin + self.page], **more}

    def told_tpu(self, machine: FakeMachine) -> dict[str, Any]:
        told: TpuOrder = machine.extra["tpu"]
        ready = machine.state == "running"
        hosts = _HOSTS.get(told.accelerator_type, 1)
        number = int(machine.id.rpartition("-")[2], 16) % 256 if hosts > 1 else 0
        ips = [f"127.128.{number}.{worker + 2}" for worker in range(hosts)] if hosts > 1 else [machine.ip]
        open_to_all = told.network_config.enable_external_ips
        ends = [
            {"ipAddress": ip, "port": 8470, "accessConfig": {"externalIp": ip} if open_to_all and ip else {}}
            for ip in (ips if ready else ())
        ]
        return {
            "name": f"projects/{PROJECT}/locations/{machine.zone}/nodes/{machine.name}",
            "state": _STATE[machine.state],
            "acceleratorType": told.accelerator_type,
            "runtimeVersion": told.runtime_version,
            "labels": machine.labels,
            "networkEndpoints": ends,
            "schedulingConfig": {"spot": machine.spot},
            "createTime": "2026-11-29T00:00:00Z",
        }

    @route("DELETE", _L + "/nodes/{name}")
    def delete_tpu(self, ask: Ask[None]) -> object:
        machine = self._tpu_of(ask)
        if machine.state == "preempted":
            machine.state = "ended"
        self.end(machine)
        return self._tpu_operation(machine.zone, None)

    @route("POST", _L + "/nodes/{name}:{verb}", body=Nothing)
    def act_on_tpu(self, ask: Ask[Nothing]) -> object:
        machine = self._tpu_of(ask)
        (self.rest if ask.parts["verb"] == "stop" else self.wake)(machine)
        return self._tpu_operation(machine.zone, None)

    def _tpu_of(self, ask: Ask[Any]) -> FakeMachine:
        self._open()
        found = self.tpu(ask.parts["zone"], ask.parts["name"])
        if found is None:
            raise self._rpc(404, "NOT_FOUND", f"Resource '{ask.parts['name']}' was not found")
        return found

    # -- queued resources -----------------------------------------------------------------------------------

    @route("POST", _L + "/queuedResources", body=TpuQueue, query=("queuedResourceId",))
    def queue_tpus(self, ask: Ask[TpuQueue]) -> object:
        self._open()
        zone, id = ask.parts["zone"], ask.query["queuedResourceId"]
        name = f"projects/{PROJECT}/locations/{zone}/queuedResources/{id}"
        if name in self.queue:
            raise self._rpc(409, "ALREADY_EXISTS", f"Resource '{name}' already exists")
        for spec in ask.body.tpu.node_spec:
            self._check_tpu(spec.node)
            if spec.node.scheduling_config is not None and spec.node.scheduling_config.spot:
                text = (
                    "scheduling_config must not be set for nodes of a queued resource: it has a tier itself"
                )
                raise self._rpc(400, "INVALID_ARGUMENT", text)
        until_s = float(ask.body.queueing_policy.valid_until_duration.removesuffix("s"))
        self.queue[name] = {
            "zone": zone,
            "body": ask.body,
            "due": self.now() + self.queue_s,
            "until": self.now() + until_s,
            "state": "WAITING_FOR_RESOURCES",
            "error": None,
        }
        self._advance()
        return self._tpu_operation(zone, None)

    def _advance(self) -> None:
        """What waits is made, all nodes or none, or given up."""
        for kept in self.queue.values():
            if kept["state"] == "ACTIVE" and kept["body"].spot is not None:
                nodes = [self.tpu(kept["zone"], spec.node_id) for spec in kept["body"].tpu.node_spec]
                if any(each is not None and each.state == "preempted" for each in nodes):
                    kept["state"] = "SUSPENDED"
            if kept["state"] != "WAITING_FOR_RESOURCES" or self.now() < kept["due"]:
                continue
            specs = kept["body"].tpu.node_spec
            spot = kept["body"].spot is not None
            errors = [self._make_tpu(kept["zone"], spec.node_id, spec.node, spot=spot) for spec in specs]
            failed = next((each for each in errors if each is not None), None)
            if failed is None:
                kept["state"] = "ACTIVE"
                continue
            for spec in specs:
                made = self.tpu(kept["zone"], spec.node_id)
                if made is not None:
                    made.state, made.due = "ended", None
            if self.now() >= kept["until"]:
                kept["state"], kept["error"] = "FAILED", failed

    @route("GET", _L + "/queuedResources", query=("pageSize", "pageToken"))
    def queued(self, ask: Ask[None]) -> object:
        self._open()
        self._advance()
        zone = ask.parts["zone"]
        if zone == "-" and not self.queue_wildcard:
            raise self._rpc(400, "INVALID_ARGUMENT", "Location - is not valid")
        names = [name for name in self.queue if zone in ("-", self.queue[name]["zone"])]
        return {"queuedResources": [self.told_queued(name) for name in names]}

    @route("GET", "/v2/projects/{project}/locations", query=("pageSize", "pageToken"))
    def locations(self, ask: Ask[None]) -> object:
        self._open()
        names = ("us-central1-a", "us-central1-b", "europe-west4-a")
        path = f"projects/{PROJECT}/locations"
        return {"locations": [{"name": f"{path}/{name}", "locationId": name} for name in names]}

    def told_queued(self, name: str) -> dict[str, Any]:
        kept = self.queue[name]
        state: dict[str, Any] = {"state": kept["state"]}
        if kept["error"] is not None:
            state["failedData"] = {"error": kept["error"]}
        specs = [
            {
                "parent": spec.parent,
                "nodeId": spec.node_id,
                "node": {"acceleratorType": spec.node.accelerator_type, "labels": spec.node.labels},
            }
            for spec in kept["body"].tpu.node_spec
        ]
        spot: dict[str, Any] = {"spot": {}} if kept["body"].spot is not None else {}
        return {"name": name, "tpu": {"nodeSpec": specs}, "state": state, **spot}

    @route("DELETE", _L + "/queuedResources/{id}", query=("force",))
    def drop_queued(self, ask: Ask[None]) -> object:
        self._open()
        name = f"projects/{PROJECT}/locations/{ask.parts['zone']}/queuedResources/{ask.parts['id']}"
        if name not in self.queue:
            raise self._rpc(404, "NOT_FOUND", f"Resource '{name}' was not found")
        kept = self.queue[name]
        made = [self.tpu(kept["zone"], spec.node_id) for spec in kept["body"].tpu.node_spec]
        if any(made) and ask.query.get("force") != "true":
            raise self._rpc(400, "FAILED_PRECONDITION", "it has nodes")
        for each in made:
            if each is not None:
                self.end(each)
        del self.queue[name]
        return self._tpu_operation(kept["zone"], None)
