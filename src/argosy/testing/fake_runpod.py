"""RunPod's REST API v2 on this machine, as its OpenAPI says, with the mutation of GraphQL that bids for spot
pods."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from argosy.testing.container_hosts import user_data_of
from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, OverQuota, Shortage, route

KEY: Final = "rpa_FAKEKEYOFTHEFAKE"
_STATUS: Final = {
    "starting": "STARTING",
    "running": "RUNNING",
    "preempted": "EXITED",
    "stopped": "EXITED",
    "failed": "ERROR",
    "ending": "TERMINATED",
}
_NONE: Final = (
    "There are no longer any instances available with the requested specifications. Please refresh and try "
    "again."
)


class Gpu(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    count: int = 1
    allowedCudaVersions: list[str] = []
    minCudaVersion: str = ""


class Network(msgspec.Struct, forbid_unknown_fields=True):
    volumeId: str
    path: str


class Mounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: list[Network] = []


class Pod(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    image: str
    gpu: Gpu
    args: str = ""
    disk: int = 20
    env: dict[str, str] = {}
    ports: list[str] = []
    cloud: str = "SECURE"
    dataCenterIds: list[str] = []
    mounts: Mounts = Mounts()
    registry: str | None = None


class Compute(msgspec.Struct, forbid_unknown_fields=True):
    gpuTypeId: str
    gpuCountPerPod: int
    podCount: int


class Cluster(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    type: str
    compute: Compute
    image: str
    args: str = ""
    disk: int = 20
    env: dict[str, str] = {}
    ports: list[str] = []
    dataCenterIds: list[str] = []
    mounts: Mounts = Mounts()


class Pair(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    value: str


class Bid(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    imageName: str
    gpuTypeId: str
    gpuCount: int
    bidPerGpu: float
    cloudType: str = "ALL"
    dockerArgs: str = ""
    containerDiskInGb: int = 20
    volumeInGb: int = 0
    volumeMountPath: str = ""
    ports: str = ""
    env: list[Pair] = []
    dataCenterId: str = ""
    networkVolumeId: str = ""
    containerRegistryAuthId: str = ""
    allowedCudaVersions: list[str] = []


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    input: Bid


class Graph(msgspec.Struct, forbid_unknown_fields=True):
    query: str
    variables: _Input


class NewVolume(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    size: int
    dataCenter: str


class FakeRunPod(FakeCloud):
    """`kind` of a machine is the GPU's id. `floor`: the lowest bid that is taken, in dollars for a GPU."""

    bearer = KEY
    over_limit = (403, "forbidden", "You have reached the maximum number of pods, limit {}")
    missing = "pod not found"

    def begin(self) -> None:
        self.gpus = {
            "NVIDIA A40": ("A40", 48, ("EU-SE-1", "US-KS-2")),
            "NVIDIA H100 80GB HBM3": ("H100 SXM", 80, ("US-KS-2",)),
            "NVIDIA A100 80GB PCIe": ("A100 PCIe", 80, ("CA-MTL-1",)),
        }
        self.volumes = {"vol_models": ("models", "EU-SE-1")}
        self.clusters: dict[str, dict[str, Any]] = {}
        self.floor = 0.2

    def environ(self) -> dict[str, str]:
        return {"RUNPOD_API_KEY": KEY, "ARGOSY_RUNPOD_URL": self.url}

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        body = {"title": code.replace("-", " ").title(), "status": status, "detail": text}
        return Answer(status, body, {"content-type": "application/problem+json"})

    def shortage(self, text: str) -> Answer:
        return self.error(500, "internal-server-error", _NONE)

    # -- pods -----------------------------------------------------------------------------------------------

    def new_id(self, number: int) -> str:
        return f"pod{number:06x}xyz"

    def _make(
        self, name: str, gpu: str, env: dict[str, str], spot: bool, extra: dict[str, Any]
    ) -> FakeMachine:
        return self.order(
            name=name,
            kind=gpu,
            region=str(extra.get("center") or ""),
            labels={"argosy-claim": env["ARGOSY_CLAIM"]} if "ARGOSY_CLAIM" in env else {},
            user_data=user_data_of(env),
            spot=spot,
            extra={"env": env, **extra},
        )

    def _center(self, gpu: str, wanted: list[str]) -> str:
        if gpu not in self.gpus:
            raise self.error(422, "unprocessable-entity", f"gpu.id: unknown GPU type {gpu}")
        known = {each for _, _, centers in self.gpus.values() for each in centers}
        if unknown := [each for each in wanted if each not in known]:
            raise self.error(422, "unprocessable-entity", f"dataCenterIds: unknown {unknown[0]}")
        found = [each for each in self.gpus[gpu][2] if not wanted or each in wanted]
        if not found:
            raise Shortage(gpu)
        return found[0]

    def _mounted(self, mounts: Mounts, center: str) -> None:
        for each in mounts.network:
            if each.volumeId not in self.volumes:
                raise self.error(404, "not-found", "network volume not found")
            if self.volumes[each.volumeId][1] != center:
                raise self.error(400, "bad-request", "the volume is in another data center")

    @route("POST", "/v2/pods", body=Pod)
    def create_pod(self, ask: Ask[Pod]) -> object:
        told = ask.body
        center = self._center(told.gpu.id, told.dataCenterIds)
        self._mounted(told.mounts, center)
        if "22/tcp" not in told.ports or told.cloud not in ("SECURE", "COMMUNITY"):
            raise self.error(422, "unprocessable-entity", "ports: 22/tcp is not exposed")
        extra = {"center": center, "image": told.image, "args": told.args, "count": told.gpu.count}
        extra |= {"disk": told.disk, "registry": told.registry}
        made = self._make(told.name, told.gpu.id, told.env, False, extra)
        return Answer(201, self._told(made))

    @route("POST", "/graphql", body=Graph)
    def bid(self, ask: Ask[Graph]) -> object:
        told = ask.body.variables.input
        env = {each.key: each.value for each in told.env}
        try:
            if "podRentInterruptable(input: $input)" not in ask.body.query:
                raise self.error(400, "bad-request", "unknown mutation")
            center = self._center(told.gpuTypeId, [told.dataCenterId] if told.dataCenterId else [])
            if told.bidPerGpu < self.floor:
                raise self.error(400, "bad-request", f"Your bid is too low, the minimum is {self.floor}")
            extra = {"center": center, "image": told.imageName, "count": told.gpuCount}
            made = self._make(told.name, told.gpuTypeId, env, True, extra)
        except Shortage:
            return {"errors": [{"message": _NONE}], "data": {"podRentInterruptable": None}}
        except OverQuota as quota:
            text = f"You have reached the maximum number of pods, limit {quota}"
            return {"errors": [{"message": text}], "data": {"podRentInterruptable": None}}
        except Answer as refusal:
            text = refusal.body["detail"]  # type: ignore[index]
            return {"errors": [{"message": text}], "data": {"podRentInterruptable": None}}
        return {"data": {"podRentInterruptable": {"id": made.id}}}

    @route("GET", "/v2/pods", query=("includeClusterPods",))
    def pods(self, ask: Ask[None]) -> object:
        whole = ask.query.get("includeClusterPods") == "true"
        return {"pods": [self._told(each) for each in self.shown() if whole or not each.extra.get("cluster")]}

    @route("DELETE", "/v2/pods/{id}")
    def delete_pod(self, ask: Ask[None]) -> object:
        machine = self.found(ask)
        if machine.extra.get("cluster"):
            raise self.error(409, "conflict", "the pod belongs to a cluster")
        self._end(machine)
        return Answer(204)

    def _end(self, machine: FakeMachine) -> None:
        if machine.state in ("preempted", "failed"):
            machine.state = "stopped"
        self.end(machine)

    def _told(self, machine: FakeMachine) -> dict[str, object]:
        extra, runtime = machine.extra, None
        if machine.state == "running":
            port = {
                "private": 22,
                "public": 22 if machine.ip else None,
                "type": "tcp",
                "ip": machine.ip or None,
            }
            runtime = {"uptime": 1, "ports": [port]}
        when = datetime.fromtimestamp(machine.created_s, UTC).isoformat()
        told: dict[str, object] = {
            "id": machine.id,
            "name": machine.name,
            "status": _STATUS[machine.state],
            "actions": ["stop", "terminate"],
            "image": str(extra.get("image", "")),
            "args": str(extra.get("args", "")),
            "disk": extra.get("disk", 20),
            "ports": ["22/tcp"],
            "registry": extra.get("registry"),
            "env": extra.get("env", {}),
            "mounts": {},
            "gpu": {"id": machine.kind, "count": extra.get("count", 1)},
            "cloud": "SECURE",
            "dataCenterId": machine.region or None,
            "cudaVersion": None,
            "ssh": {"proxy": None, "direct": None},
            "template": None,
            "cost": 0.4,
            "locked": False,
            "globalNetworking": {"enabled": False},
            "runtime": runtime,
            "createdAt": when,
            "startedAt": None,
        }
        if extra.get("cluster"):
            told["cluster"] = {"id": extra["cluster"], "rank": None, "ip": f"10.65.0.{extra['rank'] + 2}"}
        return told

    # -- clusters -------------------------------------------------------------------------------------------

    @route("POST", "/v2/clusters", body=Cluster)
    def create_cluster(self, ask: Ask[Cluster]) -> object:
        told = ask.body
        center = self._center(told.compute.gpuTypeId, told.dataCenterIds)
        if not 2 <= told.compute.podCount <= 250 or told.type not in ("TRAINING", "APPLICATION"):
            raise self.error(422, "unprocessable-entity", "compute.podCount: 2 to 250")
        id, made = f"cluster_{len(self.clusters):04x}{len(self.made):04x}", []
        try:
            for rank in range(told.compute.podCount):
                extra = {"center": center, "cluster": id, "rank": rank, "count": told.compute.gpuCountPerPod}
                made.append(
                    self._make(f"{told.name}-pod-{rank}", told.compute.gpuTypeId, told.env, False, extra)
                )
        except (Shortage, OverQuota):
            for each in made:
                self._end(each)
                self.made.pop(each.id, None)
            raise
        self.clusters[id] = {
            "id": id,
            "name": told.name,
            "type": told.type,
            "compute": msgspec.to_builtins(told.compute),
            "dataCenterId": center,
            "pods": {"total": len(made), "byStatus": {"PROVISIONING": len(made)}},
            "createdAt": datetime.fromtimestamp(self.now(), UTC).isoformat(),
        }
        return Answer(201, self.clusters[id])

    @route("GET", "/v2/clusters")
    def list_clusters(self, ask: Ask[None]) -> object:
        return {"clusters": list(self.clusters.values())}

    @route("GET", "/v2/clusters/{id}/pods")
    def cluster_pods(self, ask: Ask[None]) -> object:
        id = ask.parts["id"]
        if id not in self.clusters:
            raise self.error(404, "not-found", "cluster not found")
        return {"pods": [self._told(each) for each in self.shown() if each.extra.get("cluster") == id]}

    @route("DELETE", "/v2/clusters/{id}")
    def delete_cluster(self, ask: Ask[None]) -> object:
        if self.clusters.pop(ask.parts["id"], None) is None:
            raise self.error(404, "not-found", "cluster not found")
        for each in list(self.made.values()):
            if each.extra.get("cluster") == ask.parts["id"]:
                self._end(each)
        return Answer(204)

    # -- what there is --------------------------------------------------------------------------------------

    @route("GET", "/v2/catalog/gpus", query=("include", "product", "count", "cloud", "countryCodes"))
    def catalog(self, ask: Ask[None]) -> object:
        if "include" in ask.query and "product" not in ask.query:
            raise self.error(400, "bad-request", "include=AVAILABILITY requires product")
        countries = [each for each in ask.query.get("countryCodes", "").split(",") if each]
        told = []
        for id, (name, memory, centers) in self.gpus.items():
            here = [each for each in centers if not countries or set(each.split("-")) & set(countries)]
            some = bool(here) and self.capacity.get((id, ""), 1) > 0
            row: dict[str, object] = {
                "id": id,
                "name": name,
                "pool": None,
                "manufacturer": "NVIDIA",
                "memory": memory,
                "secure": True,
                "community": False,
                "price": {"secure": 0.4, "community": 0.3},
                "maxCount": {"secure": 8, "community": 0},
                "availability": "HIGH" if some else "NONE",
            }
            if some:
                row["dataCenters"] = [
                    {"id": each, "name": each.title(), "availability": "HIGH"} for each in here
                ]
            told.append(row)
        return {"gpus": told}

    @route("POST", "/v2/network-volumes", body=NewVolume)
    def make_volume(self, ask: Ask[NewVolume]) -> object:
        if not 10 <= ask.body.size <= 4096:
            raise self.error(422, "unprocessable", "size must be between 10 and 4096")
        id = f"vol_{len(self.volumes) + 1}"
        self.volumes[id] = (ask.body.name, ask.body.dataCenter)
        row = {"id": id, "name": ask.body.name, "size": ask.body.size, "dataCenter": ask.body.dataCenter}
        return Answer(201, row | {"type": "STANDARD"})

    @route("DELETE", "/v2/network-volumes/{id}")
    def delete_volume(self, ask: Ask[None]) -> object:
        if self.volumes.pop(ask.parts["id"], None) is None:
            raise self.error(404, "not-found", "network volume not found")
        return Answer(204)

    @route("GET", "/v2/network-volumes")
    def network_volumes(self, ask: Ask[None]) -> object:
        return {
            "networkVolumes": [
                {"id": id, "name": name, "size": 100, "dataCenter": center, "type": "STANDARD"}
                for id, (name, center) in self.volumes.items()
            ]
        }
