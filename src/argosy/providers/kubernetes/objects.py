"""Objects of the API, as far as they are read. Unknown fields are skipped, so a listing costs little."""

from __future__ import annotations

import msgspec


class Object(msgspec.Struct, frozen=True, rename="camel"):
    """Fields are called as the API calls them."""


class Meta(Object, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str = ""
    deletion_timestamp: str = ""


class Condition(Object, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class Waiting(Object, frozen=True):
    reason: str = ""
    message: str = ""


class Terminated(Object, frozen=True):
    exit_code: int = 0
    reason: str = ""
    message: str = ""


class ContainerState(Object, frozen=True):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(Object, frozen=True):
    name: str = ""
    image: str = ""
    state: ContainerState = ContainerState()


class PodStatus(Object, frozen=True):
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Named(Object, frozen=True):
    name: str = ""


class PodSpec(Object, frozen=True):
    node_name: str = ""
    scheduling_gates: tuple[Named, ...] = ()


class Pod(Object, frozen=True):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Amounts(Object, frozen=True):
    requests: dict[str, str] = {}


class Container(Object, frozen=True):
    resources: Amounts = Amounts()


class LoadSpec(Object, frozen=True):
    node_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class Phase(Object, frozen=True):
    phase: str = ""


class Load(Object, frozen=True):
    """A pod as what it takes of its node."""

    spec: LoadSpec = LoadSpec()
    status: Phase = Phase()


class Taint(Object, frozen=True):
    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(Object, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(Object, frozen=True):
    allocatable: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()


class ClusterNode(Object, frozen=True):
    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Event(Object, frozen=True):
    metadata: Meta = Meta()
    reason: str = ""
    message: str = ""
    type: str = ""


class QuotaStatus(Object, frozen=True):
    hard: dict[str, str] = {}
    used: dict[str, str] = {}


class Quota(Object, frozen=True):
    """A ResourceQuota of a namespace."""

    metadata: Meta = Meta()
    status: QuotaStatus = QuotaStatus()


class Resource(Object, frozen=True):
    name: str = ""


class ApiVersion(Object, frozen=True):
    group_version: str = ""


class ApiGroup(Object, frozen=True):
    name: str = ""
    versions: tuple[ApiVersion, ...] = ()


class Groups(Object, frozen=True):
    """The API groups of a server: discovery."""

    groups: tuple[ApiGroup, ...] = ()


class Group(Object, frozen=True):
    """What an API group has: discovery."""

    resources: tuple[Resource, ...] = ()


class ListMeta(Object, frozen=True):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Listing(Object, frozen=True):
    """One page. `items` is decoded as what was asked for."""

    items: msgspec.Raw = msgspec.Raw(b"[]")
    metadata: ListMeta = ListMeta()


class Change(Object, frozen=True):
    """A line of a watch. `object` of an ERROR is a Status."""

    type: str
    object: msgspec.Raw
