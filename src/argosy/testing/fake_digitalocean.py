"""The DigitalOcean API (v2) on this machine, as its OpenAPI says: droplets, keys of the account, sizes.

Orders are accepted before they are done: `errored` of them fail after that, and only their action tells."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import AddKey, Answer, Ask, FakeCloud, FakeMachine, route

KEY: Final = "dop_v1_token_of_the_fake"
_STATUS: Final = {
    "starting": "new",
    "failed": "new",
    "running": "active",
    "stopping": "active",
    "stopped": "off",
    "ending": "archive",
}
_TAG: Final = re.compile(r"[A-Za-z0-9_\-:]{1,255}")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?")
_ERRORS: Final = {"unauthorized": "Unauthorized", "not-found": "not_found", "rate": "too_many_requests"}


class Create(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    region: str
    size: str
    image: str | int
    ssh_keys: list[str | int] = []
    user_data: str = ""
    tags: list[str] = []
    backups: bool = False
    ipv6: bool = False
    monitoring: bool = False
    vpc_uuid: str = ""


class Act(msgspec.Struct, forbid_unknown_fields=True):
    type: str


class FakeDigitalOcean(FakeCloud):
    bearer = KEY
    none_left = (422, "invalid", "Size is not available in this region.")
    over_limit = (422, "invalid", "creating this/these droplet(s) will exceed your droplet limit")
    missing = "The resource you were accessing could not be found."

    def begin(self) -> None:
        self.sizes = {"s-2vcpu-4gb": ("nyc3", "fra1"), "gpu-h100x1-80gb": ("nyc3", "tor1"), "gpu-none": ()}
        self.keys: dict[str, AddKey] = {}
        self.errored = 0  # so many orders fail after they were accepted
        self.status = "active"  # of the account

    def environ(self) -> dict[str, str]:
        return {"DIGITALOCEAN_TOKEN": KEY, "DIGITALOCEAN_API_URL": self.url}

    def new_id(self, number: int) -> str:
        return str(402_000_000 + number)

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        return Answer(
            422 if code == "invalid" else status,
            {"id": _ERRORS.get(code, "unprocessable_entity"), "message": text, "request_id": "0-0"},
        )

    @route("POST", "/v2/droplets", body=Create)
    def create(self, ask: Ask[Create]) -> object:
        told = ask.body
        if not _HOST.fullmatch(told.name):
            raise self.error(
                422, "invalid", "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"
            )
        if [each for each in told.ssh_keys if each not in self.keys]:
            raise self.error(422, "invalid", "One or more of the specified SSH keys could not be found.")
        if [each for each in told.tags if not _TAG.fullmatch(each)] or len(told.user_data) > 65536:
            raise self.error(422, "invalid", "Tag names may only contain letters, numbers, : - and _")
        if told.size not in self.sizes:
            raise self.error(422, "invalid", "You specified an invalid size for Droplet creation.")
        if told.region not in {region for regions in self.sizes.values() for region in regions}:
            raise self.error(422, "invalid", "You specified an invalid region for Droplet creation.")
        if told.region not in self.sizes[told.size]:
            raise self.shortage("")
        made = self.order(
            name=told.name,
            kind=told.size,
            region=told.region,
            user_data=told.user_data.encode(),
            extra={"tags": told.tags},
        )
        if self.errored:
            self.errored -= 1
            made.state, made.due = "failed", None
        links = {"actions": [{"id": 1, "rel": "create", "href": f"{self.url}/v2/actions/1"}]}
        return Answer(202, {"droplet": self._told(made), "links": links})

    @route("GET", "/v2/droplets", query=("tag_name", "type", "name", "per_page", "page"))
    def droplets(self, ask: Ask[None]) -> object:
        query = ask.query
        if "tag_name" in query and query.keys() & {"type", "name"}:
            raise self.error(422, "invalid", "tag_name can not be combined with type or name")
        gpus = query.get("type") == "gpus"
        found = [each for each in self.shown() if each.kind.startswith("gpu-") == gpus]
        if tag := query.get("tag_name"):
            found = [each for each in found if tag in each.extra.get("tags", ())]
        size, page = min(int(query.get("per_page", 20)), 200), int(query.get("page", 1))
        pages = {}
        if len(found) > size * page:
            pages["next"] = f"{self.url}/v2/droplets?page={page + 1}&per_page={size}"
        some = found[size * (page - 1) : size * page]
        return {
            "droplets": [self._told(each) for each in some],
            "links": {"pages": pages} if pages else {},
            "meta": {"total": len(found)},
        }

    @route("GET", "/v2/droplets/{id}")
    def droplet(self, ask: Ask[None]) -> object:
        return {"droplet": self._told(self.found(ask))}

    @route("GET", "/v2/droplets/{id}/actions", query=("per_page", "page"))
    def actions(self, ask: Ask[None]) -> object:
        machine = self.found(ask)
        status = {"failed": "errored", "starting": "in-progress"}.get(machine.state, "completed")
        return {
            "actions": [{"id": 1, "status": status, "type": "create", "resource_id": int(machine.id)}],
            "links": {},
            "meta": {"total": 1},
        }

    @route("POST", "/v2/droplets/{id}/actions", body=Act)
    def act(self, ask: Ask[Act]) -> object:
        machine = self.found(ask)
        if ask.body.type != "power_on" or machine.state == "starting":
            raise self.error(422, "invalid", "Droplet already has a pending event.")
        self.wake(machine)
        return Answer(201, {"action": {"id": 2, "status": "in-progress", "type": ask.body.type}})

    @route("DELETE", "/v2/droplets/{id}")
    def destroy(self, ask: Ask[None]) -> object:
        self.end(self.found(ask))
        return Answer(204)

    @route("GET", "/v2/account/keys/{key}")
    def key(self, ask: Ask[None]) -> object:
        if ask.parts["key"] not in self.keys:
            raise self.error(404, "not-found", "The resource you were accessing could not be found.")
        return self._told_key(ask.parts["key"])

    @route("POST", "/v2/account/keys", body=AddKey)
    def add_key(self, ask: Ask[AddKey]) -> object:
        text = hashlib.md5(base64.b64decode(ask.body.public_key.split()[1])).digest().hex(":")
        if text in self.keys:
            raise self.error(422, "invalid", "SSH Key is already in use on your account")
        self.keys[text] = ask.body
        return Answer(201, self._told_key(text))

    def _told_key(self, fingerprint: str) -> dict[str, object]:
        key = self.keys[fingerprint]
        told = {"id": 512, "fingerprint": fingerprint, "name": key.name, "public_key": key.public_key}
        return {"ssh_key": told}

    @route("GET", "/v2/account")
    def account(self, ask: Ask[None]) -> object:
        told = {
            "droplet_limit": 25 if self.quota is None else self.quota,
            "floating_ip_limit": 5,
            "email": "a@example.com",
            "email_verified": True,
            "uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef",
            "status": self.status,
            "status_message": "",
        }
        return {"account": told}

    @route("GET", "/v2/sizes", query=("per_page", "page"))
    def list_sizes(self, ask: Ask[None]) -> object:
        sizes = [
            {
                "slug": name,
                "memory": 4096,
                "vcpus": 2,
                "disk": 80,
                "transfer": 4.0,
                "price_monthly": 24.0,
                "price_hourly": 0.03571,
                "regions": list(regions),
                "available": bool(regions),
                "description": "Basic",
            }
            for name, regions in self.sizes.items()
        ]
        return {"sizes": sizes, "links": {}, "meta": {"total": len(sizes)}}

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        started = machine.state not in ("starting", "failed")
        v4 = [
            {"ip_address": machine.ip, "netmask": "255.255.240.0", "gateway": "", "type": kind}
            for kind in ("private", "public")
        ]
        told = {
            "id": int(machine.id),
            "name": machine.name,
            "memory": 4096,
            "vcpus": 2,
            "disk": 80,
            "locked": machine.state == "starting",
            "status": _STATUS[machine.state],
            "created_at": datetime.fromtimestamp(machine.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "features": [],
            "backup_ids": [],
            "snapshot_ids": [],
            "volume_ids": [],
            "size_slug": machine.kind,
            "region": {"slug": machine.region, "name": machine.region, "available": True},
            "networks": {"v4": v4 if started else [], "v6": []},
            "tags": machine.extra.get("tags", []),
            "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000",
        }
        return self.bare(machine, told, "id")
