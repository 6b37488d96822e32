"""The Verda API (v1) on this machine, as its client and its OpenAPI say. Every machine has a disk of its own,
which stays and is paid for unless whoever deletes the machine names it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, route

CLIENT, KEY, TOKEN = "client-of-the-fake", "secret-of-the-fake", "token-of-the-fake"
_STATUS: Final = {
    "starting": "provisioning",
    "stopping": "running",
    "stopped": "offline",
    "ending": "deleting",
    "preempted": "discontinued",
    "failed": "error",
}
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?")


class Login(msgspec.Struct, forbid_unknown_fields=True):
    grant_type: str
    client_id: str = ""
    client_secret: str = ""


class OsVolume(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    size: int
    on_spot_discontinue: str | None = "keep_detached"


class Deploy(msgspec.Struct, forbid_unknown_fields=True):
    instance_type: str
    image: str
    hostname: str
    description: str
    location_code: str
    ssh_key_ids: list[str]
    startup_script_id: str | None = None
    os_volume: OsVolume | None = None
    volumes: list[object] = []
    existing_volumes: list[str] = []
    is_spot: bool = False
    coupon: str | None = None
    contract: str = "PAY_AS_YOU_GO"
    pricing: str = "FIXED_PRICE"


class AddKey(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    key: str


class Act(msgspec.Struct, forbid_unknown_fields=True):
    id: list[str] | str
    action: str
    volume_ids: list[str] | None = None
    delete_permanently: bool = False


class FakeVerda(FakeCloud):
    none_left = (503, "service_unavailable", "No capacity available")
    over_limit = (402, "insufficient_funds", "Not enough funds on the account")
    missing = "Invalid instance id"

    def begin(self) -> None:
        self.types = {"1H100.80S.30V": ("FIN-01", "ICE-01"), "CPU.4V.16G": ("FIN-01",)}
        self.spots: set[str] = set()  # types that are there as spot machines
        self.keys: dict[str, AddKey] = {}
        self.volumes: dict[str, str] = {}  # that are paid for -> the machine that they were made for
        self.balance = 42.5
        self.logins = 0
        self.token_s = 3600.0
        self._token_ends_s = 0.0

    def environ(self) -> dict[str, str]:
        return {"VERDA_CLIENT_ID": CLIENT, "VERDA_CLIENT_SECRET": KEY, "VERDA_API_URL": self.url}

    def knows(self, ask: Ask[Any]) -> bool:
        return ask.headers.get("authorization") == f"Bearer {TOKEN}" and self.now() < self._token_ends_s

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        codes = {
            "unauthorized": "unauthorized_request",
            "not-found": "not_found",
            "invalid": "invalid_request",
            "rate": "rate_limit_exceeded",
        }
        return Answer(status, {"code": codes.get(code, code), "message": text})

    def preempt(self, machine: FakeMachine) -> None:
        super().preempt(machine)
        if machine.extra["keeps"] != "delete_permanently":
            return
        self.volumes = {name: owner for name, owner in self.volumes.items() if owner != machine.id}

    @route("POST", "/v1/oauth2/token", body=Login, open=True)
    def login(self, ask: Ask[Login]) -> object:
        told = ask.body
        if self.expired or (told.grant_type, told.client_id, told.client_secret) != (
            "client_credentials",
            CLIENT,
            KEY,
        ):
            raise self.error(401, "unauthorized", "Invalid client id or client secret")
        self.logins += 1
        self._token_ends_s = self.now() + self.token_s
        return {
            "access_token": TOKEN,
            "refresh_token": "r",
            "scope": "cloud-api-v1",
            "token_type": "Bearer",
            "expires_in": self.token_s,
        }

    @route("GET", "/v1/balance")
    def get_balance(self, ask: Ask[None]) -> object:
        return {"amount": self.balance, "currency": "usd"}

    @route("POST", "/v1/instances", body=Deploy)
    def deploy(self, ask: Ask[Deploy]) -> object:
        told = ask.body
        if not _HOST.fullmatch(told.hostname):
            raise self.error(400, "invalid", "hostname must be a valid host name of at most 60 characters")
        if told.instance_type not in self.types:
            raise self.error(400, "invalid", "Invalid instance type")
        if not told.ssh_key_ids or [each for each in told.ssh_key_ids if each not in self.keys]:
            raise self.error(400, "invalid", "Invalid ssh key id")
        if told.image not in self._images(told.instance_type):
            raise self.error(400, "invalid", "Operating system is not valid for this instance type")
        if told.location_code not in {place for places in self.types.values() for place in places}:
            raise self.error(400, "invalid", "Invalid location code")
        if told.location_code not in self.types[told.instance_type]:
            raise self.shortage("")
        volume = told.os_volume or OsVolume(told.hostname, 50)
        made = self.order(
            name=told.hostname,
            kind=told.instance_type,
            region=told.location_code,
            spot=told.is_spot,
            user_data=self._keys_of(told.ssh_key_ids),
            extra={"description": told.description, "keeps": volume.on_spot_discontinue},
        )
        self.volumes[f"v-{made.id}"] = made.id
        return Answer(202, made.id.encode(), {"content-type": "text/plain"})

    def _keys_of(self, ids: list[str]) -> bytes:
        """What the image does with key objects, in words that hosts know."""
        lines = "".join(f"- {self.keys[id].key}\n" for id in ids)
        return f"#cloud-config\nssh_authorized_keys:\n{lines}".encode()

    @route("GET", "/v1/instances", query=("status",))
    def instances(self, ask: Ask[None]) -> object:
        found = [self._told(each) for each in self.shown()]
        return [each for each in found if ask.query.get("status") in (None, each["status"])]

    @route("GET", "/v1/instances/{id}")
    def instance(self, ask: Ask[None]) -> object:
        machine = self.found(ask)
        return self._told(machine)

    @route("PUT", "/v1/instances", body=Act)
    def act(self, ask: Ask[Act]) -> object:
        told = ask.body
        for id in [told.id] if isinstance(told.id, str) else told.id:
            machine = self.find(id)
            if machine is None:
                raise self.error(404, "not-found", "Invalid instance id")
            if told.action not in ("delete", "start", "shutdown"):
                raise self.error(400, "invalid", "Invalid action")
            if machine.state == "starting":
                raise self.error(400, "invalid", "Can't discontinue a provisioning instance")
            if told.action == "start":
                self.wake(machine)
            elif told.action == "shutdown":
                self.rest(machine)
            else:
                self.end(machine)
                for volume in told.volume_ids or () if told.delete_permanently else ():
                    self.volumes.pop(volume, None)
        return Answer(202, [{"instanceId": id, "action": told.action, "status": "success"}])

    @route("GET", "/v1/sshkeys")
    def ssh_keys(self, ask: Ask[None]) -> object:
        return [{"id": id, "name": each.name, "key": each.key} for id, each in self.keys.items()]

    @route("POST", "/v1/sshkeys", body=AddKey)
    def add_key(self, ask: Ask[AddKey]) -> object:
        id = f"k-{len(self.keys)}"
        self.keys[id] = ask.body
        return Answer(201, id.encode(), {"content-type": "text/plain"})

    @route("GET", "/v1/images", query=("instance_type",))
    def images(self, ask: Ask[None]) -> object:
        kind = ask.query.get("instance_type", "1H100.80S.30V")
        return [
            {"id": f"i-{name}", "name": name, "image_type": name, "details": []}
            for name in self._images(kind)
        ]

    @route("GET", "/v1/instance-types", query=("currency",))
    def instance_types(self, ask: Ask[None]) -> object:
        return [
            {
                "id": name,
                "instance_type": name,
                "price_per_hour": "1.99",
                "spot_price": "0.99",
                "description": name,
                "cpu": {"description": "30 CPU", "number_of_cores": 30},
                "gpu": {"description": "1x H100 SXM5 80GB", "number_of_gpus": 1},
                "memory": {"description": "120GB RAM", "size_in_gigabytes": 120},
                "gpu_memory": {"description": "80GB GPU RAM", "size_in_gigabytes": 80},
                "storage": {"description": "dynamic"},
            }
            for name in self.types
        ]

    @route("GET", "/v1/instance-availability", query=("is_spot", "isSpot", "location_code"))
    def availability(self, ask: Ask[None]) -> object:
        spot = ask.query.get("is_spot", ask.query.get("isSpot")) == "true"
        return [
            {
                "location_code": place,
                "availabilities": [
                    name
                    for name, places in self.types.items()
                    if place in places and (not spot or name in self.spots)
                ],
            }
            for place in ("FIN-01", "ICE-01")
        ]

    def _images(self, kind: str) -> tuple[str, ...]:
        if kind.startswith("CPU."):
            return ("ubuntu-22.04", "ubuntu-24.04", "debian-13")
        return (
            "ubuntu-22.04-cuda-12.4",
            "ubuntu-24.04-cuda-12.8-open-docker",
            "ubuntu-24.04-cuda-12.8-open",
            "ubuntu-24.04-cuda-12.8-cluster",
        )

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        told = {
            "id": machine.id,
            "instance_type": machine.kind,
            "price_per_hour": 1.99,
            "hostname": machine.name,
            "description": machine.extra.get("description", ""),
            "status": machine.extra.get("status") or _STATUS.get(machine.state, machine.state),
            "created_at": datetime.fromtimestamp(machine.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "ssh_key_ids": list(self.keys),
            "cpu": {"number_of_cores": 30},
            "gpu": {"number_of_gpus": 1},
            "memory": {"size_in_gigabytes": 120},
            "storage": {"description": "dynamic"},
            "gpu_memory": {"size_in_gigabytes": 80},
            "ip": machine.ip or None,
            "os_volume_id": next((id for id, owner in self.volumes.items() if owner == machine.id), None),
            "volume_ids": [],
            "location": machine.region,
            "image": "ubuntu-24.04",
            "startup_script_id": None,
            "is_spot": machine.spot,
            "contract": "SPOT" if machine.spot else "PAY_AS_YOU_GO",
            "pricing": "FIXED_PRICE",
        }
        return self.bare(machine, told, "id")
