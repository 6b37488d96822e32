"""Samsung Cloud Platform's API on this machine, as far as it is published: signed requests, virtual servers
in a subnet of a VPC with a gateway, and objects that take a moment to be made."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, Nothing, route

KEY, SECRET, PROJECT = "access-of-the-fake", "secret-of-the-fake", "PROJECT-fake"
ZONE, ZONE_ID = "KOREA-WEST-1-SCP-B001", "ZONE-fake"
_STATE: Final = {"starting": "CREATING", "failed": "ERROR", "ending": "TERMINATING"}
_NAME: Final = re.compile(r"[a-z][a-zA-Z0-9-]{2,27}")
_DISK: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9 -]{2,27}")


class Script(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    encoding_type: str
    initial_script_shell: str
    initial_script_type: str
    initial_script_content: str


class Disk(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    block_storage_name: str
    disk_size: int
    encrypt_enabled: bool
    product_id: str


class Nic(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    nat_enabled: bool
    subnet_id: str


class Create(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    virtual_server_name: str
    service_zone_id: str
    server_type: str
    image_id: str
    contract_id: str
    key_pair_id: str
    initial_script: Script
    block_storage: Disk
    nic: Nic
    security_group_ids: list[str]
    deletion_protection_enabled: bool = False


class AddGroup(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    loggable: bool
    security_group_name: str
    service_zone_id: str
    vpc_id: str
    security_group_description: str = ""


class Ports(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    service_type: str
    service_value: str


class AddRule(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    rule_direction: str
    services: list[Ports]
    source_ip_addresses: list[str] = []
    destination_ip_addresses: list[str] = []
    rule_action: str = ""
    is_rule_enabled: bool = True
    rule_location_type: str = ""
    rule_description: str = ""


class FakeScp(FakeCloud):
    none_left = (500, "common.error", "Insufficient resources for the server type")
    over_limit = (400, "quota", "The quota of virtual servers is exceeded: limit {}")
    missing = "the virtual server does not exist"

    def begin(self) -> None:
        self.types = ("s1v2m4", "g1v16a1")
        self.groups: dict[str, tuple[str, float]] = {}  # name -> (VPC, when it is active)
        self.group_s = 0.0  # how long a group is made
        self.rules: dict[str, list[AddRule]] = {}  # of a group or a firewall
        self.subnets = [("SUBNET-1", "VPC-1", "192.168.0.0/24")]
        self.key_pairs = ["KEY_PAIR-1"]

    def environ(self) -> dict[str, str]:
        told = {"SCP_ACCESS_KEY": KEY, "SCP_SECRET_KEY": SECRET, "SCP_PROJECT_ID": PROJECT}
        return told | {"SCP_API_URL": self.url}

    def new_id(self, number: int) -> str:
        return f"INSTANCE-{number:06d}"

    def serve(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        stamp = headers.get("x-cmp-timestamp", "0")
        message = f"{method}{self.url}{target}{stamp}{KEY}{PROJECT}OpenApi"
        digest = hmac.new(SECRET.encode(), message.encode(), hashlib.sha256).digest()
        fresh = stamp.isdigit() and abs(int(stamp) / 1000 - self.now()) < 900
        good = headers.get("x-cmp-signature") == base64.b64encode(digest).decode() and fresh
        return super().serve(method, target, {**headers, "good": str(good)}, body)

    def knows(self, ask: Ask[Any]) -> bool:
        return ask.headers["good"] == "True" and ask.headers.get("x-cmp-clienttype") == "OpenApi"

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        return Answer(status, {"errorCode": code, "message": text})

    @route("POST", "/virtual-server/v4/virtual-servers", body=Create)
    def create(self, ask: Ask[Create]) -> object:
        told = ask.body
        disk = told.block_storage
        if not _NAME.fullmatch(told.virtual_server_name) or not _DISK.fullmatch(disk.block_storage_name):
            raise self.error(400, "invalid", "a name has 3 to 28 letters, digits and dashes")
        if disk.disk_size < 100 or disk.disk_size % 10:
            raise self.error(400, "invalid", "the OS disk has at least 100 GB, in tens")
        if told.server_type not in self.types or told.image_id not in [each[0] for each in self._images()]:
            raise self.error(400, "invalid", f"server type or image is not valid: {told.server_type}")
        if (
            told.nic.subnet_id not in [each[0] for each in self.subnets]
            or told.key_pair_id not in self.key_pairs
        ):
            raise self.error(400, "invalid", "subnet or key pair is not valid")
        if [
            each for each in told.security_group_ids if each not in [f"GROUP-{name}" for name in self.groups]
        ]:
            raise self.error(400, "invalid", "security group is not valid")
        base64.b64decode(told.initial_script.initial_script_content, validate=True)
        made = self.order(
            name=told.virtual_server_name, kind=told.server_type, region=ZONE, extra={"disk": disk.disk_size}
        )
        return Answer(202, {"requestId": "r-1", "resourceId": made.id})

    @route("GET", "/virtual-server/v2/virtual-servers", query=("page", "size"))
    def servers(self, ask: Ask[None]) -> object:
        found = [self._told(each) for each in self.shown()]
        page, size = int(ask.query.get("page", 0)), int(ask.query.get("size", 20))
        return {"totalCount": len(found), "contents": found[page * size : (page + 1) * size]}

    @route("GET", "/virtual-server/v2/virtual-servers/{id}/nics", query=("size",))
    def nics(self, ask: Ask[None]) -> object:
        machine = self.found(ask)
        nic = {"ip": "192.168.0.5", "subnetType": "PUBLIC", "natIp": machine.ip or None, "nicState": "ACTIVE"}
        return {"totalCount": 1, "contents": [nic]}

    @route("DELETE", "/virtual-server/v2/virtual-servers/{id}")
    def delete(self, ask: Ask[None]) -> object:
        machine = self.found(ask)
        if machine.state == "starting":
            raise self.error(400, "busy", "There is an ongoing request for this virtual server")
        self.end(machine)
        return Answer(202, {"requestId": "r-2", "resourceId": machine.id})

    @route("POST", "/virtual-server/v2/virtual-servers/{id}/stop", body=Nothing)
    def stop(self, ask: Ask[Nothing]) -> object:
        machine = self.found(ask)
        self.rest(machine)
        return Answer(202, {"requestId": "r-3", "resourceId": machine.id})

    @route("POST", "/virtual-server/v2/virtual-servers/{id}/start", body=Nothing)
    def start(self, ask: Ask[Nothing]) -> object:
        machine = self.found(ask)
        self.wake(machine)
        return Answer(202, {"requestId": "r-4", "resourceId": machine.id})

    @route("GET", "/project/v3/projects/{project}/zones", query=("size",))
    def zones(self, ask: Ask[None]) -> object:
        return _contents({"serviceZoneId": ZONE_ID, "serviceZoneName": ZONE, "serviceZoneLocation": "KOREA"})

    @route("GET", "/vpc/v2/vpcs", query=("serviceZoneId", "size"))
    def vpcs(self, ask: Ask[None]) -> object:
        return _contents({"vpcId": "VPC-0", "vpcState": "ERROR"}, {"vpcId": "VPC-1", "vpcState": "ACTIVE"})

    @route("GET", "/internet-gateway/v2/internet-gateways", query=("size",))
    def gateways(self, ask: Ask[None]) -> object:
        return _contents({"vpcId": "VPC-1", "internetGatewayState": "ATTACHED"})

    @route("GET", "/subnet/v2/subnets", query=("subnetTypes", "size"))
    def list_subnets(self, ask: Ask[None]) -> object:
        return _contents(
            *(
                {"subnetId": id, "vpcId": vpc, "subnetState": "ACTIVE", "subnetCidrBlock": cidr}
                for id, vpc, cidr in self.subnets
            )
        )

    @route("GET", "/key-pair/v1/key-pairs", query=("size",))
    def list_key_pairs(self, ask: Ask[None]) -> object:
        return _contents(*({"keyPairId": each, "keyPairName": each} for each in self.key_pairs))

    @route("GET", "/image/v2/standard-images", query=("serviceZoneId", "size"))
    def images(self, ask: Ask[None]) -> object:
        return _contents(
            *({"imageId": id, "imageName": name, "osType": system} for id, name, system in self._images())
        )

    @route("GET", "/security-group/v2/security-groups", query=("vpcId", "securityGroupName", "size"))
    def list_groups(self, ask: Ask[None]) -> object:
        return _contents(
            *(
                {
                    "securityGroupId": f"GROUP-{name}",
                    "securityGroupName": name,
                    "securityGroupState": "ACTIVE" if self.now() >= at_s else "CREATING",
                    "vpcId": vpc,
                }
                for name, (vpc, at_s) in self.groups.items()
                if ask.query.get("securityGroupName", name) == name
            )
        )

    @route("POST", "/security-group/v3/security-groups", body=AddGroup)
    def add_group(self, ask: Ask[AddGroup]) -> object:
        self.groups[ask.body.security_group_name] = (ask.body.vpc_id, self.now() + self.group_s)
        return Answer(202, {"resourceId": f"GROUP-{ask.body.security_group_name}"})

    @route("GET", "/firewall/v2/firewalls", query=("size",))
    def firewalls(self, ask: Ask[None]) -> object:
        return _contents({"firewallId": "FIREWALL-1", "vpcId": "VPC-1", "firewallState": "ACTIVE"})

    @route("GET", "/security-group/v2/security-groups/{id}/rules", query=("size",))
    @route("GET", "/firewall/v2/firewalls/{id}/rules", query=("size",))
    def list_rules(self, ask: Ask[None]) -> object:
        return _contents(
            *(
                {
                    "ruleId": f"RULE-{at}",
                    "ruleDirection": rule.rule_direction,
                    "sourceIpAddresses": rule.source_ip_addresses,
                    "destinationIpAddresses": rule.destination_ip_addresses,
                    "tcpServices": [
                        each.service_value for each in rule.services if each.service_type == "TCP"
                    ],
                }
                for at, rule in enumerate(self.rules.get(ask.parts["id"], ()))
            )
        )

    @route("POST", "/security-group/v2/security-groups/{id}/rules", body=AddRule)
    @route("POST", "/firewall/v2/firewalls/{id}/rules", body=AddRule)
    def add_rule(self, ask: Ask[AddRule]) -> object:
        self.rules.setdefault(ask.parts["id"], []).append(ask.body)
        return Answer(202, {"resourceId": "RULE"})

    def _images(self) -> tuple[tuple[str, str, str], ...]:
        return (
            ("IMAGE-20", "Ubuntu 20.04", "UBUNTU"),
            ("IMAGE-22", "Ubuntu 22.04", "UBUNTU"),
            ("IMAGE-GPU", "Ubuntu 20.04 for GPU", "UBUNTU"),
            ("IMAGE-W", "Windows 2022", "WINDOWS"),
        )

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        told = {
            "virtualServerId": machine.id,
            "virtualServerName": machine.name,
            "virtualServerState": _STATE.get(machine.state, machine.state.upper()),
            "serviceZoneId": ZONE_ID,
            "serverType": machine.kind,
            "ip": "192.168.0.5",
            "createdDt": datetime.fromtimestamp(machine.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        return self.bare(machine, told, "virtualServerId")


def _contents(*found: dict[str, Any]) -> dict[str, object]:
    return {"totalCount": len(found), "contents": list(found)}
