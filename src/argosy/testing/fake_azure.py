"""Azure Resource Manager on this machine, as far as virtual machines need it.

Strict about fields and versions, with pages, operations that take their time, locks while one is under way.
A machine's card, address and disk go with it when its order says so, and are left otherwise: `leftovers`.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from argosy.testing.fake_azure_bodies import VirtualMachine
from argosy.testing.fake_azure_ground import PAGED, VERSION, AzureNetworks, C, G, N, S
from argosy.testing.fake_cloud import Answer, Ask, FakeMachine, Shortage, route

_POWER: Final = {
    "running": "running",
    "stopping": "deallocating",
    "stopped": "deallocated",
    "preempted": "deallocated",
    "failed": "deallocated",
    "down": "stopped",
}


class FakeAzure(AzureNetworks):
    """Virtual machines, with what each has."""

    @route("PUT", f"{G}{C}/virtualMachines/{{name}}", body=VirtualMachine, query=VERSION)
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
        if self.only_in_zones and not told.zones:
            raise Shortage(f"{inside.hardware_profile.vm_size} in {told.location}")
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
        kept = self.capacity, self.quota, self.only_in_zones
        self.capacity, self.quota, self.only_in_zones = {}, None, False
        try:
            made = self._make(told, group, name)
        finally:
            self.capacity, self.quota, self.only_in_zones = kept
        if self.hosts is not None:
            self.hosts.destroy(made.id)
        made.state, made.due = "failed", None
        made.extra["error"] = error
        return self.begun(201, self._told(made), made.id, error)

    @route("GET", f"{S}{C}/virtualMachines", query=(*PAGED, "statusOnly"))
    def list_machines(self, ask: Ask[None]) -> object:
        only = ask.query.get("statusOnly") == "true"
        if only and self.hides_states:
            return {"value": []}
        return self.page(ask, [self._status(each) if only else self._told(each) for each in self.shown()])

    @route("DELETE", f"{G}{C}/virtualMachines/{{name}}", query=(*VERSION, "forceDeletion"))
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

    @route("POST", f"{G}{C}/virtualMachines/{{name}}/deallocate", query=VERSION)
    def deallocate(self, ask: Ask[None]) -> object:
        found = self._there(ask)
        if found.state == "starting":
            raise self._held(found)
        self.rest(found)
        return self.begun(202, None, found.id)

    @route("POST", f"{G}{C}/virtualMachines/{{name}}/start", query=VERSION)
    def start(self, ask: Ask[None]) -> object:
        found = self._there(ask)
        if found.state == "stopping":
            raise self._held(found)
        if self.capacity.get((found.kind, "")) == 0:
            error = {
                "code": "AllocationFailed",
                "message": "Allocation failed. We do not have enough capacity.",
            }
            found.extra["error"] = error
            return self.begun(202, None, found.id, error)
        found.extra.pop("error", None)
        self.wake(found)
        return self.begun(202, None, found.id)

    # -- cards and addresses --------------------------------------------------------------------------------

    @route("GET", f"{S}{N}/networkInterfaces", query=PAGED)
    def list_cards(self, ask: Ask[None]) -> object:
        return self.page(ask, [self._card(each) for each in self._placed()])

    @route("GET", f"{S}{N}/publicIPAddresses", query=PAGED)
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

    def _vm_id(self, machine: FakeMachine) -> str:
        # As the true one, which writes groups in capitals in some listings.
        return self.id_of(machine.extra.get("group", "web").upper(), f"{C}/virtualMachines/{machine.name}")

    def _card_id(self, machine: FakeMachine) -> str:
        return self.id_of(machine.extra["group"], f"{N}/networkInterfaces/{machine.name}-nic-1a2b")

    def _address_id(self, machine: FakeMachine) -> str:
        return self.id_of(machine.extra["group"], f"{N}/publicIPAddresses/{machine.name}-ip-1a2b")

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
        disk: dict[str, Any] = {"name": f"{machine.name}-os"}
        if machine.state != "failed":
            disk["managedDisk"] = {"id": self.id_of("x", f"{C}/disks/{machine.name}-os")}
        inside: dict[str, Any] = {
            "storageProfile": {"osDisk": disk},
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
        words = {"starting": "Creating", "ending": "Deleting", "stopping": "Updating"}
        return words.get(machine.state, "Failed" if "error" in machine.extra else "Succeeded")

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
