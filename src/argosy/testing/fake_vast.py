"""Vast.ai's API on this machine, as its SDK 1.9 speaks it: offers that are taken, bids, containers, paging by
tokens."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from argosy.testing.container_hosts import user_data_of
from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, Nothing, Shortage, route

KEY: Final = "fakekeyofthefake0123456789abcdef"
_OPERATORS: Final = {
    "eq": lambda value, wanted: value == wanted,
    "gte": lambda value, wanted: value >= wanted,
}
_FIELDS: Final = frozenset(
    (
        "verified",
        "external",
        "rentable",
        "rented",
        "reliability2",
        "direct_port_count",
        "gpu_name",
        "num_gpus",
        "datacenter",
    )
)


class Rent(msgspec.Struct, forbid_unknown_fields=True):
    client_id: str
    image: str
    env: dict[str, str] = {}
    disk: float = 10
    price: float | None = None
    label: str | None = None
    onstart: str | None = None
    runtype: str = "ssh"
    args: list[str] = []
    image_login: str | None = None
    extra: str | None = None
    user: str | None = None
    python_utf8: bool = False
    lang_utf8: bool = False
    use_jupyter_lab: bool = False
    jupyter_dir: str | None = None
    force: bool = False
    cancel_unavail: bool = False
    template_hash_id: str | None = None
    volume_info: dict[str, Any] = {}


class Change(msgspec.Struct, forbid_unknown_fields=True):
    state: str


def an_ask(id: int, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "gpu_name": "RTX 4090",
        "num_gpus": 1,
        "dph_total": 0.4,
        "min_bid": 0.2,
        "gpu_ram": 24564,
        "cpu_cores": 16,
        "cpu_cores_effective": 16.0,
        "cpu_ram": 65536,
        "geolocation": "Sweden, SE, EU",
        "verified": True,
        "external": False,
        "rentable": True,
        "rented": False,
        "reliability2": 0.99,
        "direct_port_count": 20,
        "datacenter": False,
    } | more


class FakeVast(FakeCloud):
    """`asks`: what hosts offer, by id; one that is taken is gone. `outbid`: bids up to it make a container
    that stands still."""

    bearer = KEY
    none_left = (400, "no_such_ask", "error 404/3603: no_such_ask Instance type is not available.")
    over_limit = (400, "insufficient_credit", "Your account lacks credit; see the billing page.")

    def begin(self) -> None:
        self.asks = {1000 + number: an_ask(1000 + number) for number in range(40)}
        self.outbid = 0.0
        self.credit = 12.3

    def environ(self) -> dict[str, str]:
        return {"VAST_API_KEY": KEY, "ARGOSY_VAST_URL": self.url}

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        codes = {"unauthorized": "auth_error", "invalid": "invalid_args", "rate": "rate_limit"}
        return Answer(status, {"success": False, "error": codes.get(code, code), "msg": text})

    @route("GET", "/api/v0/users/current/")
    def user(self, ask: Ask[None]) -> object:
        return {"id": 7, "email": "a@example.com", "credit": self.credit, "balance": 0}

    @route("POST", "/api/v0/bundles/", body=dict[str, Any])
    def bundles(self, ask: Ask[dict[str, Any]]) -> object:
        query = dict(ask.body)
        kind, limit = query.pop("type", "on-demand"), query.pop("limit", 64)
        query.pop("order", None)
        query.pop("allocated_storage", None)
        if kind not in ("on-demand", "bid", "reserved") or not isinstance(limit, int):
            raise self.error(400, "invalid", f"unknown type of offer: {kind}")
        if unknown := query.keys() - _FIELDS:
            raise self.error(400, "invalid", f"unknown field: {sorted(unknown)[0]}")
        taken = {each.extra.get("ask") for each in self.machines()}
        found = [
            each
            for each in self.asks.values()
            if each["id"] not in taken
            and all(
                _OPERATORS[name](each[field], value)
                for field, wanted in query.items()
                for name, value in wanted.items()
            )
        ]
        return {"success": True, "offers": found[:limit]}

    def new_id(self, number: int) -> str:
        return str(7_000_000 + number)

    @route("PUT", "/api/v0/asks/{id}/", body=Rent)
    def rent(self, ask: Ask[Rent]) -> object:
        told, id = ask.body, int(ask.parts["id"]) if ask.parts["id"].isdigit() else 0
        offer = self.asks.get(id)
        if offer is None or id in {each.extra.get("ask") for each in self.machines()}:
            raise Shortage(str(id))
        if told.client_id != "me" or not told.image or told.runtype not in ("args", "ssh", "ssh_direct"):
            raise self.error(400, "invalid", "the request is not valid")
        made = self.order(
            name=told.label or "",
            kind=f"{offer['num_gpus']}x {offer['gpu_name']}",
            region=offer["geolocation"],
            labels={"argosy-claim": told.env["ARGOSY_CLAIM"]} if "ARGOSY_CLAIM" in told.env else {},
            user_data=user_data_of(told.env),
            spot=told.price is not None,
            extra={"ask": id, "env": told.env, "image": told.image, "args": told.args, "disk": told.disk},
        )
        if told.price is not None and told.price <= self.outbid:
            made.state, made.due = "preempted", None
            answer = self.error(400, "bid_too_low", "your bid is below the highest one")
            assert isinstance(answer.body, dict)
            answer.body["new_contract"] = int(made.id)
            return answer
        return {"success": True, "new_contract": int(made.id)}

    @route("GET", "/api/v1/instances/", query=("limit", "order_by", "select_filters", "after_token"))
    def instances(self, ask: Ask[None]) -> object:
        limit = int(ask.query.get("limit", "25"))
        if not 1 <= limit <= 25:
            raise self.error(400, "invalid", "limit: 1 to 25")
        shown = [each for each in self.shown() if each.state != "ending"]
        after = int(ask.query.get("after_token") or 0)
        page = [each for each in shown if int(each.id) > after][: min(limit, 2)]
        more = bool(page) and shown[-1] is not page[-1]
        return {
            "success": True,
            "instances": [self._told(each) for each in page],
            "next_token": page[-1].id if more else None,
            "total_instances": len(shown),
        }

    @route("DELETE", "/api/v0/instances/{id}/", body=Nothing)
    def destroy(self, ask: Ask[Nothing]) -> object:
        machine = self._found(ask)
        if machine.state in ("preempted", "failed"):
            machine.state = "stopped"
        self.end(machine)
        return {"success": True}

    @route("PUT", "/api/v0/instances/{id}/", body=Change)
    def change(self, ask: Ask[Change]) -> object:
        machine = self._found(ask)
        if ask.body.state == "stopped":
            self.rest(machine)
        elif ask.body.state == "running":
            if machine.extra.get("gpu_away"):
                text = "Required resources are currently unavailable, state change queued."
                return {"success": False, "error": "resources_unavailable", "msg": text}
            self.wake(machine)
        else:
            raise self.error(400, "invalid", f"unknown state: {ask.body.state}")
        return {"success": True}

    def _found(self, ask: Ask[Any]) -> FakeMachine:
        machine = self.find(ask.parts["id"])
        if machine is None:
            raise self.error(404, "no_such_instance", "Instance not found.")
        return machine

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        stands = machine.state in ("stopping", "stopped", "preempted")
        running = machine.state == "running"
        port = str(machine.extra.get("port", 22))
        return {
            "id": int(machine.id),
            "label": machine.name or None,
            "actual_status": "running" if running else "exited" if stands else "loading",
            "intended_status": "stopped" if stands else "running",
            "cur_state": "stopped" if machine.state in ("stopped", "preempted") else "running",
            "next_state": "stopped" if stands else "running",
            "status_msg": machine.extra.get("message"),
            "public_ipaddr": f"{machine.ip}\n" if machine.ip else None,
            "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": port}]} if running else None,
            "extra_env": [[key, value] for key, value in machine.extra.get("env", {}).items()],
            "is_bid": machine.spot,
            "start_date": machine.created_s,
            "machine_id": 1,
            "num_gpus": 1,
            "gpu_name": "RTX 4090",
        }
