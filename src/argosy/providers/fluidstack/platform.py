"""Machines of Fluidstack's old platform, for accounts that still have it (ARGOSY_FLUIDSTACK_PLATFORM=old). It
knows neither marks nor user data nor tokens: the name of a machine is its mark, its own host key is kept when
it is first seen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_words import Said
from argosy.infra.machine_access import home_text
from argosy.infra.machine_vendor import MachineOrder, RestVendor, findings_of
from argosy.infra.machines import Machine, MachineState, Mark, of_name
from argosy.infra.once import Once
from argosy.infra.provider import Diagnostic, Setting
from argosy.model.rows import Claim
from argosy.providers.fluidstack import MANIFEST

URL: Final = "https://platform.fluidstack.io"
SYSTEM: Final = "ubuntu_22_04_lts_nvidia"
_STATES: Final = {
    "running": MachineState.RUNNING,
    "stopping": MachineState.STOPPING,
    "stopped": MachineState.STOPPED,
    "terminating": MachineState.ENDED,
    "terminated": MachineState.ENDED,
    "failed": MachineState.FAILED,
    "out_of_stock": MachineState.FAILED,
}


class _Model(msgspec.Struct, frozen=True):
    region: str = ""


class _Instance(msgspec.Struct, frozen=True):
    id: str
    status: str | None = None
    name: str | None = None
    username: str | None = None
    ssh_port: str | int | None = None
    ip_address: str | None = None
    configuration: _Model | None = None
    created_at: str | None = None


class _Key(msgspec.Struct, frozen=True):
    name: str


class Platform(RestVendor):
    manifest = msgspec.structs.replace(
        MANIFEST,
        credentials=("FLUIDSTACK_API_KEY", "~/.fluidstack/api_key"),
        sign_in="make a key in the console of the old platform",
    )
    header, scheme = "api-key", ""
    lag_s = 60.0
    parallel = 1
    own_host_keys = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, "ARGOSY_FLUIDSTACK_URL", URL, words)
        self._keys: Once[str, str] = Once()  # our key -> the name of its key object

    def key(self) -> str:
        environ = self._setting.environ
        return environ.get("FLUIDSTACK_API_KEY") or home_text(environ, ".fluidstack/api_key")

    async def check(self) -> Sequence[Diagnostic]:
        async def plans() -> str:
            found = await self._http.call("GET", "/list_available_configurations", into=list[msgspec.Raw])
            return f"the key of the old platform is accepted; {len(found)} types of GPU are offered"

        return await findings_of(MANIFEST, plans)

    def refuse(self, claim: Claim) -> None:
        _kind_of(claim.choice.offer.shape.instance_type)

    async def create(self, order: MachineOrder, index: int) -> str:
        gpu, count = _kind_of(order.kind)
        asked = {
            "name": order.name(index),
            "gpu_type": gpu,
            "gpu_count": count,
            "region": order.region,
            "operating_system_label": SYSTEM,
            "ssh_key": await self._keys.get(order.opens, lambda: self._make_key(order.opens)),
        }
        return await self._http.call(
            "POST", "/instances", json=asked, into=str, scope=order.scope, under="id"
        )

    async def _make_key(self, opens: str) -> str:
        """The name of the key object that an order must name: one for each key."""
        name = f"argosy-{hashlib.sha256(opens.encode()).hexdigest()[:8]}"
        keys = await self._http.call("GET", "/ssh_keys", into=list[_Key])
        if name not in {each.name for each in keys}:
            body = {"name": name, "public_key": opens}
            await self._http.call("POST", "/ssh_keys", json=body, into=msgspec.Raw)
        return name

    async def listed(self, region: str) -> Sequence[Machine]:
        found: list[Machine] = []
        seen: set[str] = set()
        page = 1
        while True:
            told = await self._http.call("GET", "/instances", query=[("page", page)], into=list[_Instance])
            fresh = [each for each in told if each.id not in seen]
            if not fresh:
                return found
            seen |= {each.id for each in fresh}
            found += [machine for each in fresh if (machine := machine_of(each)) is not None]
            page += 1

    async def delete(self, machine: Machine) -> None:
        await self._http.drop(f"/instances/{machine.id}")


def machine_of(told: _Instance) -> Machine | None:
    """None: it is not ours."""
    named = of_name(told.name or "")
    if named is None:
        return None
    state, error, status = MachineState.STARTING, None, told.status or ""
    state = _STATES.get(status, state)
    if state is MachineState.FAILED:
        error = border.OutOfCapacity("Fluidstack", f"Fluidstack could not make {told.name} ({status})")
    port = str(told.ssh_port or 22)
    return Machine(
        id=told.id,
        mark=Mark(claim_id=named[0], index=named[1]),
        state=state,
        region=told.configuration.region if told.configuration is not None else "",
        user=told.username or "ubuntu",
        host=told.ip_address or "",
        port=int(port) if port.isdigit() else 22,
        created=told.created_at or "",
        error=error,
        stays=state is MachineState.FAILED,
    )


def _kind_of(instance_type: str) -> tuple[str, int]:
    """`H100_NVLINK_80GB::8`. Raises `RequestRefused`."""
    gpu, _, count = instance_type.partition("::")
    if not gpu or not count.isdigit():
        raise border.RequestRefused(
            "instance_type",
            f"`{instance_type}` is no type of Fluidstack: they are called like `H100_NVLINK_80GB::8`",
        )
    return gpu, int(count)


def words(said: Said) -> border.BorderError | None:
    if "stock" in said.text.lower():
        return border.OutOfCapacity(said.scope, f"Fluidstack has no {said.scope} now: {said.words}")
    return None
