"""IBM Cloud's VPC service and its tokens on this machine: names that are unique in a region, listings in
pages, floating IPs that outlive their machines."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, route

KEY: Final = "api-key-of-the-fake"
_TOKEN: Final = "token-of-the-fake"
_QUERY: Final = ("version", "generation", "limit", "start", "visibility")
_CODES: Final = {
    "unauthorized": "not_authorized", "not-found": "not_found", "invalid": "bad_field",
    "rate": "too_many_requests",
}  # fmt: skip
_STATUS: Final = {"ending": "deleting"}


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Id(_Strict):
    id: str


class Name(_Strict):
    name: str


class Volume(_Strict):
    capacity: int
    profile: Name


class Boot(_Strict):
    delete_volume_on_instance_delete: bool
    volume: Volume


class Card(_Strict):
    name: str
    subnet: Id
    security_groups: list[Id] = []


class Create(_Strict):
    name: str
    profile: Name
    zone: Name
    image: Id
    vpc: Id
    keys: list[Id]
    primary_network_interface: Card
    user_data: str = ""
    boot_volume_attachment: Boot | None = None
    resource_group: Id | None = None
    availability: dict[str, str] = {}
    availability_policy: dict[str, str] = {}


class Thing(_Strict):
    """A VPC, a subnet or a key."""

    name: str
    resource_group: Id | None = None
    vpc: Id | None = None
    zone: Name | None = None
    total_ipv4_address_count: int = 0
    ip_version: str = ""
    public_key: str = ""
    type: str = ""


class Address(_Strict):
    name: str
    target: Id
    resource_group: Id | None = None


class Rule(_Strict):
    direction: str
    ip_version: str
    protocol: str
    port_min: int
    port_max: int
    remote: dict[str, str]


class Act(_Strict):
    type: str
    force: bool = False


class FakeIbm(FakeCloud):
    none_left = (409, "insufficient_capacity", "There is no capacity for {}")
    over_limit = (400, "over_quota", "The quota of instances is reached: limit {}")

    def begin(self) -> None:
        self.things: dict[str, tuple[str, Thing]] = {}  # id -> (region and kind, what was asked)
        self.rules: list[Rule] = []
        self.addresses: dict[str, tuple[str, Address]] = {}  # id -> (region, what was asked)
        self.reasons: dict[str, list[dict[str, str]]] = {}  # of machines

    def environ(self) -> dict[str, str]:
        return {"IBMCLOUD_API_KEY": KEY, "IBMCLOUD_API_URL": self.url}

    def knows(self, ask: Ask[Any]) -> bool:
        named = {"version", "generation"} <= ask.query.keys()
        return named and ask.headers.get("authorization") == f"Bearer {_TOKEN}"

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        return Answer(status, {"errors": [{"code": _CODES.get(code, code), "message": text}], "trace": "t"})

    def preempt(self, machine: FakeMachine) -> None:
        super().preempt(machine)
        self.reasons[machine.id] = [{"code": "stopped_by_preemption", "message": "Stopped by preemption"}]

    @route("POST", "/iam/identity/token", body=bytes, open=True)
    def token(self, ask: Ask[bytes]) -> object:
        told = dict(parse_qsl(ask.body.decode()))
        if self.expired or told.get("apikey") != KEY or not told["grant_type"].endswith("apikey"):
            raise Answer(
                400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}
            )
        return {"access_token": _TOKEN, "expires_in": 3600, "token_type": "Bearer"}

    def _page(self, ask: Ask[Any], field: str, rows: list[dict[str, Any]]) -> object:
        at, limit = int(ask.query.get("start", "0")), min(int(ask.query.get("limit", "50")), 3)
        page: dict[str, Any] = {field: rows[at : at + limit], "limit": limit, "total_count": len(rows)}
        if at + limit < len(rows):
            page["next"] = {"href": f"{self.url}{ask.path}?limit={limit}&start={at + limit}"}
        return page

    # -- machines -------------------------------------------------------------------------------------------

    @route("POST", "/{region}/v1/instances", body=Create, query=_QUERY)
    def create(self, ask: Ask[Create]) -> object:
        told, region = ask.body, ask.parts["region"]
        if any(each.name == told.name for each in self.shown() if each.region == region):
            raise self.error(
                400, "validation_unique_failed", f"An instance named {told.name} already exists."
            )
        if len(told.name) > 63 or not told.zone.name.startswith(region):
            raise self.error(400, "invalid", "The name or the zone is not valid.")
        if not re.fullmatch(r"\w+(-\w+)*-\d+x\d+.*", told.profile.name):
            raise self.error(404, "not-found", "The instance profile was not found.")
        for each in (told.vpc, told.primary_network_interface.subnet, *told.keys):
            if each.id not in self.things:
                raise self.error(404, "not-found", f"{each.id} was not found")
        made = self.order(
            name=told.name,
            kind=told.profile.name,
            region=region,
            zone=told.zone.name,
            user_data=told.user_data.encode(),
            spot=told.availability.get("class") == "spot",
        )
        return Answer(201, self._told(made))

    @route("GET", "/{region}/v1/instances", query=_QUERY)
    def instances(self, ask: Ask[None]) -> object:
        shown = [*self.shown(), *self.machines("preempted")]
        rows = {each.id: self._told(each) for each in shown if each.region == ask.parts["region"]}
        return self._page(ask, "instances", list(rows.values()))

    @route("DELETE", "/{region}/v1/instances/{id}", query=_QUERY)
    def delete(self, ask: Ask[None]) -> object:
        self.end(self._machine(ask))
        return Answer(204)

    @route("POST", "/{region}/v1/instances/{id}/actions", body=Act, query=_QUERY)
    def act(self, ask: Ask[Act]) -> object:
        (self.rest if ask.body.type == "stop" else self.wake)(self._machine(ask))
        return Answer(201, {"id": "action", "type": ask.body.type})

    def _machine(self, ask: Ask[Any]) -> FakeMachine:
        found = self.find(ask.parts["id"])
        if found is None or found.region != ask.parts["region"]:
            raise self.error(404, "not-found", "Instance not found")
        return found

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        status = "stopped" if machine.state == "preempted" else machine.state
        return {
            "id": machine.id,
            "name": machine.name,
            "status": _STATUS.get(status, status),
            "status_reasons": self.reasons.get(machine.id, []),
            "zone": {"name": machine.zone},
            "profile": {"name": machine.kind},
            "created_at": datetime.fromtimestamp(machine.created_s, UTC).isoformat(),
            "availability_class": "spot" if machine.spot else "standard",
            "primary_network_interface": {"id": f"nic-{machine.id}", "primary_ip": {"address": machine.ip}},
        }

    # -- what stands beside them ----------------------------------------------------------------------------

    @route("POST", "/{region}/v1/floating_ips", body=Address, query=_QUERY)
    def make_address(self, ask: Ask[Address]) -> object:
        if any(asked.name == ask.body.name for _, asked in self.addresses.values()):
            raise self.error(400, "validation_unique_failed", f"{ask.body.name} already exists.")
        id = f"fip-{len(self.called('make_address'))}"
        self.addresses[id] = (ask.parts["region"], ask.body)
        return Answer(201, self._address(id))

    @route("GET", "/{region}/v1/floating_ips", query=_QUERY)
    def list_addresses(self, ask: Ask[None]) -> object:
        ids = [id for id, (region, _) in self.addresses.items() if region == ask.parts["region"]]
        return self._page(ask, "floating_ips", [self._address(id) for id in ids])

    @route("DELETE", "/{region}/v1/floating_ips/{id}", query=_QUERY)
    def drop_address(self, ask: Ask[None]) -> object:
        if self.addresses.pop(ask.parts["id"], None) is None:
            raise self.error(404, "not-found", "Floating IP not found")
        return Answer(204)

    def _address(self, id: str) -> dict[str, Any]:
        asked = self.addresses[id][1]
        machine = self.made.get(asked.target.id.removeprefix("nic-"))
        return {"id": id, "name": asked.name, "address": machine.ip if machine is not None else ""}

    @route("GET", "/{region}/v1/vpcs", query=_QUERY)
    @route("GET", "/{region}/v1/subnets", query=_QUERY)
    @route("GET", "/{region}/v1/keys", query=_QUERY)
    def list_things(self, ask: Ask[None]) -> object:
        kind = ask.path.rpartition("/")[2]
        at = f"{ask.parts['region']}/{kind}"
        return self._page(
            ask, kind, [self._thing(id) for id, (place, _) in self.things.items() if place == at]
        )

    @route("GET", "/{region}/v1/vpcs/{id}", query=_QUERY)
    @route("GET", "/{region}/v1/subnets/{id}", query=_QUERY)
    @route("GET", "/{region}/v1/keys/{id}", query=_QUERY)
    def show_thing(self, ask: Ask[None]) -> object:
        return self._thing(ask.parts["id"])

    @route("POST", "/{region}/v1/vpcs", body=Thing, query=_QUERY)
    @route("POST", "/{region}/v1/subnets", body=Thing, query=_QUERY)
    @route("POST", "/{region}/v1/keys", body=Thing, query=_QUERY)
    def make_thing(self, ask: Ask[Thing]) -> object:
        kind = ask.path.rpartition("/")[2]
        at = f"{ask.parts['region']}/{kind}"
        if any(place == at and asked.name == ask.body.name for place, asked in self.things.values()):
            raise self.error(400, "validation_unique_failed", f"{ask.body.name} already exists.")
        id = f"{kind}-{len(self.things)}"
        self.things[id] = (at, ask.body)
        return Answer(201, self._thing(id))

    def _thing(self, id: str) -> dict[str, Any]:
        return {
            "id": id,
            "name": self.things[id][1].name,
            "default_security_group": {"id": "sg", "name": "sg"},
        }

    @route("POST", "/{region}/v1/security_groups/{id}/rules", body=Rule, query=_QUERY)
    def make_rule(self, ask: Ask[Rule]) -> object:
        if ask.body in self.rules:
            raise self.error(400, "duplicate_rule", "A duplicate rule was given.")
        self.rules.append(ask.body)
        return Answer(201, {"id": "rule"})

    @route("GET", "/{region}/v1/images", query=_QUERY)
    def images(self, ask: Ask[None]) -> object:
        names = [
            "ibm-centos-9-amd64-1",
            "ibm-ubuntu-22-04-4-minimal-amd64-3",
            "ibm-ubuntu-24-04-2-minimal-amd64-5",
        ]
        return self._page(ask, "images", [{"id": f"r-{name}", "name": name} for name in names])
