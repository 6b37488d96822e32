"""Azure Resource Manager on this machine, as far as virtual machines need it.

Strict about fields and versions, with pages, operations that take their time, locks while one is under way.
A machine's card, address and disk go with it when its order says so, and are left otherwise: `leftovers`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from argosy.testing.fake_azure_bodies import Group, SecurityGroup, VirtualMachine, VirtualNetwork
from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, Shortage, route

SUBSCRIPTION: Final = "5eb5c219-0000-4000-8000-00000000a2a2"
TENANT, CLIENT, SECRET = "7e4a4700-fake", "c11e4700-fake", "s3cret~of-the-fake"
TOKEN: Final = "eyJ-token-of-the-fake"
_S: Final = "/subscriptions/{subscription}"
_G: Final = f"{_S}/resourceGroups/{{group}}"
_C, _N = "/providers/Microsoft.Compute", "/providers/Microsoft.Network"
_VERSION: Final = ("api-version",)
_POWER: Final = {
    "running": "running",
    "stopping": "deallocating",
    "stopped": "deallocated",
    "preempted": "deallocated",
    "down": "stopped",
}


class FakeAzure(FakeCloud):
    """`page_size`: entries of one page; `late`: whether the operation tells of a shortage, as Azure does."""

    def begin(self) -> None:
        self.page_size, self.late = 2, True
        self.state = "Enabled"  # of the subscription
        self.groups: dict[str, Group] = {}
        self.networks: dict[str, VirtualNetwork] = {}  # by id in lower case, as all that follow
        self.security: dict[str, SecurityGroup] = {}
        self.things: dict[str, dict[str, Any]] = {}  # whatever else people made: by id
        self.kept: dict[str, str] = {}  # ids of what machines left -> what it is
        self.operations: dict[str, tuple[str, dict[str, Any] | None]] = {}  # id -> (id of a machine, error)
        self.sizes = {"Standard_D4s_v5", "Standard_NC4as_T4_v3", "Standard_ND96isr_H100_v5"}
        self.regions = {"eastus", "westeurope"}

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
        path = f"/subscriptions/{SUBSCRIPTION}{_C}/locations/eastus/operations/{id}"
        headers = {"azure-asyncoperation": f"{self.url}{path}?api-version=2024-07-01", "retry-after": "1"}
        return Answer(status, body, headers)

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
        from urllib.parse import parse_qsl

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

    @route("GET", "/subscriptions", query=_VERSION)
    def subscriptions(self, ask: Ask[None]) -> object:
        return {"value": [self._subscription()]}

    @route("GET", _S, query=_VERSION)
    def subscription(self, ask: Ask[None]) -> object:
        return self._subscription()

    def _subscription(self) -> dict[str, Any]:
        return {
            "id": f"/subscriptions/{SUBSCRIPTION}",
            "subscriptionId": SUBSCRIPTION,
            "displayName": "Fake",
            "state": self.state,
        }

    # -- groups and networks --------------------------------------------------------------------------------

    @route("GET", _G, query=_VERSION)
    def get_group(self, ask: Ask[None]) -> object:
        return self._group(ask.parts["group"])

    @route("PUT", _G, body=Group, query=_VERSION)
    def put_group(self, ask: Ask[Group]) -> object:
        if ask.body.location not in self.regions:
            text = f"The provided location '{ask.body.location}' is not available for resource group."
            raise self.error(400, "LocationNotAvailableForResourceGroup", text)
        new = ask.parts["group"].lower() not in self.groups
        self.groups[ask.parts["group"].lower()] = ask.body
        return Answer(201 if new else 200, self._group(ask.parts["group"]))

    def _group(self, name: str) -> dict[str, Any]:
        return {"id": self._id(name), "name": name, "location": self.groups[name.lower()].location}

    @route("PUT", f"{_G}{_N}/networkSecurityGroups/{{name}}", body=SecurityGroup, query=_VERSION)
    def put_security(self, ask: Ask[SecurityGroup]) -> object:
        id = self._id(ask.parts["group"], f"{_N}/networkSecurityGroups/{ask.parts['name']}")
        seen = [each.properties.priority for each in ask.body.properties.security_rules]
        if len(seen) != len(set(seen)):
            raise self.error(400, "SecurityRuleConflict", "Security rules conflict with each other.")
        self.security[id.lower()] = ask.body
        return self.begun(201, {"id": id, "name": ask.parts["name"], "location": ask.body.location}, "")

    @route("GET", f"{_S}{_N}/networkSecurityGroups", query=(*_VERSION, "$skiptoken"))
    def list_security(self, ask: Ask[None]) -> object:
        return self.page(ask, [_named(id, each.location) for id, each in self.security.items()])

    @route("PUT", f"{_G}{_N}/virtualNetworks/{{name}}", body=VirtualNetwork, query=_VERSION)
    def put_network(self, ask: Ask[VirtualNetwork]) -> object:
        id = self._id(ask.parts["group"], f"{_N}/virtualNetworks/{ask.parts['name']}")
        self.networks[id.lower()] = ask.body
        return self.begun(201, self._network(id, ask.body), "")

    @route("GET", f"{_G}{_N}/virtualNetworks/{{name}}/subnets/{{subnet}}", query=_VERSION)
    def get_subnet(self, ask: Ask[None]) -> object:
        id = self._id(ask.parts["group"], f"{_N}/virtualNetworks/{ask.parts['name']}")
        told = self.networks.get(id.lower())
        names = [each.name for each in told.properties.subnets] if told is not None else []
        if ask.parts["subnet"] not in names:
            raise self.error(404, "NotFound", f"Resource {ask.parts['subnet']} not found.")
        return {"id": f"{id}/subnets/{ask.parts['subnet']}", "name": ask.parts["subnet"]}

    @route("GET", f"{_S}{_N}/virtualNetworks", query=(*_VERSION, "$skiptoken"))
    def list_networks(self, ask: Ask[None]) -> object:
        return self.page(ask, [self._network(id, each) for id, each in self.networks.items()])

    def _network(self, id: str, told: VirtualNetwork) -> dict[str, Any]:
        subnets = [
            {"id": f"{id}/subnets/{each.name}", "name": each.name, "properties": {}}
            for each in told.properties.subnets
        ]
        return _named(id, told.location) | {"properties": {"subnets": subnets}}

    # -- machines -------------------------------------------------------------------------------------------

    @route("PUT", f"{_G}{_C}/virtualMachines/{{name}}", body=VirtualMachine, query=_VERSION)
    def put_machine(self, ask: Ask[VirtualMachine]) -> object:
        told, group, name = ask.body, ask.parts["group"], ask.parts["name"]
        known = self._machine(group, name)
        if known is not None and ask.headers.get("if-none-match") == "*":
            raise self.error(412, "PreconditionFailed", f"The resource {name} exists already.")
        if known is not None:
            raise self.error(
                409, "PropertyChangeNotAllowed", "Changing property 'customData' is not allowed."
            )
        self._accept(told, name)
        try:
            made = self._make(told, group, name)
        except Shortage as shortage:
            if not self.late:
                raise
            return self._fail(told, group, name, str(shortage))
        return self.begun(201, self._told(made), made.id)

    def shortage(self, text: str) -> Answer:
        code = "SkuNotAvailable"
        return self.error(
            409, code, f"The requested VM size for resource is currently not available: {text}."
        )

    def _accept(self, told: VirtualMachine, name: str) -> None:
        inside = told.properties
        size = inside.hardware_profile.vm_size
        if told.location not in self.regions:
            text = f"The provided location '{told.location}' is not available for this resource type."
            raise self.error(400, "LocationNotAvailableForResourceType", text)
        if size not in self.sizes:
            text = f"The value {size} provided for the VM size is not valid. The valid sizes in the current "
            text += f"region are: {', '.join(sorted(self.sizes))}."
            raise self.error(400, "InvalidParameter", text, "vmSize")
        if len(name) > 64 or inside.os_profile.admin_username in ("admin", "root", "user", "test", "guest"):
            raise self.error(400, "InvalidParameter", "The name is not allowed.", "adminUsername")
        if len(told.tags) > 50 or any(set("<>%&\\?/") & set(key) for key in told.tags):
            raise self.error(400, "InvalidTagNameCharacters", "The tag names are not allowed.")
        if any(len(value) > 256 for value in told.tags.values()):
            raise self.error(400, "InvalidTagValueLength", "A tag value has more than 256 characters.")
        if len(base64.b64decode(inside.os_profile.custom_data, validate=True)) > 65_535:
            raise self.error(400, "InvalidParameter", "Custom data is too long.", "customData")
        card = inside.network_profile.network_interface_configurations[0].properties
        if card.network_security_group.id.lower() not in self.security:
            raise self.error(
                400, "InvalidResourceReference", f"{card.network_security_group.id} was not found."
            )
        subnet = card.ip_configurations[0].properties.subnet.id.lower()
        if not any(subnet.startswith(f"{each}/subnets/") for each in self.networks):
            raise self.error(400, "InvalidResourceReference", f"{subnet} was not found.")
        for each in told.refers():
            if each.lower() not in self.things:
                raise self.error(404, "NotFound", f"{each} was not found.")
        self._accept_spot(told)

    def _accept_spot(self, told: VirtualMachine) -> None:
        inside = told.properties
        if inside.priority == "Regular" and (inside.eviction_policy or inside.billing_profile):
            raise self.error(400, "InvalidParameter", "evictionPolicy needs the priority Spot.", "priority")
        if inside.priority == "Spot" and inside.availability_set is not None:
            raise self.error(400, "OperationNotAllowed", "Spot machines cannot be in an availability set.")

    def _make(self, told: VirtualMachine, group: str, name: str) -> FakeMachine:
        inside = told.properties
        return self.order(
            name=name,
            kind=inside.hardware_profile.vm_size,
            region=told.location,
            zone=told.zones[0] if told.zones else "",
            labels=told.tags,
            user_data=base64.b64decode(inside.os_profile.custom_data),
            spot=inside.priority == "Spot",
            extra={"group": group, "told": told},
        )

    def _fail(self, told: VirtualMachine, group: str, name: str, what: str) -> Answer:
        """It is refused a moment later, and stays as a machine that failed."""
        error = {
            "code": "AllocationFailed",
            "message": f"Allocation failed. We do not have enough capacity: {what}",
        }
        capacity, quota = self.capacity, self.quota
        self.capacity, self.quota = {}, None
        try:
            made = self._make(told, group, name)
        finally:
            self.capacity, self.quota = capacity, quota
        if self.hosts is not None:
            self.hosts.destroy(made.id)
        made.state, made.due = "failed", None
        made.extra["error"] = error
        return self.begun(201, self._told(made), made.id, error)

    @route("GET", f"{_S}{_C}/virtualMachines", query=(*_VERSION, "statusOnly", "$skiptoken"))
    def list_machines(self, ask: Ask[None]) -> object:
        only = ask.query.get("statusOnly") == "true"
        return self.page(ask, [self._status(each) if only else self._told(each) for each in self.shown()])

    @route("DELETE", f"{_G}{_C}/virtualMachines/{{name}}", query=(*_VERSION, "forceDeletion"))
    def delete_machine(self, ask: Ask[None]) -> object:
        found = self._machine(ask.parts["group"], ask.parts["name"])
        if found is None:
            return Answer(204)
        if found.state == "starting":
            raise self._held(found)
        found.extra["gone"] = True
        self._leave(found)
        self.end(found)
        return self.begun(202, None, found.id)

    def _held(self, machine: FakeMachine) -> Answer:
        return self.error(
            409, "AnotherOperationInProgress", f"Another operation on {machine.name} is in progress."
        )

    def _leave(self, machine: FakeMachine) -> None:
        """What its order did not say that goes with it, stays."""
        told: VirtualMachine = machine.extra["told"]
        for what, option in told.options():
            if option != "Delete":
                self.kept[f"{machine.name}-{what}"] = what

    @route("POST", f"{_G}{_C}/virtualMachines/{{name}}/deallocate", query=_VERSION)
    def deallocate(self, ask: Ask[None]) -> object:
        found = self._there(ask)
        if found.state == "starting":
            raise self._held(found)
        self.rest(found)
        return self.begun(202, None, found.id)

    @route("POST", f"{_G}{_C}/virtualMachines/{{name}}/start", query=_VERSION)
    def start(self, ask: Ask[None]) -> object:
        found = self._there(ask)
        if found.state == "stopping":
            raise self._held(found)
        if self.capacity.get((found.kind, "")) == 0:
            error = {
                "code": "AllocationFailed",
                "message": "Allocation failed. We do not have enough capacity.",
            }
            return self.begun(202, None, found.id, error)
        self.wake(found)
        return self.begun(202, None, found.id)

    @route("GET", f"{_S}{_C}/locations/{{region}}/operations/{{id}}", query=_VERSION)
    def operation(self, ask: Ask[None]) -> object:
        machine_id, error = self.operations[ask.parts["id"]]
        self.settle()
        machine = self.made.get(machine_id)
        busy = machine is not None and machine.state in ("starting", "stopping", "ending")
        status = "InProgress" if busy else "Failed" if error else "Succeeded"
        told = {"name": ask.parts["id"], "status": status} | ({"error": error} if error and not busy else {})
        return Answer(200, told, {"retry-after": "1"})

    # -- cards and addresses --------------------------------------------------------------------------------

    @route("GET", f"{_S}{_N}/networkInterfaces", query=(*_VERSION, "$skiptoken"))
    def list_cards(self, ask: Ask[None]) -> object:
        return self.page(ask, [self._card(each) for each in self._placed()])

    @route("GET", f"{_S}{_N}/publicIPAddresses", query=(*_VERSION, "$skiptoken"))
    def list_addresses(self, ask: Ask[None]) -> object:
        public = [each for each in self._placed() if each.extra["told"].is_public]
        return self.page(
            ask,
            [
                {
                    "id": self._address_id(each),
                    "name": each.name,
                    "properties": {"ipAddress": self._public(each)},
                }
                for each in public
            ],
        )

    def _placed(self) -> list[FakeMachine]:
        return [each for each in self.shown() if "told" in each.extra and each.state != "failed"]

    def _public(self, machine: FakeMachine) -> str:
        return machine.ip or f"198.51.100.{int(machine.id[2:], 16) % 250 + 1}"

    def _card(self, machine: FakeMachine) -> dict[str, Any]:
        told: VirtualMachine = machine.extra["told"]
        private = machine.ip or f"10.0.0.{int(machine.id[2:], 16) % 250 + 4}"
        address: dict[str, Any] = {"privateIPAddress": private}
        if told.is_public:
            address["publicIPAddress"] = {"id": self._address_id(machine)}
        return {
            "id": self._card_id(machine),
            "name": f"{machine.name}-nic",
            "properties": {"ipConfigurations": [{"name": "main", "properties": address}]},
        }

    # -- what it tells of a machine -------------------------------------------------------------------------

    def _id(self, group: str, rest: str = "") -> str:
        return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}{rest}"

    def _vm_id(self, machine: FakeMachine) -> str:
        # As the true one, which writes groups in capitals in some listings.
        return self._id(machine.extra.get("group", "web").upper(), f"{_C}/virtualMachines/{machine.name}")

    def _card_id(self, machine: FakeMachine) -> str:
        return self._id(machine.extra["group"], f"{_N}/networkInterfaces/{machine.name}-nic-1a2b")

    def _address_id(self, machine: FakeMachine) -> str:
        return self._id(machine.extra["group"], f"{_N}/publicIPAddresses/{machine.name}-ip-1a2b")

    def _machine(self, group: str, name: str) -> FakeMachine | None:
        self.settle()
        for each in self.made.values():
            alike = each.name == name and each.extra.get("group", "web").lower() == group.lower()
            if alike and each.state != "ended":
                return each
        return None

    def _there(self, ask: Ask[None]) -> FakeMachine:
        found = self._machine(ask.parts["group"], ask.parts["name"])
        if found is None:
            raise self.error(404, "not-found", f"{ask.parts['name']} was not found.")
        return found

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        told: VirtualMachine | None = machine.extra.get("told")
        cards = [{"id": self._card_id(machine)}] if told is not None and machine.state != "failed" else []
        created = f"2026-01-01T00:00:00.{machine.id[2:]}Z"
        inside: dict[str, Any] = {
            "vmId": machine.id,
            "hardwareProfile": {"vmSize": machine.kind},
            "provisioningState": self._provisioning(machine),
            "networkProfile": {"networkInterfaces": cards},
            "timeCreated": created,
        }
        if machine.spot:
            inside |= {"priority": "Spot", "evictionPolicy": "Deallocate", "billingProfile": {"maxPrice": -1}}
        found: dict[str, Any] = {
            "id": self._vm_id(machine),
            "name": machine.name,
            "type": "Microsoft.Compute/virtualMachines",
            "location": machine.region,
            "properties": inside,
        }
        if machine.labels:
            found["tags"] = machine.labels
        return found | ({"zones": [machine.zone]} if machine.zone else {})

    def _provisioning(self, machine: FakeMachine) -> str:
        words = {"starting": "Creating", "ending": "Deleting", "failed": "Failed", "stopping": "Updating"}
        return words.get(machine.state, "Succeeded")

    def _status(self, machine: FakeMachine) -> dict[str, Any]:
        """States without the tags."""
        state = self._provisioning(machine)
        code = f"ProvisioningState/{state.lower()}"
        first: dict[str, Any] = {"level": "Info", "displayStatus": f"Provisioning {state.lower()}"}
        if error := machine.extra.get("error"):
            code = f"{code}/{error['code']}"
            first |= {"level": "Error", "message": error["message"]}
        statuses = [{"code": code, **first}]
        if power := _POWER.get(machine.state):
            shown = f"VM {power}"
            statuses.append({"code": f"PowerState/{power}", "level": "Info", "displayStatus": shown})
        inside = {"vmId": machine.id, "provisioningState": state, "instanceView": {"statuses": statuses}}
        return {
            "id": self._vm_id(machine),
            "name": machine.name,
            "location": machine.region,
            "properties": inside,
        }

    # -- the truth ------------------------------------------------------------------------------------------

    def leftovers(self) -> list[str]:
        """What costs money, or hinders: machines of any kind, and what machines left behind."""
        self.settle()
        there = [each.name for each in self.made.values() if each.state not in ("ending", "ended")]
        made = [id for id, each in self.things.items() if each.get("argosy")]
        return [each for each in there if each.startswith("clm-")] + sorted(self.kept) + made


def _named(id: str, location: str) -> dict[str, Any]:
    return {"id": id, "name": id.rpartition("/")[2], "location": location}
