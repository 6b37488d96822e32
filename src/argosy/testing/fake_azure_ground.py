"""The ground of the fake Azure: its own words, who asks, pages, operations, resource groups, networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from argosy.testing.fake_azure_bodies import AvailabilitySet, Group, Placement, SecurityGroup, VirtualNetwork
from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, route

SUBSCRIPTION: Final = "5eb5c219-0000-4000-8000-00000000a2a2"
TENANT, CLIENT, SECRET = "7e4a4700-fake", "c11e4700-fake", "s3cret~of-the-fake"
TOKEN: Final = "eyJ-token-of-the-fake"
S: Final = "/subscriptions/{subscription}"
G: Final = f"{S}/resourceGroups/{{group}}"
C, N = "/providers/Microsoft.Compute", "/providers/Microsoft.Network"
VERSION: Final = ("api-version",)
PAGED: Final = ("api-version", "$skiptoken")


class AzureGround(FakeCloud):
    """`page_size`: entries of one page; `late`: whether the operation tells of a shortage, as Azure does."""

    def begin(self) -> None:
        self.page_size, self.late = 2, True
        self.hides_states = False  # listings of states lag
        self.by_location = False  # operations tell only where the result will be
        self.state = "Enabled"  # of the subscription
        self.limits: dict[str, dict[str, int]] = {}  # quotas: region -> family -> vCPUs
        self.used: dict[str, int] = {}  # family -> vCPUs
        self.families: dict[str, tuple[str, int, int]] = {}  # size -> family, vCPUs, GPUs
        self.allowed = ["*"]  # actions
        self.unregistered: set[str] = set()  # namespaces
        self.groups: dict[str, Group] = {}
        self.networks: dict[str, VirtualNetwork] = {}  # by id in lower case, as all that follow
        self.security: dict[str, SecurityGroup] = {}
        self.things: dict[str, dict[str, Any]] = {}  # whatever else people made: by id
        self.kept: dict[str, str] = {}  # ids of what machines left -> what it is
        self.operations: dict[str, tuple[str, dict[str, Any] | None]] = {}  # id -> (id of a machine, error)
        self.sizes = {"Standard_D4s_v5", "Standard_NC4as_T4_v3", "Standard_ND96isr_H100_v5"}
        self.regions = {"eastus", "westeurope"}
        self.only_in_zones = False  # what is left is kept for orders that name a zone

    def environ(self) -> dict[str, str]:
        return {
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": SECRET,
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_AUTHORITY_HOST": self.url,
            "ARGOSY_AZURE_URL": self.url,
        }

    # -- its own words --------------------------------------------------------------------------------------

    def serve(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        answer = super().serve(method, target, {**headers, ":path": target.partition("?")[0]}, body)
        if answer is not None:
            answer.headers["x-ms-request-id"] = f"request-{len(self.calls)}"
        return answer

    def knows(self, ask: Ask[Any]) -> bool:
        if "tenant" in ask.parts:
            return True  # it looks into the form
        return ask.headers.get("authorization") == f"Bearer {TOKEN}"

    def _checked(self, name: str, way: Any, ask: Ask[bytes]) -> Ask[Any]:
        if name == "token":  # a form and no JSON
            checked = super()._checked(name, way, Ask(ask.parts, ask.query, ask.headers, b""))
            return Ask(checked.parts, checked.query, checked.headers, ask.body)
        checked = super()._checked(name, way, ask)
        if "api-version" not in ask.query:
            raise self.error(
                400, "MissingApiVersionParameter", "The api-version query parameter is required."
            )
        if ask.parts.get("subscription", SUBSCRIPTION) != SUBSCRIPTION:
            found = ask.parts["subscription"]
            raise self.error(404, "SubscriptionNotFound", f"The subscription '{found}' could not be found.")
        if "group" in ask.parts and name != "put_group" and ask.parts["group"].lower() not in self.groups:
            text = f"Resource group '{ask.parts['group']}' could not be found."
            raise self.error(404, "ResourceGroupNotFound", text)
        return checked

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        codes = {
            "unauthorized": "InvalidAuthenticationToken",
            "not-found": "ResourceNotFound",
            "invalid": "InvalidParameter",
            "rate": "OperationNotAllowed" if status == 409 else "TooManyRequests",
        }
        told = {"code": codes.get(code, code), "message": text}
        return Answer(status, {"error": told | ({"target": field} if field else {})})

    def over_quota(self, limit: str) -> Answer:
        text = (
            "Operation could not be completed as it results in exceeding approved standardDSv5Family Cores "
            "quota. Additional details - Deployment Model: Resource Manager, Location: eastus, Current "
            f"Limit: {limit}, Current Usage: 0, Additional Required: 4, (Minimum) New Limit Required: 4. "
            "Setup Alerts when Quota reaches threshold. Submit a request for Quota increase at https://aka.ms/ProdportalCRP"
        )
        return self.error(409, "OperationNotAllowed", text)

    def begun(
        self, status: int, body: object, machine_id: str, error: dict[str, Any] | None = None
    ) -> Answer:
        """A reply that begins an operation on a machine."""
        id = f"op-{len(self.operations)}"
        self.operations[id] = (machine_id, error)
        path = f"/subscriptions/{SUBSCRIPTION}{C}/locations/eastus/operations/{id}"
        kind = "location" if self.by_location else "azure-asyncoperation"
        headers = {kind: f"{self.url}{path}?api-version=2024-07-01", "retry-after": "1"}
        return Answer(202 if self.by_location else status, body, headers)

    def page(self, ask: Ask[Any], entries: list[Any]) -> object:
        start = int(ask.query.get("$skiptoken", "0"))
        after = start + self.page_size
        told: dict[str, Any] = {"value": entries[start:after]}
        if after < len(entries):
            query = "&".join(f"{key}={value}" for key, value in ask.query.items() if key != "$skiptoken")
            told["nextLink"] = f"{self.url}{ask.headers[':path']}?{query}&$skiptoken={after}"
        return told

    # -- who asks -------------------------------------------------------------------------------------------

    @route("POST", "/{tenant}/oauth2/v2.0/token")
    def token(self, ask: Ask[Any]) -> object:
        form = dict(parse_qsl(ask.body.decode()))
        secret, proof = form.pop("client_secret", ""), form.pop("client_assertion", "")
        form.pop("client_assertion_type", None)
        wanted = {"grant_type": "client_credentials", "client_id": CLIENT, "scope": f"{self.url}/.default"}
        if form != wanted or ask.parts["tenant"] != TENANT:
            raise Answer(
                400, {"error": "invalid_request", "error_description": f"AADSTS900144: {sorted(form)}"}
            )
        if secret != SECRET and proof.count(".") != 2:
            text = "AADSTS7000215: Invalid client secret provided. Trace ID: 0 Correlation ID: 1"
            raise Answer(401, {"error": "invalid_client", "error_description": text})
        return {"token_type": "Bearer", "expires_in": 3599, "access_token": TOKEN}

    @route("GET", "/subscriptions", query=VERSION)
    def subscriptions(self, ask: Ask[None]) -> object:
        return {"value": [self._subscription()]}

    @route("GET", f"{S}/locations", query=VERSION)
    def locations(self, ask: Ask[None]) -> object:
        told = [
            {"name": each, "metadata": {"regionType": "Physical"}, "availabilityZoneMappings": zones}
            for each in sorted(self.regions)
            for zones in [[{"logicalZone": f"{n}", "physicalZone": f"{each}-az{n}"} for n in (1, 2, 3)]]
        ]
        return {"value": [*told, {"name": "united", "metadata": {"regionType": "Logical"}}]}

    @route("GET", f"{S}{C}/locations/{{region}}/usages", query=PAGED)
    def usages(self, ask: Ask[None]) -> object:
        told = self.limits.get(ask.parts["region"], {})
        return self.page(
            ask,
            [
                {
                    "unit": "Count",
                    "currentValue": self.used.get(family, 0),
                    "limit": limit,
                    "name": {"value": family, "localizedValue": f"{family} vCPUs"},
                }
                for family, limit in told.items()
            ],
        )

    @route("GET", f"{S}{C}/skus", query=(*VERSION, "$filter"))
    def skus(self, ask: Ask[None]) -> object:
        if ask.query["api-version"] != "2021-07-01" or ask.query["$filter"] != "location eq 'eastus'":
            raise self.error(400, "InvalidParameter", "The filter is not supported.", "$filter")
        return {"value": [_sku(name, *facts) for name, facts in self.families.items()]}

    @route("GET", f"{S}/providers/Microsoft.Authorization/permissions", query=VERSION)
    def permissions(self, ask: Ask[None]) -> object:
        return {"value": [{"actions": self.allowed, "notActions": ["Microsoft.Authorization/*/Write"]}]}

    @route("GET", f"{S}/providers/{{space}}", query=VERSION)
    def space(self, ask: Ask[None]) -> object:
        space = ask.parts["space"]
        state = "NotRegistered" if space in self.unregistered else "Registered"
        return {"namespace": space, "registrationState": state}

    @route("GET", S, query=VERSION)
    def subscription(self, ask: Ask[None]) -> object:
        return self._subscription()

    @route("GET", "/metadata/identity/oauth2/token", query=(*VERSION, "resource", "client_id"), open=True)
    def metadata_token(self, ask: Ask[None]) -> object:
        if ask.headers.get("metadata") != "true" or ask.query["resource"] != f"{self.url}/":
            raise Answer(400, {"error": "invalid_request", "error_description": "Required metadata header"})
        if ask.query.get("client_id", CLIENT) != CLIENT:
            raise Answer(400, {"error": "invalid_request", "error_description": "Identity not found"})
        return {"access_token": TOKEN, "expires_in": "86399", "token_type": "Bearer"}

    def _subscription(self) -> dict[str, Any]:
        return {
            "id": f"/subscriptions/{SUBSCRIPTION}",
            "subscriptionId": SUBSCRIPTION,
            "displayName": "Fake",
            "state": self.state,
        }

    # -- operations ----------------------------------------------------------------------------------------

    @route("GET", f"{S}{C}/locations/{{region}}/operations/{{id}}", query=VERSION)
    def operation(self, ask: Ask[None]) -> object:
        machine_id, error = self.operations[ask.parts["id"]]
        self.settle()
        machine = self.made.get(machine_id)
        busy = machine is not None and machine.state in ("starting", "stopping", "ending")
        if self.by_location:
            if error and not busy:
                raise self.error(409, error["code"], error["message"])
            return Answer(202 if busy else 204, None, {"retry-after": "1"})
        status = "InProgress" if busy else "Failed" if error else "Succeeded"
        told = {"name": ask.parts["id"], "status": status} | ({"error": error} if error and not busy else {})
        return Answer(200, told, {"retry-after": "1"})

    def id_of(self, group: str, rest: str = "") -> str:
        return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}{rest}"


class AzureNetworks(AzureGround):
    """Resource groups, security groups and virtual networks."""

    @route("GET", G, query=VERSION)
    def get_group(self, ask: Ask[None]) -> object:
        return self._group(ask.parts["group"])

    @route("PUT", G, body=Group, query=VERSION)
    def put_group(self, ask: Ask[Group]) -> object:
        if ask.body.location not in self.regions:
            text = f"The provided location '{ask.body.location}' is not available for resource group."
            raise self.error(400, "LocationNotAvailableForResourceGroup", text)
        new = ask.parts["group"].lower() not in self.groups
        self.groups[ask.parts["group"].lower()] = ask.body
        return Answer(201 if new else 200, self._group(ask.parts["group"]))

    def _group(self, name: str) -> dict[str, Any]:
        return {"id": self.id_of(name), "name": name, "location": self.groups[name.lower()].location}

    @route("PUT", f"{G}{C}/availabilitySets/{{name}}", body=AvailabilitySet, query=VERSION)
    def put_set(self, ask: Ask[AvailabilitySet]) -> object:
        return self._join("availabilitySets", ask)

    @route("PUT", f"{G}{C}/proximityPlacementGroups/{{name}}", body=Placement, query=VERSION)
    def put_placement(self, ask: Ask[Placement]) -> object:
        return self._join("proximityPlacementGroups", ask)

    def _join(self, kind: str, ask: Ask[Any]) -> Answer:
        id = self.id_of(ask.parts["group"], f"{C}/{kind}/{ask.parts['name']}")
        new = id.lower() not in self.things
        self.things[id.lower()] = {"argosy": True, "location": ask.body.location, "id": id}
        return Answer(201 if new else 200, named(id, ask.body.location))

    @route("DELETE", f"{G}{C}/availabilitySets/{{name}}", query=VERSION)
    def delete_set(self, ask: Ask[None]) -> object:
        return self._part("availabilitySets", ask)

    @route("DELETE", f"{G}{C}/proximityPlacementGroups/{{name}}", query=VERSION)
    def delete_placement(self, ask: Ask[None]) -> object:
        return self._part("proximityPlacementGroups", ask)

    def _part(self, kind: str, ask: Ask[None]) -> Answer:
        id = self.id_of(ask.parts["group"], f"{C}/{kind}/{ask.parts['name']}").lower()
        self.settle()
        for each in self.made.values():
            told = each.extra.get("told")
            if told is not None and each.state != "ended" and id in [ref.lower() for ref in told.refers()]:
                code = "CannotDeleteResource" if "sets" in id else "InUse"
                raise self.error(409, code, f"{ask.parts['name']} has virtual machines in it.")
        return Answer(200 if self.things.pop(id, None) is not None else 204)

    @route("GET", f"{S}/providers/{{space}}/{{kind}}", query=PAGED)
    def things_listed(self, ask: Ask[None]) -> object:
        kind = f"/{ask.parts['space']}/{ask.parts['kind']}/".lower()
        return self.page(
            ask, [named(str(each["id"]), each["location"]) for id, each in self.things.items() if kind in id]
        )

    @route("PUT", f"{G}{N}/networkSecurityGroups/{{name}}", body=SecurityGroup, query=VERSION)
    def put_security(self, ask: Ask[SecurityGroup]) -> object:
        id = self.id_of(ask.parts["group"], f"{N}/networkSecurityGroups/{ask.parts['name']}")
        seen = [each.properties.priority for each in ask.body.properties.security_rules]
        if len(seen) != len(set(seen)):
            raise self.error(400, "SecurityRuleConflict", "Security rules conflict with each other.")
        self.security[id.lower()] = ask.body
        return self.begun(201, {"id": id, "name": ask.parts["name"], "location": ask.body.location}, "")

    @route("GET", f"{S}{N}/networkSecurityGroups", query=PAGED)
    def list_security(self, ask: Ask[None]) -> object:
        return self.page(ask, [named(id, each.location) for id, each in self.security.items()])

    @route("PUT", f"{G}{N}/virtualNetworks/{{name}}", body=VirtualNetwork, query=VERSION)
    def put_network(self, ask: Ask[VirtualNetwork]) -> object:
        id = self.id_of(ask.parts["group"], f"{N}/virtualNetworks/{ask.parts['name']}")
        self.networks[id.lower()] = ask.body
        return self.begun(201, self._network(id, ask.body), "")

    @route("GET", f"{G}{N}/virtualNetworks/{{name}}/subnets/{{subnet}}", query=VERSION)
    def get_subnet(self, ask: Ask[None]) -> object:
        id = self.id_of(ask.parts["group"], f"{N}/virtualNetworks/{ask.parts['name']}")
        told = self.networks.get(id.lower())
        names = [each.name for each in told.properties.subnets] if told is not None else []
        if ask.parts["subnet"] not in names:
            raise self.error(404, "NotFound", f"Resource {ask.parts['subnet']} not found.")
        return {"id": f"{id}/subnets/{ask.parts['subnet']}", "name": ask.parts["subnet"]}

    @route("GET", f"{S}{N}/virtualNetworks", query=PAGED)
    def list_networks(self, ask: Ask[None]) -> object:
        return self.page(ask, [self._network(id, each) for id, each in self.networks.items()])

    def _network(self, id: str, told: VirtualNetwork) -> dict[str, Any]:
        subnets = [
            {"id": f"{id}/subnets/{each.name}", "name": each.name, "properties": {}}
            for each in told.properties.subnets
        ]
        return named(id, told.location) | {"properties": {"subnets": subnets}}


def _sku(name: str, family: str, cpus: int, gpus: int) -> dict[str, Any]:
    capabilities = {"vCPUs": cpus, "MemoryGB": cpus * 7, "GPUs": gpus, "HyperVGenerations": "V1,V2"}
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "family": family,
        "locations": ["eastus"],
        "capabilities": [{"name": key, "value": str(value)} for key, value in capabilities.items() if value],
        "restrictions": [],
    }


def named(id: str, location: str) -> dict[str, Any]:
    return {"id": id, "name": id.rpartition("/")[2], "location": location}
