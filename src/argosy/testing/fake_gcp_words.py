"""Bodies that the fake of Compute Engine takes, and the rules of Google's that it holds. Field names are
those of API v1; numbers of 64 bits are strings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_KEY: Final = re.compile(r"[a-z][-_a-z0-9]{0,62}")
_VALUE: Final = re.compile(r"[-_a-z0-9]{0,63}")
_METADATA_MAX, _VALUE_MAX = 512 << 10, 256 << 10
ONLY_HYPERDISK: Final = ("a3-ultragpu", "a4-", "c4", "n4", "g4-")


class _Body(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    pass


class Made(_Body):
    source_image: str
    disk_size_gb: str
    disk_type: str
    labels: dict[str, str] = {}
    provisioned_iops: str = ""
    provisioned_throughput: str = ""


class DiskKey(_Body):
    kms_key_name: str


class Disk(_Body):
    boot: bool
    auto_delete: bool
    type: str
    initialize_params: Made
    disk_encryption_key: DiskKey | None = None


class AccessConfig(_Body):
    type: str
    name: str
    network_tier: str = "PREMIUM"


class Card(_Body):
    network: str = ""
    subnetwork: str = ""
    nic_type: str = ""
    access_configs: list[AccessConfig] = []


class Seconds(_Body):
    seconds: str


class Scheduling(_Body):
    provisioning_model: str = "STANDARD"
    automatic_restart: bool = True
    instance_termination_action: str = ""
    on_host_maintenance: str = "MIGRATE"
    max_run_duration: Seconds | None = None


class Tags(_Body):
    items: list[str]


class Item(_Body):
    key: str
    value: str


class Metadata(_Body):
    items: list[Item]


class Added(_Body):
    accelerator_type: str
    accelerator_count: int


class Affinity(_Body):
    consume_reservation_type: str
    key: str = ""
    values: list[str] = []


class Account(_Body):
    email: str
    scopes: list[str]


class Speed(_Body):
    total_egress_bandwidth_tier: str


class Properties(_Body, kw_only=True):
    machine_type: str
    labels: dict[str, str]
    tags: Tags
    disks: list[Disk]
    network_interfaces: list[Card]
    scheduling: Scheduling
    metadata: Metadata
    reservation_affinity: Affinity
    guest_accelerators: list[Added] = []
    service_accounts: list[Account] = []
    network_performance_config: Speed | None = None
    resource_policies: list[str] = []


class Params(_Body):
    request_valid_for_duration: Seconds | None = None


class Insert(Properties, kw_only=True):
    name: str
    params: Params | None = None


class OfName(_Body):
    name: str


class BulkInsert(_Body):
    count: str
    min_count: str
    per_instance_properties: dict[str, OfName]
    instance_properties: Properties


class Allowed(msgspec.Struct, forbid_unknown_fields=True):
    protocol: str = msgspec.field(name="IPProtocol")
    ports: list[str] = []


class Firewall(_Body):
    name: str
    network: str
    direction: str
    priority: int
    target_tags: list[str]
    allowed: list[Allowed]
    source_ranges: list[str] = []
    source_tags: list[str] = []


class Collocation(_Body):
    collocation: str
    vm_count: int


class Policy(_Body):
    name: str
    group_placement_policy: Collocation


def wrong_in(told: Properties, names: list[str], *, bulk: bool) -> str:
    """What Google finds wrong in an order, in its words; "": nothing."""
    kind, rules = told.machine_type.rpartition("/")[2], told.scheduling
    for name in names:
        if not _NAME.fullmatch(name):
            return f"Invalid value for field 'resource.name': '{name}'. Must be a match of regex"
    for key, value in told.labels.items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            return f"Invalid value for field 'resource.labels': ''. Label value '{value}' violates format"
    sizes = [len(item.value) for item in told.metadata.items]
    if sum(sizes) > _METADATA_MAX or max(sizes) > _VALUE_MAX:
        return "Invalid value for field 'resource.metadata': metadata is too large"
    if has_gpu(kind, told) and rules.on_host_maintenance != "TERMINATE":
        return "Instances with guest accelerators do not support live migration."
    if bulk and told.guest_accelerators and "/" in told.guest_accelerators[0].accelerator_type:
        return "Invalid value for field 'resource.guestAccelerators[0].acceleratorType': a URL"
    return _scheduling(told, bulk=bulk) or _disk(told, kind)


def _scheduling(told: Properties, *, bulk: bool) -> str:
    rules = told.scheduling
    ends = rules.provisioning_model != "STANDARD"
    if ends and rules.automatic_restart:
        return "Scheduling must have preemptible be false when AutomaticRestart is true."
    if rules.instance_termination_action and not ends and rules.max_run_duration is None:
        return "You cannot specify a termination action for a VM instance that has the standard model."
    if rules.provisioning_model == "FLEX_START":
        if rules.max_run_duration is None:
            return "maxRunDuration must be set for FLEX_START"
        if told.reservation_affinity.consume_reservation_type != "NO_RESERVATION" or bulk:
            return "FLEX_START consumes no reservation and is ordered one by one"
    return ""


def _disk(told: Properties, kind: str) -> str:
    if len([disk for disk in told.disks if disk.boot]) != 1:
        return "Invalid value for field 'resource.disks': exactly one boot disk is needed"
    disk_type = told.disks[0].initialize_params.disk_type.rpartition("/")[2]
    if disk_type.startswith("pd-") and kind.startswith(ONLY_HYPERDISK):
        return f"[{disk_type}] features are not compatible for creating instance."
    return ""


def has_gpu(kind: str, told: Properties) -> bool:
    return bool(told.guest_accelerators) or kind.startswith(("a2-", "a3-", "a4-", "g2-", "g4-"))


def matches(filter: str, name: str, labels: Mapping[str, str]) -> bool:
    """The two ways of filtering that are known here. Raises ValueError for another one."""
    label = re.fullmatch(r"labels\.([\w-]+):\*", filter)
    named = re.fullmatch(r'name = "([\w-]+)"', filter)
    if label:
        return label[1] in labels
    if named:
        return name == named[1]
    if filter:
        raise ValueError(filter)
    return True


def kept(told: Properties) -> dict[str, Any]:
    """What of an order a machine shows later."""
    return {"order": told}
