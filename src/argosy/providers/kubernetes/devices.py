"""Devices that drivers of a cluster list one by one (dynamic resource allocation), as what pods can claim.

A driver lists a node's devices in ResourceSlices; a DeviceClass says by an expression which of them it means;
a pod gets some by a ResourceClaim, made from a template. Pure.
https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from argosy.providers.kubernetes.amounts import model_named, quantity
from argosy.providers.kubernetes.objects import Meta, Object

#: Versions of the API that we speak, the best first.
VERSIONS: Final = ("v1", "v1beta2", "v1beta1")
REQUEST: Final = "devices"  # as the pod and its claim call it
#: Attributes that tell what a device is, as drivers call them.
_PRODUCTS: Final = ("productName", "product", "model", "deviceName")
_DRIVER: Final = re.compile(r"""device\.driver\s*==\s*(["'])(?P<value>[^"']+)\1""")
_ATTRIBUTE: Final = re.compile(
    r"""device\.attributes\[(["'])(?P<domain>[^"']+)\1\]\.(?P<name>\w+)\s*==\s*(["'])(?P<value>[^"']*)\4"""
)


class Value(Object, frozen=True):
    """An attribute: one of these."""

    string: str | None = None
    bool_: bool | None = msgspec.field(default=None, name="bool")
    int_: int | None = msgspec.field(default=None, name="int")


class Amount(Object, frozen=True):
    value: str = "0"


class Basic(msgspec.Struct, frozen=True):
    """What v1beta1 tells of a device."""

    attributes: dict[str, Value] = {}
    capacity: dict[str, Amount] = {}


class Device(Basic, frozen=True):
    name: str = ""
    basic: Basic | None = None

    @property
    def told(self) -> Basic:
        return self.basic or self


class Pool(Object, frozen=True):
    name: str = ""
    generation: int = 0


class SliceSpec(Object, frozen=True):
    driver: str = ""
    node_name: str = ""
    pool: Pool = Pool()
    devices: tuple[Device, ...] = ()


class ResourceSlice(Object, frozen=True):
    spec: SliceSpec = SliceSpec()


class _Cel(Object, frozen=True):
    expression: str = ""


class _Selector(Object, frozen=True):
    cel: _Cel = _Cel()


class _ClassSpec(Object, frozen=True):
    selectors: tuple[_Selector, ...] = ()


class DeviceClass(Object, frozen=True):
    metadata: Meta = Meta()
    spec: _ClassSpec = _ClassSpec()


class _Result(Object, frozen=True):
    driver: str = ""
    pool: str = ""
    device: str = ""


class _Results(Object, frozen=True):
    results: tuple[_Result, ...] = ()


class _Allocation(Object, frozen=True):
    devices: _Results = _Results()


class _Status(Object, frozen=True):
    allocation: _Allocation | None = None


class ResourceClaim(Object, frozen=True):
    status: _Status = _Status()


class Lot(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one node that are alike."""

    node: str
    device_class: str
    selector: str  # the expression that tells them from others of the class
    model: str  # "": not known
    profile: str  # of a MIG instance: `1g.10gb`
    device_bytes: int
    units: int
    free: int


def lots_of(
    slices: Sequence[ResourceSlice], classes: Sequence[DeviceClass], claims: Iterable[ResourceClaim]
) -> list[Lot]:
    """Devices by node and kind. Those of no class that we understand are left out."""
    newest: dict[tuple[str, str], int] = {}
    for each in slices:
        whose = (each.spec.driver, each.spec.pool.name)
        newest[whose] = max(newest.get(whose, 0), each.spec.pool.generation)
    taken = {
        (got.driver, got.pool, got.device)
        for claim in claims
        if claim.status.allocation is not None
        for got in claim.status.allocation.devices.results
    }
    found: dict[tuple[str, str, str, str, str, int], list[bool]] = {}
    for each in slices:
        driver, pool = each.spec.driver, each.spec.pool
        if not each.spec.node_name or pool.generation < newest[driver, pool.name]:
            continue
        for device in each.spec.devices:
            device_class = _class_of(driver, device, classes)
            if not device_class:
                continue
            selector, model, profile = _kind_of(driver, device)
            size = device.told.capacity.get("memory", Amount()).value
            key = (each.spec.node_name, device_class, selector, model, profile, int(quantity(size)))
            found.setdefault(key, []).append((driver, pool.name, device.name) not in taken)
    return [
        Lot(
            node=node,
            device_class=device_class,
            selector=selector,
            model=model,
            profile=profile,
            device_bytes=size,
            units=len(free),
            free=sum(free),
        )
        for (node, device_class, selector, model, profile, size), free in sorted(found.items())
    ]


def _class_of(driver: str, device: Device, classes: Sequence[DeviceClass]) -> str:
    """The first class, by name, that means a device; "": none."""
    for each in sorted(classes, key=lambda each: each.metadata.name):
        texts = [one.cel.expression for one in each.spec.selectors]
        if texts and all(_holds(text, driver, device) for text in texts):
            return each.metadata.name
    return ""


def _holds(expression: str, driver: str, device: Device) -> bool:
    """Of a conjunction of equalities, as the classes of drivers are; an expression of another form does not
    hold.

    >>> _holds('device.driver == "gpu.example.com"', "gpu.example.com", Device())
    True
    """
    for term in expression.split("&&"):
        term = term.strip().removeprefix("(").removesuffix(")").strip()
        named, attribute = _DRIVER.fullmatch(term), _ATTRIBUTE.fullmatch(term)
        if named is not None and named["value"] == driver:
            continue
        if (
            attribute is None
            or _text(driver, device, attribute["domain"], attribute["name"]) != attribute["value"]
        ):
            return False
    return True


def _text(driver: str, device: Device, domain: str, name: str) -> str | None:
    """An attribute; without a domain it is of the driver's own."""
    told = device.told.attributes
    value = told.get(f"{domain}/{name}") or (told.get(name) if domain == driver else None)
    return value.string if value is not None else None


def _kind_of(driver: str, device: Device) -> tuple[str, str, str]:
    """The expression that tells devices like this one from others, their model, and the MIG profile."""
    terms, model = [], ""
    profile = _text(driver, device, driver, "profile") or ""
    for name in _PRODUCTS:
        text = _text(driver, device, driver, name)
        if text and (model := model_named(text)):
            terms.append((name, text))
            break
    if profile:
        terms.append(("profile", profile))
    tests = [f'device.attributes["{driver}"].{name} == "{text}"' for name, text in terms]
    return " && ".join(tests), model, profile


def template_of(
    name: str, labels: Mapping[str, str], *, version: str, device_class: str, selector: str, count: int
) -> dict[str, Any]:
    """The template of which each pod of a gang gets a claim of its own."""
    wanted: dict[str, Any] = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count}
    if selector:
        wanted["selectors"] = [{"cel": {"expression": selector}}]
    request = {"name": REQUEST, **(wanted if version == "v1beta1" else {"exactly": wanted})}
    return {
        "apiVersion": f"resource.k8s.io/{version}",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {"metadata": {"labels": dict(labels)}, "spec": {"devices": {"requests": [request]}}},
    }
