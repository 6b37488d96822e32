"""Bodies that the fake Azure accepts: fields by the names of Azure's own models, and no others."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class _Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    pass


class Ref(_Strict):
    id: str


class Group(_Strict):
    location: str
    tags: dict[str, str] = {}


class RuleInside(_Strict):
    priority: int
    direction: str
    access: str
    protocol: str
    source_address_prefix: str
    source_port_range: str
    destination_address_prefix: str
    destination_port_ranges: list[str]


class Rule(_Strict):
    name: str
    properties: RuleInside


class SecurityInside(_Strict):
    security_rules: list[Rule]


class SecurityGroup(_Strict):
    location: str
    properties: SecurityInside


class SubnetInside(_Strict):
    address_prefix: str


class Subnet(_Strict):
    name: str
    properties: SubnetInside


class AddressSpace(_Strict):
    address_prefixes: list[str]


class NetworkInside(_Strict):
    address_space: AddressSpace
    subnets: list[Subnet]


class VirtualNetwork(_Strict):
    location: str
    properties: NetworkInside


class Domains(_Strict):
    platform_fault_domain_count: int
    platform_update_domain_count: int


class SkuName(_Strict):
    name: str


class AvailabilitySet(_Strict):
    location: str
    sku: SkuName
    properties: Domains


class PlacementKind(_Strict):
    proximity_placement_group_type: str


class Placement(_Strict):
    location: str
    properties: PlacementKind
    zones: list[str] = []


class Hardware(_Strict):
    vm_size: str


class Managed(_Strict):
    storage_account_type: str
    disk_encryption_set: Ref | None = None


class OsDisk(_Strict):
    name: str
    create_option: str
    caching: str
    managed_disk: Managed
    disk_size_gb: int = msgspec.field(name="diskSizeGB")
    delete_option: str = "Detach"


class Image(_Strict):
    id: str = ""
    publisher: str = ""
    offer: str = ""
    sku: str = ""
    version: str = ""
    shared_gallery_image_id: str = ""
    community_gallery_image_id: str = ""


class Storage(_Strict):
    image_reference: Image
    os_disk: OsDisk


class Key(_Strict):
    path: str
    key_data: str


class Ssh(_Strict):
    public_keys: list[Key]


class Linux(_Strict):
    disable_password_authentication: bool
    ssh: Ssh


class OsProfile(_Strict):
    computer_name: str
    admin_username: str
    custom_data: str
    linux_configuration: Linux


class Sku(_Strict):
    name: str
    tier: str


class PublicInside(_Strict):
    public_ip_allocation_method: str = msgspec.field(name="publicIPAllocationMethod")
    delete_option: str = "Detach"


class Public(_Strict):
    name: str
    sku: Sku
    properties: PublicInside


class AddressInside(_Strict):
    primary: bool
    subnet: Ref
    public: Public | None = msgspec.field(name="publicIPAddressConfiguration", default=None)


class Address(_Strict):
    name: str
    properties: AddressInside


class CardInside(_Strict):
    primary: bool
    network_security_group: Ref
    ip_configurations: list[Address]
    enable_accelerated_networking: bool = False
    delete_option: str = "Detach"


class Card(_Strict):
    name: str
    properties: CardInside


class NetworkProfile(_Strict):
    network_api_version: str
    network_interface_configurations: list[Card]


class Billing(_Strict):
    max_price: float


class Security(_Strict):
    encryption_at_host: bool


class Reserved(_Strict):
    capacity_reservation_group: Ref


class MachineInside(_Strict):
    hardware_profile: Hardware
    storage_profile: Storage
    os_profile: OsProfile
    network_profile: NetworkProfile
    priority: str = "Regular"
    eviction_policy: str = ""
    billing_profile: Billing | None = None
    security_profile: Security | None = None
    capacity_reservation: Reserved | None = None
    availability_set: Ref | None = None
    proximity_placement_group: Ref | None = None


class Identity(_Strict):
    type: str
    user_assigned_identities: dict[str, dict[str, str]]


class VirtualMachine(_Strict):
    location: str
    properties: MachineInside
    tags: dict[str, str] = {}
    zones: list[str] = []
    identity: Identity | None = None

    @property
    def _address(self) -> Address:
        card = self.properties.network_profile.network_interface_configurations[0]
        return card.properties.ip_configurations[0]

    @property
    def is_public(self) -> bool:
        return self._address.properties.public is not None

    def options(self) -> Iterator[tuple[str, str]]:
        """What is made with the machine, and what becomes of it with its end."""
        yield "disk", self.properties.storage_profile.os_disk.delete_option
        yield (
            "nic",
            self.properties.network_profile.network_interface_configurations[0].properties.delete_option,
        )
        if (public := self._address.properties.public) is not None:
            yield "ip", public.properties.delete_option

    def refers(self) -> Iterator[str]:
        """Ids of what it needs to be there."""
        inside = self.properties
        for each in (inside.availability_set, inside.proximity_placement_group):
            if each is not None:
                yield each.id
        if inside.capacity_reservation is not None:
            yield inside.capacity_reservation.capacity_reservation_group.id
        if (key := inside.storage_profile.os_disk.managed_disk.disk_encryption_set) is not None:
            yield key.id
        if self.identity is not None:
            yield from self.identity.user_assigned_identities
