"""Calls of the Cudo Compute API (v1): machines of a project, whose ids are our names.

There is no user data that we need: machines let in our key and make their host keys themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How
from argosy.infra.http_words import Said
from argosy.infra.machine_access import home_text, lacks
from argosy.infra.machine_images import asked_image, newest
from argosy.infra.machine_vendor import MachineOrder, RestVendor, findings_of
from argosy.infra.machines import Machine, MachineState, mark_in
from argosy.infra.once import Once
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Offer
from argosy.model.rows import Claim
from argosy.providers.cudo import MANIFEST

URL: Final = "https://rest.compute.cudo.org"
DISK_GIB: Final = 100
_KIND: Final = re.compile(r"(?P<type>.+)_(?P<gpus>\d+)x(?P<cpus>\d+)v(?P<gib>\d+)gb")
_STATES: Final = {
    "ACTIVE": MachineState.RUNNING,
    "STOPPING": MachineState.STOPPING,
    "STOPPED": MachineState.STOPPED,
    "SUSPENDING": MachineState.STOPPING,
    "SUSPENDED": MachineState.STOPPED,
    "DELETING": MachineState.ENDED,
    "DELETED": MachineState.ENDED,
    "FAILED": MachineState.FAILED,
}  # any other word: it is being made, or changed
#: Other states are passed through: they end by themselves, and then it can be deleted.
_DELETABLE: Final = frozenset(("ACTIVE", "STOPPED", "SUSPENDED", "FAILED", "PENDING", "UNKNOWN"))


class Access(NamedTuple):
    key: str
    project: str


class _Machine(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    datacenter_id: str | None = None
    machine_type: str | None = None
    state: str | None = None
    external_ip_address: str | None = None
    create_time: str | None = None
    metadata: dict[str, str] | None = None


class _Machines(msgspec.Struct, frozen=True, rename={"vms": "VMs"}):
    vms: list[_Machine] | None = None


class _Image(msgspec.Struct, frozen=True):
    id: str


class _Type(msgspec.Struct, frozen=True, rename="camel"):
    data_center_id: str
    machine_type: str
    max_vcpu_free: int = 0
    max_memory_gib_free: int = 0
    max_gpu_free: int = 0


class _Project(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    billing_account_id: str | None = None


class Cudo(RestVendor):
    manifest = MANIFEST
    place = "a data centre"
    unique_names = True
    own_host_keys = True
    fresh_s = 1.0

    def __init__(self, setting: Setting, *, call_every_s: float = 0.2) -> None:
        super().__init__(setting, "CUDO_API_URL", URL, words, every_s=call_every_s)
        self._images: Once[bool, str] = Once()  # whether it has drivers -> its id

    def _access(self) -> Access:
        environ = self._setting.environ
        key, project = environ.get("CUDO_API_KEY"), environ.get("CUDO_PROJECT")
        text = home_text(environ, ".config/cudo/cudo.yml")
        found = Access(key, project) if key and project else _access_in(text)
        if not found.key or not found.project:
            raise lacks(MANIFEST, "key" if not found.key else "project")
        return found

    def key(self) -> str:
        return self._access().key

    def _path(self, rest: str) -> str:
        return f"/v1/projects/{self._access().project}/{rest}"

    async def check(self) -> Sequence[Diagnostic]:
        return await findings_of(MANIFEST, self._paid)

    async def _paid(self) -> str:
        name = self._access().project
        project = await self._http.find(f"/v1/projects/{name}", into=_Project)
        if project is None:
            raise border.CredentialsRejected(
                f"Cudo Compute has no project `{name}` for this key; name one of yours in CUDO_PROJECT"
            )
        if not project.billing_account_id:
            raise border.QuotaExceeded(
                "billing account",
                "none",
                f"nobody pays for the project `{name}` at Cudo Compute; give it a billing account at "
                "https://compute.cudo.org",
            )
        return f"the key is accepted for the project `{name}`"

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Nothing differs from the catalog, if the project is in order: users choose sizes, and whether there
        is room is asked before each order."""
        await self._paid()
        return ()

    def refuse(self, claim: Claim) -> None:
        kind = claim.choice.offer.shape.instance_type
        if not _KIND.fullmatch(kind):
            raise border.RequestRefused(
                "instance_type",
                f"`{kind}` is no type and size of Cudo Compute, such as `ice-lake-rtx-a5000_1x4v16gb`",
            )

    async def prepare(self, order: MachineOrder) -> None:
        size = _size_of(order.kind)
        await self._look_for_room(order, size)
        await self._image(order)

    async def create(self, order: MachineOrder, index: int) -> str:
        size = _size_of(order.kind)
        gpus = size.max_gpu_free
        wanted_gib = -(-order.claim.choice.resources.disk_size_bytes // 2**30) or DISK_GIB
        asked = {
            "vmId": order.name(index),
            "dataCenterId": order.region,
            "machineType": size.machine_type,
            "gpus": gpus,
            "vcpus": size.max_vcpu_free,
            "memoryGib": size.max_memory_gib_free,
            "bootDiskImageId": await self._image(order),
            "bootDisk": {"sizeGib": wanted_gib, "storageClass": "STORAGE_CLASS_NETWORK"},
            "sshKeySource": "SSH_KEY_SOURCE_NONE",
            "customSshKeys": [order.opens],
            "metadata": order.labels(index),
        }
        reply = await self._http.send(
            "POST", self._path("vm"), json=asked, scope=order.scope, how=How(fine=(409,))
        )
        return order.name(index) if reply.status == 409 else self._http.read(reply, str, "id")

    async def _look_for_room(self, order: MachineOrder, size: _Type) -> None:
        """Raises `OutOfCapacity`, and `RequestRefused` for a type that its data centre does not have."""
        path = "/v1/vms/machine-types-2"
        types = await self._http.call("GET", path, into=list[_Type], under="machineTypes")
        found = [each for each in types if each.data_center_id == order.region]
        if not found:
            raise border.RequestRefused("region", f"Cudo Compute has no data centre `{order.region}`")
        here = next((each for each in found if each.machine_type == size.machine_type), None)
        if here is None:
            names = ", ".join(sorted({each.machine_type for each in found}))
            raise border.RequestRefused(
                "instance_type", f"{order.region} has no `{size.machine_type}`; it has {names}"
            )
        if (
            here.max_gpu_free < size.max_gpu_free
            or here.max_vcpu_free < size.max_vcpu_free
            or here.max_memory_gib_free < size.max_memory_gib_free
        ):
            raise border.OutOfCapacity(
                order.scope, f"Cudo Compute has no host with room for {order.scope} now"
            )

    async def _image(self, order: MachineOrder) -> str:
        """The task's, else the newest Ubuntu; with drivers where there are GPUs."""
        gpu = _size_of(order.kind).max_gpu_free > 0
        return asked_image(order.claim) or await self._images.get(gpu, lambda: self._newest(gpu=gpu))

    async def _newest(self, *, gpu: bool) -> str:
        images = await self._http.call("GET", "/v1/vms/public-images", into=list[_Image], under="images")
        names = [each.id for each in images if each.id.startswith("ubuntu")]
        fit = [name for name in names if ("nvidia" in name) == gpu] or names
        if not fit:
            raise border.RequestRefused("image", "Cudo Compute has no image of Ubuntu")
        return newest(fit)

    async def listed(self, region: str) -> Sequence[Machine]:
        told = await self._http.call("GET", self._path("vms"), into=_Machines)
        return [machine for each in told.vms or () if (machine := _machine(each)) is not None]

    async def delete(self, machine: Machine) -> None:
        """Only what is in no passage can be terminated."""
        found = await self._http.find(self._path(f"vms/{machine.id}"), into=_Machine, under="VM")
        if found is None or _STATES.get(found.state or "") is MachineState.ENDED:
            return
        if (found.state or "UNKNOWN") not in _DELETABLE:
            raise border.Transient(f"Cudo Compute ends {machine.id} when it is no longer {found.state}", 5)
        await self._act(machine, "terminate")

    async def start(self, machine: Machine) -> None:
        """Somebody has stopped it: Argosy lets none rest."""
        await self._act(machine, "start")

    async def _act(self, machine: Machine, verb: str) -> None:
        path = self._path(f"vms/{machine.id}/{verb}")
        await self._http.send("POST", path, json={}, how=How(safe=True, fine=(404,)))


def _size_of(kind: str) -> _Type:
    """What a host must have free for it."""
    found = _KIND.fullmatch(kind)
    assert found is not None  # refused before
    return _Type("", found["type"], int(found["cpus"]), int(found["gib"]), int(found["gpus"]))


def _machine(told: _Machine) -> Machine | None:
    mark = mark_in(told.metadata or {})
    if mark is None:
        return None
    state = _STATES.get(told.state or "", MachineState.STARTING)
    failed = state is MachineState.FAILED
    return Machine(
        id=told.id,
        mark=mark,
        state=state,
        region=told.datacenter_id or "",
        kind=told.machine_type or "",
        host=told.external_ip_address or "",
        created=told.create_time or "",
        said="its state is FAILED" if failed else "",
        stays=failed,
    )


def words(said: Said) -> border.BorderError | None:
    """Codes are those of gRPC."""
    what, text = f"Cudo Compute says: {said.words}", said.text.lower()
    if re.search(
        r"no (suitable |available )?host|not enough|insufficient (resources|capacity)|no capacity", text
    ):
        return border.OutOfCapacity(said.scope, f"Cudo Compute has no {said.scope} now: {said.text}")
    if "billing" in text or "credit" in text or "payment" in text:
        more = "look at its billing account at https://compute.cudo.org"
        return border.QuotaExceeded("balance", "reached", f"{what}; {more}")
    if said.code == "8" and ("quota" in text or "limit" in text) and "rate" not in text:
        return border.QuotaExceeded("machines", "reached", f"{what}; ask Cudo Compute for more, or use less")
    if said.code in ("9", "10") and not said.scope:  # of something else that is going on
        return border.Transient(what, 5)
    return None


def _access_in(text: str) -> Access:
    """Of the context that `cudoctl` uses."""
    import yaml

    try:
        told = yaml.safe_load(text)
        context = _of_name(told["contexts"], told["current-context"])
        key = _of_name(told["keys"], str(context.get("key", "")))
        return Access(str(key.get("key") or ""), str(context.get("project") or ""))
    except (yaml.YAMLError, KeyError, TypeError):
        return Access("", "")


def _of_name(listed: Sequence[Mapping[str, object]], name: str) -> Mapping[str, object]:
    return next((each for each in listed if each.get("name") == name), {})
