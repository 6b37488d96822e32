"""What Compute Engine answers, as far as it is read (API v1)."""

from __future__ import annotations

import msgspec


class Detail(msgspec.Struct, frozen=True, rename="camel"):
    """One error of an operation."""

    code: str = ""
    message: str = ""


class Details(msgspec.Struct, frozen=True):
    errors: list[Detail] = []


class Operation(msgspec.Struct, frozen=True, rename="camel"):
    """Work that Google has begun. `status`: PENDING | RUNNING | DONE."""

    name: str
    status: str = ""
    operation_group_id: str = ""  # the same for all operations that one call has begun
    error: Details | None = None
    http_error_status_code: int = 0

    @property
    def is_done(self) -> bool:
        return self.status == "DONE"


class Operations(msgspec.Struct, frozen=True):
    items: list[Operation] = []


class AccessConfig(msgspec.Struct, frozen=True):
    nat_ip: str = msgspec.field(default="", name="natIP")


class Interface(msgspec.Struct, frozen=True, rename="camel"):
    network_ip: str = msgspec.field(default="", name="networkIP")
    access_configs: list[AccessConfig] = []


class Scheduling(msgspec.Struct, frozen=True, rename="camel"):
    provisioning_model: str = "STANDARD"


class Instance(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    status: str
    zone: str  # a URL
    machine_type: str = ""  # a URL
    status_message: str = ""
    creation_timestamp: str = ""
    labels: dict[str, str] = {}
    network_interfaces: list[Interface] = []
    scheduling: Scheduling = Scheduling()


class Named(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    zone: str = ""


class Warning(msgspec.Struct, frozen=True):
    code: str = ""


class Scope(msgspec.Struct, frozen=True, rename="camel"):
    """One place of an aggregated listing; each listing fills the list of its kind."""

    instances: list[Instance] = []
    machine_types: list[Named] = []
    reservations: list[Named] = []
    warning: Warning = Warning()

    @property
    def is_silent(self) -> bool:
        """It did not answer: what is missing there may be there."""
        return self.warning.code not in ("", "NO_RESULTS_ON_PAGE")

    @property
    def named(self) -> list[Named]:
        return self.machine_types or self.reservations


class Aggregated(msgspec.Struct, frozen=True, rename="camel"):
    items: dict[str, Scope] = {}  # `zones/us-central1-a` -> what is there
    next_page_token: str = ""


class Quota(msgspec.Struct, frozen=True):
    metric: str = ""
    limit: float = 0.0
    usage: float = 0.0


class Region(msgspec.Struct, frozen=True):
    name: str
    quotas: list[Quota] = []


class Regions(msgspec.Struct, frozen=True, rename="camel"):
    items: list[Region] = []
    next_page_token: str = ""


class Project(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    quotas: list[Quota] = []


class Network(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    self_link: str
    auto_create_subnetworks: bool = False
    subnetworks: list[str] = []  # URLs


class Subnet(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    network: str  # a URL
    self_link: str = ""


class Firewall(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    network: str = ""
    source_ranges: list[str] = []


def last(url: str) -> str:
    """The name at the end of a URL.

    >>> last("https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a")
    'us-central1-a'
    """
    return url.rpartition("/")[2]


def region_of(zone: str) -> str:
    """Google's zones are called after their region: `us-central1-a`."""
    return zone.rpartition("-")[0]
