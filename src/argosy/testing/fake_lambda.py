"""The Lambda Cloud API on this machine, as its OpenAPI 1.10 says, with its limits of calls."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.testing.fake_cloud import AddKey, Answer, Ask, FakeCloud, FakeMachine, route

KEY: Final = "secret_fake_key.of-the-fake"
_STATUS: Final = {"starting": "booting", "running": "active", "ending": "terminating"}


class _Tag(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    value: str


class Launch(msgspec.Struct, forbid_unknown_fields=True):
    region_name: str
    instance_type_name: str
    ssh_key_names: list[str]
    name: str = ""
    hostname: str = ""
    image: dict[str, str] = {}
    user_data: str = ""
    tags: list[_Tag] = []
    firewall_rulesets: list[dict[str, str]] = []
    file_system_names: list[str] = []


class Terminate(msgspec.Struct, forbid_unknown_fields=True):
    instance_ids: list[str]


class FakeLambda(FakeCloud):
    bearer = KEY
    over_limit = (400, "global/quota-exceeded", "Quota exceeded: limit {}")

    def begin(self) -> None:
        self.types = {"gpu_1x_a10": ("us-east-1", "us-west-1"), "gpu_8x_h100_sxm5": ("us-west-1",)}
        self.keys: list[AddKey] = []

    def environ(self) -> dict[str, str]:
        return {"LAMBDA_API_KEY": KEY, "LAMBDA_API_URL": self.url}

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        codes = {
            "unauthorized": "global/invalid-api-key",
            "not-found": "global/object-does-not-exist",
            "invalid": "global/invalid-parameters",
            "rate": "global/too-many-requests",
        }
        return Answer(status, {"error": {"code": codes.get(code, code), "message": text, "suggestion": ""}})

    def shortage(self, text: str) -> Answer:
        code = "instance-operations/launch/insufficient-capacity"
        return self.error(400, code, "Not enough capacity to fulfill launch request.")

    @route("POST", "/api/v1/instance-operations/launch", body=Launch)
    def launch(self, ask: Ask[Launch]) -> object:
        told = ask.body
        if [each for each in told.ssh_key_names if each not in {key.name for key in self.keys}]:
            raise self.error(404, "not-found", "Specified SSH key does not exist.")
        if len(told.ssh_key_names) != 1 or len(told.name) > 64 or told.instance_type_name not in self.types:
            raise self.error(400, "invalid", f"Invalid request: {told.instance_type_name}")
        if told.region_name not in self.types[told.instance_type_name]:
            raise self.shortage("")
        made = self.order(
            name=told.name,
            kind=told.instance_type_name,
            region=told.region_name,
            labels={each.key: each.value for each in told.tags},
            user_data=told.user_data.encode(),
        )
        return {"data": {"instance_ids": [made.id]}}

    @route("POST", "/api/v1/instance-operations/terminate", body=Terminate)
    def terminate(self, ask: Ask[Terminate]) -> object:
        found = [self.find(each) for each in ask.body.instance_ids]
        if None in found:
            raise self.error(404, "not-found", "Specified instance does not exist.")
        ended = [each for each in found if each is not None]
        for each in ended:
            self.end(each)
        return {"data": {"terminated_instances": [self._told(each) for each in ended]}}

    @route("GET", "/api/v1/instances")
    def instances(self, ask: Ask[None]) -> object:
        return {"data": [self._told(each) for each in self.shown()]}

    @route("GET", "/api/v1/ssh-keys")
    def ssh_keys(self, ask: Ask[None]) -> object:
        return {
            "data": [
                {"id": each.name, "name": each.name, "public_key": each.public_key} for each in self.keys
            ]
        }

    @route("POST", "/api/v1/ssh-keys", body=AddKey)
    def add_key(self, ask: Ask[AddKey]) -> object:
        self.keys.append(ask.body)
        return {"data": {"id": ask.body.name, "name": ask.body.name, "public_key": ask.body.public_key}}

    @route("GET", "/api/v1/instance-types")
    def instance_types(self, ask: Ask[None]) -> object:
        return {
            "data": {
                name: {
                    "instance_type": {
                        "name": name,
                        "description": name,
                        "gpu_description": name,
                        "price_cents_per_hour": 75,
                        "specs": {"vcpus": 30, "memory_gib": 200, "storage_gib": 1400, "gpus": 1},
                    },
                    "regions_with_capacity_available": [
                        {"name": region, "description": region}
                        for region in regions
                        if self.capacity.get((name, ""), 1)
                    ],
                }
                for name, regions in self.types.items()
            }
        }

    def _told(self, machine: FakeMachine) -> dict[str, object]:
        told: dict[str, object] = {
            "id": machine.id,
            "name": machine.name,
            "status": _STATUS.get(machine.state, machine.state),
            "region": {"name": machine.region, "description": machine.region},
            "instance_type": {"name": machine.kind},
            "ssh_key_names": ["argosy"],
            "file_system_names": [],
            "actions": {},
            "tags": [{"key": key, "value": value} for key, value in machine.labels.items()],
        }
        return told | ({"ip": machine.ip, "private_ip": machine.ip} if machine.state == "running" else {})
