"""Compute Engine on this machine (API v1): instances, operations with a clock, networks, quotas, and Google's
token service.

Strict: unknown fields, parameters and filters are refused, names of resources that do not exist too. Spot
machines that are taken back vanish, or rest, as their order says; boot disks are counted.
"""

from __future__ import annotations

import base64
import functools
import json
import urllib.parse
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, OverQuota, Shortage, route
from argosy.testing.fake_gcp_words import (
    BulkInsert,
    Firewall,
    Insert,
    Policy,
    Properties,
    has_gpu,
    kept,
    matches,
    wrong_in,
)

PROJECT: Final = "lab-1"
ACCOUNT: Final = "argosy@lab-1.iam.gserviceaccount.com"
REFRESH: Final = "1//refresh-token-of-the-fake"
TOKEN: Final = "ya29.token-of-the-fake"
_BASE: Final = "https://www.googleapis.com/compute/v1"
_P: Final = "/compute/v1/projects/{project}"
_Z: Final = _P + "/zones/{zone}"
_STATUS: Final = {
    "starting": "STAGING",
    "running": "RUNNING",
    "stopping": "STOPPING",
    "stopped": "TERMINATED",
    "ending": "STOPPING",
    "preempted": "TERMINATED",
}
_LISTED: Final = ("maxResults", "pageToken", "filter", "returnPartialSuccess", "fields")
_REASONS: Final = {"not-found": "notFound", "invalid": "invalid", "rate": "rateLimitExceeded"}


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class FakeGcp(FakeCloud):
    """`op_s`: how long operations take; `page`: how many things one page of a listing has."""

    def begin(self) -> None:
        self.op_s, self.page = 0.0, 500
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
        self.networks: dict[str, dict[str, str]] = {"default": {}, "lab": {"us-central1": "gpu"}}
        self.reservations: dict[str, str] = {}  # name -> zone
        self.firewalls: dict[str, Firewall] = {}
        self.policies: dict[str, Policy] = {}  # `region/name`
        self.operations: dict[str, dict[str, Any]] = {}
        self.requests: dict[str, str] = {}  # requestId -> name of its operation
        self.disks: dict[str, str] = {}  # id of a machine -> kind of its boot disk
        self.limits: dict[tuple[str, str], float] = {}  # (region or "", metric) -> limit
        self.tokens: dict[str, float] = {}  # -> until

    def environ(self) -> dict[str, str]:
        """Settings of a server; credentials are a file, see `sign_in`."""
        return {"ARGOSY_GCP_API_URL": self.url, "GCE_METADATA_HOST": self.url.removeprefix("http://")}

    def sign_in(self, folder: Path, *, service: bool = False) -> dict[str, str]:
        """The settings, with credentials in `folder`: a person's, or a key of a service account."""
        told: dict[str, str] = {
            "type": "authorized_user",
            "client_id": "id.apps.googleusercontent.com",
            "client_secret": "secret-of-the-client",
            "refresh_token": REFRESH,
            "quota_project_id": PROJECT,
        }
        if service:
            pem = _key().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            told = {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": "k1",
                "private_key": pem.decode(),
                "client_email": ACCOUNT,
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        path = folder / "credentials.json"
        path.write_text(json.dumps(told))
        return {**self.environ(), "GOOGLE_APPLICATION_CREDENTIALS": str(path)}

    # -- what Google says -----------------------------------------------------------------------------------

    def knows(self, ask: Ask[Any]) -> bool:
        token = ask.headers.get("authorization", "").removeprefix("Bearer ")
        return self.now() < self.tokens.get(token, 0.0)

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        reason = _REASONS.get(code, code)
        first = {"message": text, "domain": "global", "reason": reason}
        return Answer(status, {"error": {"code": status, "message": text, "errors": [first]}})

    def api_off(self) -> Answer:
        return self.error(
            403,
            "accessNotConfigured",
            "Compute Engine API has not been used in project 123 before or it is disabled. Enable it by "
            "visiting https://console.developers.google.com/apis/api/compute.googleapis.com then retry.",
        )

    def no_billing(self) -> Answer:
        return self.error(
            403,
            "forbidden",
            "This API method requires billing to be enabled. Please enable billing on project #123.",
        )

    def no_project(self) -> Answer:
        return self.error(404, "notFound", f"The resource 'projects/{PROJECT}' was not found")

    def suspended(self) -> Answer:
        text = f"Permission denied: Consumer 'project:{PROJECT}' has been suspended."
        return self.error(403, "CONSUMER_SUSPENDED", text)

    def _missing(self, path: str) -> Answer:
        return self.error(404, "not-found", f"The resource '{path}' was not found")

    # -- the token service and the metadata of a machine ----------------------------------------------------

    @route("POST", "/token", body=bytes, open=True)
    def token(self, ask: Ask[bytes]) -> object:
        if ask.headers.get("content-type") != "application/x-www-form-urlencoded":
            raise Answer(400, {"error": "invalid_request", "error_description": "Bad Request"})
        form = dict(urllib.parse.parse_qsl(ask.body.decode()))
        if form.get("grant_type") == "refresh_token":
            good = form.get("refresh_token") == REFRESH and not self.expired
            text = "Token has been expired or revoked."
        else:
            good, text = self._signed(form.get("assertion", "")), "Invalid JWT Signature."
        if not good:
            raise Answer(400, {"error": "invalid_grant", "error_description": text})
        return self._token()

    def _token(self) -> dict[str, object]:
        token = f"{TOKEN}-{len(self.tokens)}"
        self.tokens[token] = self.now() + 3600
        return {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}

    def _signed(self, assertion: str) -> bool:
        try:
            head, claims, signature = assertion.split(".")
            _key().public_key().verify(
                _bytes(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except (ValueError, InvalidSignature):
            return False
        said = json.loads(_bytes(claims))
        fresh = said["iat"] - 60 <= self.now() <= said["exp"] <= said["iat"] + 3600
        return fresh and said["iss"] == ACCOUNT and said["aud"].endswith("/token") and bool(said["scope"])

    @route("GET", "/computeMetadata/v1/{a}/{b}/{c}/{d}", open=True)
    def metadata_token(self, ask: Ask[None]) -> object:
        if ask.headers.get("metadata-flavor") != "Google" or ask.parts["d"] != "token":
            raise Answer(403, {})
        return Answer(200, self._token(), {"metadata-flavor": "Google"})

    @route("GET", "/computeMetadata/v1/project/project-id", open=True)
    def metadata_project(self, ask: Ask[None]) -> object:
        return Answer(200, PROJECT.encode(), {"metadata-flavor": "Google"})

    # -- instances ------------------------------------------------------------------------------------------

    @route("POST", _Z + "/instances", body=Insert, query=("requestId",))
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

    @route("POST", _Z + "/instances/bulkInsert", body=BulkInsert, query=("requestId",))
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
        return self._operation(ask, f"zones/{zone}", errors)

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
                    if (each.zone, each.name) == (zone, name) and each.state not in ("ended", "preempted")
                ),
                None,
            )

    @route("DELETE", _Z + "/instances/{name}", query=("requestId",))
    def delete(self, ask: Ask[None]) -> object:
        self.end(self._instance(ask))
        return self._operation(ask, f"zones/{ask.parts['zone']}", [])

    @route("POST", _Z + "/instances/{name}/stop", query=("requestId", "discardLocalSsd"))
    def stop(self, ask: Ask[None]) -> object:
        machine = self._instance(ask)
        if machine.kind.startswith(("a3-", "a4-")) and ask.query.get("discardLocalSsd") != "true":
            raise self.error(400, "invalid", "VM has a Local SSD attached but an undefined value for discard")
        self.rest(machine)
        return self._operation(ask, f"zones/{ask.parts['zone']}", [])

    @route("POST", _Z + "/instances/{name}/start", query=("requestId",))
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
        told: Properties = machine.extra["order"]
        super().preempt(machine)
        if told.scheduling.instance_termination_action == "DELETE":
            machine.state = "ended"
            self.settle()

    # -- listings -------------------------------------------------------------------------------------------

    @route("GET", _P + "/aggregated/{kind}", query=_LISTED)
    def aggregated(self, ask: Ask[None]) -> object:
        kind = ask.parts["kind"]
        if kind == "instances":
            every = [(each.zone, self.told(each)) for each in self.shown()]
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
        more = {"nextPageToken": str(end)} if end < len(every) else {}
        return {"kind": "compute#instanceAggregatedList", "id": "x", "items": items, **more}

    def told(self, machine: FakeMachine) -> dict[str, Any]:
        """An instance as `instances.get` shows it."""
        zone = f"{_BASE}/projects/{PROJECT}/zones/{machine.zone}"
        order: Properties | None = machine.extra.get("order")
        card: dict[str, Any] = {
            "name": "nic0",
            "network": f"{_BASE}/projects/{PROJECT}/global/networks/default",
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

    @route("GET", _P)
    def project(self, ask: Ask[None]) -> object:
        if ask.parts["project"] != PROJECT:
            raise self._missing(f"projects/{ask.parts['project']}")
        return {"name": PROJECT, "defaultServiceAccount": ACCOUNT, "quotas": self._quotas("")}

    @route("GET", _P + "/regions", query=_LISTED)
    def regions(self, ask: Ask[None]) -> object:
        names = sorted({zone.rpartition("-")[0] for zone in self.zones})
        return {"items": [{"name": name, "quotas": self._quotas(name)} for name in names]}

    def _quotas(self, region: str) -> list[dict[str, Any]]:
        mine = {metric: limit for (place, metric), limit in self.limits.items() if place == region}
        return [{"metric": metric, "limit": limit, "usage": 0.0} for metric, limit in mine.items()]

    # -- operations -----------------------------------------------------------------------------------------

    def _known(self, ask: Ask[Any]) -> dict[str, Any] | None:
        """What became of an order that is repeated."""
        name = self.requests.get(ask.query.get("requestId", ""))
        return self._shown_operation(name) if name is not None else None

    def _operation(self, ask: Ask[Any], place: str, errors: list[dict[str, str]]) -> dict[str, Any]:
        name = f"operation-{len(self.operations)}"
        self.operations[name] = {"place": place, "due": self.now() + self.op_s, "errors": errors}
        if "requestId" in ask.query:
            self.requests[ask.query["requestId"]] = name
        return self._shown_operation(name)

    def _shown_operation(self, name: str) -> dict[str, Any]:
        kept = self.operations[name]
        done = self.now() >= kept["due"]
        told: dict[str, Any] = {"kind": "compute#operation", "name": name, "operationType": "insert"}
        told |= {"status": "DONE" if done else "RUNNING", "progress": 100 if done else 0}
        if done and kept["errors"]:
            told |= {"error": {"errors": kept["errors"]}, "httpErrorStatusCode": 400}
            told["httpErrorMessage"] = "BAD REQUEST"
        return told

    @route("GET", _Z + "/operations/{name}")
    def zone_operation(self, ask: Ask[None]) -> object:
        return self._looked_up(ask, f"zones/{ask.parts['zone']}")

    @route("GET", _P + "/global/operations/{name}")
    def global_operation(self, ask: Ask[None]) -> object:
        return self._looked_up(ask, "global")

    @route("GET", _P + "/regions/{region}/operations/{name}")
    def region_operation(self, ask: Ask[None]) -> object:
        return self._looked_up(ask, f"regions/{ask.parts['region']}")

    def _looked_up(self, ask: Ask[None], place: str) -> object:
        name = ask.parts["name"]
        if name not in self.operations or self.operations[name]["place"] != place:
            raise self._missing(f"projects/{PROJECT}/{place}/operations/{name}")
        return self._shown_operation(name)

    # -- networks, rules, policies --------------------------------------------------------------------------

    @route("GET", _P + "/global/networks/{name}")
    def network(self, ask: Ask[None]) -> object:
        name = ask.parts["name"]
        path = f"projects/{ask.parts['project']}/global/networks/{name}"
        if name not in self.networks:
            raise self._missing(path)
        subnets = [
            f"{_BASE}/projects/{PROJECT}/regions/{region}/subnetworks/{subnet}"
            for region, subnet in self.networks[name].items()
        ]
        told = {"name": name, "selfLink": f"{_BASE}/{path}", "subnetworks": subnets}
        return {**told, "autoCreateSubnetworks": not subnets}

    @route("GET", _P + "/regions/{region}/subnetworks/{name}")
    def subnetwork(self, ask: Ask[None]) -> object:
        region, name = ask.parts["region"], ask.parts["name"]
        path = f"projects/{ask.parts['project']}/regions/{region}/subnetworks/{name}"
        for network, subnets in self.networks.items():
            if subnets.get(region) == name:
                link = f"{_BASE}/projects/{PROJECT}/global/networks/{network}"
                return {"name": name, "network": link, "selfLink": f"{_BASE}/{path}"}
        raise self._missing(path)

    @route("GET", _P + "/global/firewalls/{name}")
    def firewall(self, ask: Ask[None]) -> object:
        found = self.firewalls.get(ask.parts["name"])
        if found is None:
            raise self._missing(f"projects/{PROJECT}/global/firewalls/{ask.parts['name']}")
        return found

    @route("POST", _P + "/global/firewalls", body=Firewall, query=("requestId",))
    def add_firewall(self, ask: Ask[Firewall]) -> object:
        if ask.body.name in self.firewalls:
            path = f"projects/{PROJECT}/global/firewalls/{ask.body.name}"
            raise self.error(409, "alreadyExists", f"The resource '{path}' already exists")
        self.firewalls[ask.body.name] = ask.body
        return self._operation(ask, "global", [])

    @route("POST", _P + "/regions/{region}/resourcePolicies", body=Policy, query=("requestId",))
    def add_policy(self, ask: Ask[Policy]) -> object:
        key = f"{ask.parts['region']}/{ask.body.name}"
        if key in self.policies:
            raise self.error(409, "alreadyExists", f"The resource '{key}' already exists")
        self.policies[key] = ask.body
        return self._operation(ask, f"regions/{ask.parts['region']}", [])

    @route("GET", _P + "/regions/{region}/resourcePolicies/{name}")
    def policy(self, ask: Ask[None]) -> object:
        found = self.policies.get(f"{ask.parts['region']}/{ask.parts['name']}")
        if found is None:
            raise self._missing(f"projects/{PROJECT}/regions/{ask.parts['region']}/resourcePolicies/x")
        return found

    @route("DELETE", _P + "/regions/{region}/resourcePolicies/{name}", query=("requestId",))
    def drop_policy(self, ask: Ask[None]) -> object:
        key = f"{ask.parts['region']}/{ask.parts['name']}"
        if key not in self.policies:
            raise self._missing(f"projects/{PROJECT}/regions/{ask.parts['region']}/resourcePolicies/x")
        for each in self.shown():
            told = each.extra.get("order")
            if told is not None and any(name.endswith(ask.parts["name"]) for name in told.resource_policies):
                text = "The resource_policy resource is already being used"
                raise self.error(400, "resourceInUseByAnotherResource", text)
        del self.policies[key]
        return self._operation(ask, f"regions/{ask.parts['region']}", [])


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
