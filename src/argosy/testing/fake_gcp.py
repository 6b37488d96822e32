"""Compute Engine on this machine (API v1): instances, operations with a clock, networks, quotas, and Google's
token service.

Strict: unknown fields, parameters and filters are refused, names of resources that do not exist too. Spot
machines that are taken back vanish, or rest, as their order says; boot disks are counted.
"""

from __future__ import annotations

from typing import Any, Final

from argosy.testing.fake_cloud import Ask, FakeMachine, OverQuota, Shortage, route
from argosy.testing.fake_gcp_account import ACCOUNT, BASE, PATH, PROJECT, REFRESH, TOKEN, ZONE
from argosy.testing.fake_gcp_tpus import FakeGcpTpus
from argosy.testing.fake_gcp_words import BulkInsert, Insert, Properties, has_gpu, kept, matches, wrong_in

__all__ = ["ACCOUNT", "PROJECT", "REFRESH", "TOKEN", "FakeGcp"]
_STATUS: Final = {
    "starting": "STAGING",
    "running": "RUNNING",
    "stopping": "STOPPING",
    "stopped": "TERMINATED",
    "ending": "STOPPING",
    "preempted": "TERMINATED",
}
_LISTED: Final = ("maxResults", "pageToken", "filter", "returnPartialSuccess", "fields")


class FakeGcp(FakeGcpTpus):
    """`op_s`: how long operations take; `page`: how many things one page of a listing has."""

    def begin(self) -> None:
        super().begin()
        self.zones = ["us-central1-a", "us-central1-b", "us-east1-b", "europe-west4-a"]
        self.types = {
            "n2-standard-4": list(self.zones),
            "n1-standard-8": list(self.zones),
            "g2-standard-4": ["us-central1-a", "us-central1-b", "europe-west4-a"],
            "a3-highgpu-8g": ["us-central1-a"],
            "a4-highgpu-8g": ["us-central1-b"],
            "c4-standard-48": ["us-central1-a"],
        }
        self.images = {
            "projects/ubuntu-os-cloud/global/images/family/ubuntu-2204-lts",
            "projects/ubuntu-os-accelerator-images/global/images/family/"
            "ubuntu-accelerator-2204-amd64-with-nvidia-580",
            "projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204-nvidia-570",
            f"projects/{PROJECT}/global/images/mine",
        }
        self.silent: set[str] = set()  # zones that do not answer
        self.reservations: dict[str, str] = {}  # name -> zone
        self.disks: dict[str, str] = {}  # id of a machine -> kind of its boot disk

    # -- instances ------------------------------------------------------------------------------------------

    @route("POST", ZONE + "/instances", body=Insert, query=("requestId",))
    def insert(self, ask: Ask[Insert]) -> object:
        zone, told = ask.parts["zone"], ask.body
        known = self._known(ask)
        if known is not None:
            return known
        self._check(ask, told, [told.name], bulk=False)
        if self.named(zone, told.name) is not None:
            path = f"projects/{PROJECT}/zones/{zone}/instances/{told.name}"
            raise self.error(409, "alreadyExists", f"The resource '{path}' already exists")
        return self._operation(ask, f"zones/{zone}", self._ordered(zone, told, [told.name]))

    @route("POST", ZONE + "/instances/bulkInsert", body=BulkInsert, query=("requestId",))
    def bulk_insert(self, ask: Ask[BulkInsert]) -> object:
        zone, told = ask.parts["zone"], ask.body
        names = [each.name for each in told.per_instance_properties.values()]
        known = self._known(ask)
        if known is not None:
            return known
        if "/" in told.instance_properties.machine_type:
            raise self.error(503, "backendError", "Internal error. Please try again or contact support.")
        if int(told.count) != len(names) or int(told.min_count) > int(told.count):
            raise self.error(400, "invalid", "Invalid value for field 'resource.count'")
        self._check(ask, told.instance_properties, names, bulk=True)
        errors = self._ordered(zone, told.instance_properties, names)
        group = f"group-{len(self.operations)}"
        if errors and errors[0]["code"] != "RESOURCE_ALREADY_EXISTS":
            self._operation(Ask({}, {}, {}, None), f"zones/{zone}", errors, group)
            text = f"Requested minimum count of {told.min_count} VMs could not be created."
            errors = [{"code": "VM_MIN_COUNT_NOT_REACHED", "message": text}]
        return self._operation(ask, f"zones/{zone}", errors, group)

    def _check(self, ask: Ask[Any], told: Properties, names: list[str], *, bulk: bool) -> None:
        zone = ask.parts["zone"]
        region, kind = zone.rpartition("-")[0], told.machine_type.rpartition("/")[2]
        if zone not in self.zones:
            raise self.error(400, "invalid", f"Invalid value for field 'zone': '{zone}'. Unknown zone.")
        if zone not in self.types.get(kind, ()):
            raise self._missing(f"projects/{PROJECT}/zones/{zone}/machineTypes/{kind}")
        wrong = wrong_in(told, names, bulk=bulk)
        if wrong:
            raise self.error(400, "invalid", wrong)
        image = told.disks[0].initialize_params.source_image
        if image.startswith("global/"):
            image = f"projects/{PROJECT}/{image}"
        if image not in self.images:
            raise self._missing(image)
        for policy in told.resource_policies:
            if f"{region}/{policy.rpartition('/')[2]}" not in self.policies:
                path = f"projects/{PROJECT}/regions/{region}/resourcePolicies/{policy.rpartition('/')[2]}"
                raise self._missing(path)
        for account in told.service_accounts:
            if account.email not in ("default", ACCOUNT):
                text = f"The user does not have access to service account '{account.email}'. actAs"
                raise self.error(403, "forbidden", text)
        for name in told.reservation_affinity.values:
            if self.reservations.get(name) != zone:
                raise self._missing(f"projects/{PROJECT}/zones/{zone}/reservations/{name}")

    def _ordered(self, zone: str, told: Properties, names: list[str]) -> list[dict[str, str]]:
        """Makes all machines of an order, or none; errors for its operation."""
        made: list[FakeMachine] = []
        region, kind = zone.rpartition("-")[0], told.machine_type.rpartition("/")[2]
        try:
            for name in names:
                if self.named(zone, name) is not None:
                    path = f"projects/{PROJECT}/zones/{zone}/instances/{name}"
                    raise ValueError(f"The resource '{path}' already exists")
                if has_gpu(kind, told) and self.limits.get(("", "GPUS_ALL_REGIONS")) == 0:
                    raise OverQuota("0")
                machine = self.order(
                    name=name,
                    kind=kind,
                    region=region,
                    zone=zone,
                    labels=told.labels,
                    user_data=next(
                        (item.value.encode() for item in told.metadata.items if item.key == "user-data"), b""
                    ),
                    spot=told.scheduling.provisioning_model == "SPOT",
                    extra=kept(told),
                )
                made.append(machine)
                self.disks[machine.id] = told.disks[0].initialize_params.disk_type.rpartition("/")[2]
        except (Shortage, OverQuota, ValueError) as refusal:
            for each in made:
                self.end(each)
                each.state, each.due = "ended", None
            return [self._refusal(refusal, zone, kind)]
        return []

    def _refusal(self, refusal: Exception, zone: str, kind: str) -> dict[str, str]:
        if isinstance(refusal, Shortage):
            text = f"The zone 'projects/{PROJECT}/zones/{zone}' does not have enough resources available to "
            text += f"fulfill the request. '(resource type:compute)'. {kind}"
            return {"code": "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "message": text}
        if isinstance(refusal, OverQuota):
            metric, where = ("CPUS", f"in region {zone.rpartition('-')[0]}.")
            if self.limits.get(("", "GPUS_ALL_REGIONS")) == 0:
                metric, where = "GPUS_ALL_REGIONS", "globally."
            text = f"Quota '{metric}' exceeded.  Limit: {float(str(refusal))} {where}"
            return {"code": "QUOTA_EXCEEDED", "message": text}
        return {"code": "RESOURCE_ALREADY_EXISTS", "message": str(refusal)}

    def named(self, zone: str, name: str) -> FakeMachine | None:
        with self.lock:
            self.settle()
            return next(
                (
                    each
                    for each in self.made.values()
                    if (each.zone, each.name) == (zone, name)
                    and each.state not in ("ended", "preempted")
                    and "tpu" not in each.extra
                ),
                None,
            )

    @route("GET", ZONE + "/instances/{name}")
    def get(self, ask: Ask[None]) -> object:
        return self.told(self._instance(ask))

    @route("DELETE", ZONE + "/instances/{name}", query=("requestId",))
    def delete(self, ask: Ask[None]) -> object:
        self.end(self._instance(ask))
        return self._operation(ask, f"zones/{ask.parts['zone']}", [])

    @route("POST", ZONE + "/instances/{name}/stop", query=("requestId", "discardLocalSsd"))
    def stop(self, ask: Ask[None]) -> object:
        machine = self._instance(ask)
        if machine.kind.startswith(("a3-", "a4-")) and ask.query.get("discardLocalSsd") != "true":
            raise self.error(400, "invalid", "VM has a Local SSD attached but an undefined value for discard")
        self.rest(machine)
        return self._operation(ask, f"zones/{ask.parts['zone']}", [])

    @route("POST", ZONE + "/instances/{name}/start", query=("requestId",))
    def start(self, ask: Ask[None]) -> object:
        machine = self._instance(ask)
        if (machine.kind, "start") in self.capacity:
            errors = [self._refusal(Shortage(), machine.zone, machine.kind)]
            return self._operation(ask, f"zones/{machine.zone}", errors)
        self.wake(machine)
        return self._operation(ask, f"zones/{ask.parts['zone']}", [])

    def _instance(self, ask: Ask[None]) -> FakeMachine:
        found = self.named(ask.parts["zone"], ask.parts["name"])
        if found is None:
            raise self._missing(f"projects/{PROJECT}/zones/{ask.parts['zone']}/instances/{ask.parts['name']}")
        return found

    def settle(self) -> None:
        """Boot disks go with their machines."""
        super().settle()
        with self.lock:
            for id in [id for id in getattr(self, "disks", {}) if self.made[id].state == "ended"]:
                del self.disks[id]

    def preempt(self, machine: FakeMachine) -> None:
        super().preempt(machine)
        told: Properties | None = machine.extra.get("order")
        if told is not None and told.scheduling.instance_termination_action == "DELETE":
            machine.state = "ended"
            self.settle()

    # -- listings -------------------------------------------------------------------------------------------

    @route("GET", PATH + "/aggregated/{kind}", query=_LISTED)
    def aggregated(self, ask: Ask[None]) -> object:
        kind = ask.parts["kind"]
        if kind == "instances":
            every = [(each.zone, self.told(each)) for each in self.shown() if "tpu" not in each.extra]
        elif kind == "machineTypes":
            every = [(zone, {"name": name}) for name, zones in self.types.items() for zone in zones]
        elif kind == "reservations":
            every = [(zone, {"name": name}) for name, zone in self.reservations.items()]
        else:
            raise self.error(404, "not-found", f"there is no list of {kind}")
        try:
            every = [
                (zone, each)
                for zone, each in every
                if matches(ask.query.get("filter", ""), each["name"], each.get("labels", {}))
            ]
        except ValueError as filter:
            text = f"Invalid value for field 'filter': '{filter}'. Invalid list filter expression."
            raise self.error(400, "invalid", text) from None
        begin, size = int(ask.query.get("pageToken", "0")), int(ask.query.get("maxResults", "500"))
        if not 0 < size <= 500:
            raise self.error(400, "invalid", "Invalid value for field 'maxResults'")
        end = begin + min(size, self.page)
        items: dict[str, Any] = {}
        for zone in self.zones:
            here = [each for where, each in every[begin:end] if where == zone]
            nothing = {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope"}
            items[f"zones/{zone}"] = {kind: here} if here else {"warning": nothing}
            if zone in self.silent and ask.query.get("returnPartialSuccess") == "true":
                items[f"zones/{zone}"] = {"warning": {"code": "UNREACHABLE", "message": "did not answer"}}
        more = {"nextPageToken": str(end)} if end < len(every) else {}
        return {"kind": "compute#instanceAggregatedList", "id": "x", "items": items, **more}

    def told(self, machine: FakeMachine) -> dict[str, Any]:
        """An instance as `instances.get` shows it."""
        zone = f"{BASE}/projects/{PROJECT}/zones/{machine.zone}"
        order: Properties | None = machine.extra.get("order")
        card: dict[str, Any] = {
            "name": "nic0",
            "network": f"{BASE}/projects/{PROJECT}/global/networks/default",
        }
        card["networkIP"] = machine.ip
        if order is not None and order.network_interfaces[0].access_configs:
            config = {"type": "ONE_TO_ONE_NAT", "name": "External NAT", "networkTier": "PREMIUM"}
            running = {"natIP": machine.ip} if machine.state == "running" and machine.ip else {}
            card["accessConfigs"] = [{**config, **running}]
        return {
            "kind": "compute#instance",
            "id": str(int(machine.id.rpartition("-")[2], 16) + 10**18),
            "name": machine.name,
            "zone": zone,
            "machineType": f"{zone}/machineTypes/{machine.kind}",
            "status": _STATUS[machine.state],
            "creationTimestamp": f"2026-11-29T00:00:{machine.created_s % 60:06.3f}-08:00",
            "labels": machine.labels,
            "labelFingerprint": "p1617vbsFsw=",
            "fingerprint": "3SeUxjS6zCg=",
            "networkInterfaces": [card],
            "scheduling": {"provisioningModel": "SPOT" if machine.spot else "STANDARD"},
        }

    @route("GET", PATH)
    def project(self, ask: Ask[None]) -> object:
        if ask.parts["project"] != PROJECT:
            raise self._missing(f"projects/{ask.parts['project']}")
        return {"name": PROJECT, "defaultServiceAccount": ACCOUNT, "quotas": self._quotas("")}

    @route("GET", PATH + "/regions", query=_LISTED)
    def regions(self, ask: Ask[None]) -> object:
        names = sorted({zone.rpartition("-")[0] for zone in self.zones})
        return {"items": [{"name": name, "quotas": self._quotas(name)} for name in names]}

    def _quotas(self, region: str) -> list[dict[str, Any]]:
        mine = {metric: limit for (place, metric), limit in self.limits.items() if place == region}
        return [{"metric": metric, "limit": limit, "usage": 0.0} for metric, limit in mine.items()]
