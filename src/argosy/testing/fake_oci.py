"""OCI's Compute, networking and identity on this machine, for one tenancy: signatures are checked with the
public key, retry tokens make an order once, listings come in pages of which the first may be empty."""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, route

TENANCY: Final = "ocid1.tenancy.oc1..fake"
USER: Final = "ocid1.user.oc1..fake"
PRINT: Final = "20:3b:97:13"
_AT: Final = "/{service}/{region}/20160918"
_STATE: Final = {
    "starting": "PROVISIONING", "running": "RUNNING", "stopping": "STOPPING", "stopped": "STOPPED",
    "ending": "TERMINATING", "ended": "TERMINATED", "preempted": "TERMINATED",
}  # fmt: skip
_CODES: Final = {
    "unauthorized": "NotAuthenticated", "not-found": "NotAuthorizedOrNotFound", "invalid": "InvalidParameter",
    "rate": "TooManyRequests",
}  # fmt: skip
_PAGE: Final = ("compartmentId", "limit", "page", "displayName", "vcnId")


class _Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    pass


class ShapeConfig(_Strict):
    ocpus: int
    memory_in_g_bs: int = msgspec.field(name="memoryInGBs")


class Source(_Strict):
    source_type: str
    image_id: str
    boot_volume_size_in_g_bs: int = msgspec.field(name="bootVolumeSizeInGBs", default=50)
    boot_volume_vpus_per_g_b: int = msgspec.field(name="bootVolumeVpusPerGB", default=10)


class CardOrder(_Strict):
    subnet_id: str
    assign_public_ip: bool = True
    hostname_label: str = ""


class Action(_Strict):
    type: str
    preserve_boot_volume: bool = False


class Preemptible(_Strict):
    preemption_action: Action


class Launch(_Strict):
    compartment_id: str
    availability_domain: str
    shape: str
    display_name: str
    metadata: dict[str, str]
    source_details: Source
    create_vnic_details: CardOrder
    freeform_tags: dict[str, str] = {}
    shape_config: ShapeConfig | None = None
    preemptible_instance_config: Preemptible | None = None


class Thing(_Strict):
    """A VCN, gateway or subnet."""

    compartment_id: str
    display_name: str
    cidr_blocks: list[str] = []
    cidr_block: str = ""
    dns_label: str = ""
    vcn_id: str = ""
    is_enabled: bool = True


class Routes(_Strict):
    route_rules: list[dict[str, str]]


class Rules(_Strict):
    egress_security_rules: list[dict[str, Any]]
    ingress_security_rules: list[dict[str, Any]]


class Wanted(_Strict):
    instance_shape: str
    instance_shape_config: ShapeConfig | None = None


class Capacity(_Strict):
    compartment_id: str
    availability_domain: str
    shape_availabilities: list[Wanted]


@cache
def _key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    return generate_private_key(public_exponent=65537, key_size=2048)


class FakeOci(FakeCloud):
    none_left = (500, "InternalError", "Out of host capacity.")
    over_limit = (400, "LimitExceeded", "The following service limits were exceeded: limit {}.")

    def begin(self) -> None:
        self.subscribed = ["eu-frankfurt-1", "us-ashburn-1"]
        self.things: dict[str, tuple[str, Thing]] = {}  # id -> (path, what was asked)
        self.rules: dict[str, object] = {}  # of route tables and security lists, by id
        self.tokens: dict[str, object] = {}
        self.reports = True  # whether capacity reports may be asked for
        self._folders: list[tempfile.TemporaryDirectory[str]] = []  # they go with the fake

    def environ(self) -> dict[str, str]:
        """The configuration file is made anew in a folder of its own."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        self._folders.append(tempfile.TemporaryDirectory(prefix="argosy-oci-"))
        folder = Path(self._folders[-1].name)
        pem = _key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "key.pem").write_bytes(pem)
        (folder / "config").write_text(
            f"[DEFAULT]\nuser={USER}\nfingerprint={PRINT}\ntenancy={TENANCY}\nregion=eu-frankfurt-1\n"
            f"key_file={folder}/key.pem\n"
        )
        return {"OCI_CONFIG_FILE": str(folder / "config"), "OCI_API_URL": self.url}

    def knows(self, ask: Ask[Any]) -> bool:
        """Checks the signature over exactly the headers that it names."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        told = dict(re.findall(r'(\w+)="([^"]*)"', ask.headers.get("authorization", "")))
        if told.get("keyId") != f"{TENANCY}/{USER}/{PRINT}" or told.get("algorithm") != "rsa-sha256":
            return False
        names = told["headers"].split()
        has_body = ask.method in ("POST", "PUT")
        needed = {"date", "(request-target)", "host"} | (
            {"x-content-sha256", "content-length"} if has_body else set()
        )
        if not needed <= set(names):
            return False
        digest = base64.b64encode(hashlib.sha256(ask.body).digest()).decode()
        if has_body and ask.headers.get("x-content-sha256") != digest:
            return False
        values = {**ask.headers, "(request-target)": f"{ask.method.lower()} {ask.target}"}
        text = "\n".join(f"{name}: {values.get(name, '')}" for name in names)
        try:
            signature = base64.b64decode(told["signature"])
            _key().public_key().verify(signature, text.encode(), PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError):
            return False
        return True

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        return Answer(status, {"code": _CODES.get(code, code), "message": text})

    def _once(self, ask: Ask[Any], make: Any) -> object:
        token = ask.headers.get("opc-retry-token", "")
        if not token:
            return make()
        if token not in self.tokens:
            self.tokens[token] = make()
        return self.tokens[token]

    def _page(self, ask: Ask[Any], rows: list[object]) -> Answer:
        """The first page of a listing of instances is empty, and others follow."""
        at = int(ask.query.get("page", "0"))
        limit = int(ask.query.get("limit", "100"))
        if "page" not in ask.query and rows:
            return Answer(200, [], {"opc-next-page": "0"})
        more = {"opc-next-page": str(at + limit)} if at + limit < len(rows) else {}
        return Answer(200, rows[at : at + limit], more)

    # -- identity -------------------------------------------------------------------------------------------

    @route("GET", f"{_AT}/tenancies/{{tenancy}}/regionSubscriptions")
    def region_subscriptions(self, ask: Ask[None]) -> object:
        return [{"regionName": each, "status": "READY", "isHomeRegion": False} for each in self.subscribed]

    @route("GET", f"{_AT}/availabilityDomains", query=("compartmentId",))
    def availability_domains(self, ask: Ask[None]) -> object:
        region = ask.parts["region"].upper()
        return [{"name": f"Uocm:{region}-AD-{n}", "compartmentId": TENANCY} for n in (1, 2)]

    # -- machines -------------------------------------------------------------------------------------------

    @route("POST", f"{_AT}/instances", body=Launch)
    def launch(self, ask: Ask[Launch]) -> object:
        told = ask.body
        if not told.shape.startswith(("VM.", "BM.")):
            raise self.error(400, "InvalidParameter", f"Shape {told.shape} is not valid.")
        if len(base64.b64decode(told.metadata["user_data"])) > 32_000:
            raise self.error(400, "InvalidParameter", "Metadata is too large.")
        if told.create_vnic_details.subnet_id not in self.things:
            raise self.error(404, "not-found", "Subnet not found.")
        return self._once(ask, lambda: self._told(self._launched(ask.parts["region"], told)))

    def _launched(self, region: str, told: Launch) -> FakeMachine:
        return self.order(
            name=told.display_name,
            kind=told.shape,
            region=region,
            zone=told.availability_domain,
            labels=told.freeform_tags,
            user_data=base64.b64decode(told.metadata["user_data"]),
            spot=told.preemptible_instance_config is not None,
            extra={"disk_gb": told.source_details.boot_volume_size_in_g_bs},
        )

    @route("GET", f"{_AT}/instances", query=_PAGE)
    def instances(self, ask: Ask[None]) -> object:
        shown = self.shown() + self.machines("ended", "preempted")
        rows = {each.id: self._told(each) for each in shown if each.region == ask.parts["region"]}
        return self._page(ask, list(rows.values()))

    @route(
        "DELETE",
        f"{_AT}/instances/{{id}}",
        query=("preserveBootVolume", "preserveDataVolumesCreatedAtLaunch"),
    )
    def terminate(self, ask: Ask[None]) -> object:
        machine = self._machine(ask)
        if ask.query.get("preserveBootVolume") != "false":
            raise self.error(400, "InvalidParameter", "a disk would stay")
        self.end(machine)
        return Answer(204)

    @route("POST", f"{_AT}/instances/{{id}}", query=("action",))
    def act(self, ask: Ask[None]) -> object:
        machine = self._machine(ask)
        (self.rest if "STOP" in ask.query["action"] else self.wake)(machine)
        return self._told(machine)

    def _machine(self, ask: Ask[Any]) -> FakeMachine:
        found = self.find(ask.parts["id"])
        if found is None or found.region != ask.parts["region"]:
            raise self.error(404, "not-found", "Authorization failed or requested resource not found.")
        return found

    def _told(self, machine: FakeMachine) -> dict[str, object]:
        told: dict[str, object] = {
            "id": machine.id,
            "displayName": machine.name,
            "compartmentId": TENANCY,
            "availabilityDomain": machine.zone,
            "lifecycleState": _STATE[machine.state],
            "shape": machine.kind,
            "freeformTags": dict(machine.labels),
            "timeCreated": datetime.fromtimestamp(machine.created_s, UTC).isoformat(),
            "region": machine.region,
        }
        if machine.spot:
            told["preemptibleInstanceConfig"] = {"preemptionAction": {"type": "TERMINATE"}}
        return told

    @route("GET", f"{_AT}/vnicAttachments", query=_PAGE)
    def vnic_attachments(self, ask: Ask[None]) -> object:
        rows: list[object] = [
            {"instanceId": each.id, "lifecycleState": "ATTACHED", "vnicId": f"vnic-{each.id}"}
            for each in self.shown()
            if each.region == ask.parts["region"]
        ]
        return self._page(ask, rows)

    @route("GET", f"{_AT}/vnics/{{id}}")
    def vnic(self, ask: Ask[None]) -> object:
        machine = self.find(ask.parts["id"].removeprefix("vnic-"))
        if machine is None:
            raise self.error(404, "not-found", "not found")
        return {"id": ask.parts["id"], "privateIp": machine.ip, "publicIp": machine.ip}

    @route("POST", f"{_AT}/computeCapacityReports", body=Capacity)
    def capacity_report(self, ask: Ask[Capacity]) -> object:
        if not self.reports:
            raise self.error(404, "not-found", "Authorization failed or requested resource not found.")
        rows = []
        for each in ask.body.shape_availabilities:
            left = self.capacity.get((each.instance_shape, ""), 1)
            status = "AVAILABLE" if left else "OUT_OF_HOST_CAPACITY"
            rows.append({"instanceShape": each.instance_shape, "availabilityStatus": status})
        return {"shapeAvailabilities": rows, "availabilityDomain": ask.body.availability_domain}

    @route("GET", f"{_AT}/images", query=(*_PAGE, "operatingSystem", "shape", "sortBy", "sortOrder"))
    def images(self, ask: Ask[None]) -> object:
        system = ask.query["operatingSystem"].replace(" ", "-")
        gpu = "-Gen2-GPU" if "GPU" in ask.query["shape"] and "Oracle" in system else ""
        return self._page(ask, [{"id": f"ocid1.image.{system}", "displayName": f"{system}-9{gpu}-2026.10"}])

    # -- networks -------------------------------------------------------------------------------------------

    @route("GET", f"{_AT}/vcns", query=_PAGE)
    @route("GET", f"{_AT}/internetGateways", query=_PAGE)
    @route("GET", f"{_AT}/subnets", query=_PAGE)
    def list_things(self, ask: Ask[None]) -> object:
        kind = ask.path.rpartition("/")[2]
        rows: list[object] = [
            self._shown(id, asked)
            for id, (path, asked) in self.things.items()
            if path == f"{ask.parts['region']}/{kind}" and asked.display_name == ask.query.get("displayName")
        ]
        return self._page(ask, rows)

    @route("POST", f"{_AT}/vcns", body=Thing)
    @route("POST", f"{_AT}/internetGateways", body=Thing)
    @route("POST", f"{_AT}/subnets", body=Thing)
    def make_thing(self, ask: Ask[Thing]) -> object:
        kind = ask.path.rpartition("/")[2]

        def make() -> object:
            id = f"ocid1.{kind}.{len(self.things)}"
            self.things[id] = (f"{ask.parts['region']}/{kind}", ask.body)
            return self._shown(id, ask.body)

        return self._once(ask, make)

    def _shown(self, id: str, asked: Thing) -> dict[str, object]:
        return {
            "id": id,
            "displayName": asked.display_name,
            "vcnId": asked.vcn_id,
            "defaultRouteTableId": f"routes-{id}",
            "defaultSecurityListId": f"rules-{id}",
        }

    @route("PUT", f"{_AT}/routeTables/{{id}}", body=Routes)
    def set_routes(self, ask: Ask[Routes]) -> object:
        self.rules[ask.parts["id"]] = ask.body
        return {"id": ask.parts["id"]}

    @route("PUT", f"{_AT}/securityLists/{{id}}", body=Rules)
    def set_rules(self, ask: Ask[Rules]) -> object:
        self.rules[ask.parts["id"]] = ask.body
        return {"id": ask.parts["id"]}
