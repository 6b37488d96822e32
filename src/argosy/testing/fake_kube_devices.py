"""Dynamic resource allocation of the fake cluster: slices of devices, claims that pods get from templates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from argosy.testing.fake_kube_rules import JSON
from argosy.testing.fake_kube_store import Key, Store, kind_of

_TERM: Final = re.compile(r'device\.driver == "([^"]*)"|device\.attributes\["([^"]*)"\]\.(\w+) == "([^"]*)"')
Device = tuple[str, str, str]  # driver, pool, name


class Devices:
    """Which devices of a node a pod can have."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _group(self) -> str:
        """The version in which slices were put."""
        return next((key[0] for key in self._store.objects if key[1] == "resourceslices"), "")

    def fit(self, pod: JSON, node: str, promised: Mapping[Key, list[Device]]) -> list[Device] | None:
        """Devices for all claims of a pod, or None. `promised`: to others that are placed with it."""
        found: list[Device] = []
        taken = {each for devices in promised.values() for each in devices} | self._taken()
        for claim in pod["spec"].get("resourceClaims") or ():
            namespace, name = pod["metadata"]["namespace"], claim["resourceClaimTemplateName"]
            template = self._store.objects.get((self._group(), "resourceclaimtemplates", namespace, name))
            if template is None:
                return None
            for request in template["spec"]["spec"]["devices"]["requests"]:
                wanted = request.get("exactly", request)
                free = [
                    device
                    for device, told in self._on(node)
                    if device not in taken and device not in found and self._means(wanted, device, told)
                ]
                if len(free) < wanted["count"]:
                    return None
                found += free[: wanted["count"]]
        return found

    def allot(self, pod: JSON, devices: list[Device]) -> None:
        """The claims of a pod that has a node, with what they got. They go with the pod."""
        meta, group = pod["metadata"], self._group()
        for claim in pod["spec"].get("resourceClaims") or ():
            name = claim["resourceClaimTemplateName"]
            template = self._store.objects[group, "resourceclaimtemplates", meta["namespace"], name]
            results = [{"driver": driver, "pool": pool, "device": name} for driver, pool, name in devices]
            kind = kind_of(group, "resourceclaims")
            assert kind is not None
            owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
            body: JSON = {
                "metadata": {
                    **template["spec"].get("metadata", {}),
                    "name": f"{meta['name']}-{claim['name']}",
                    "ownerReferences": [owner],
                },
                "spec": template["spec"]["spec"],
                "status": {"allocation": {"devices": {"results": results}}},
            }
            self._store.add(kind, meta["namespace"], body)

    def _taken(self) -> set[Device]:
        claims = (given for _, given in self._store.of("resourceclaims", group=self._group()))
        return {
            (each["driver"], each["pool"], each["device"])
            for claim in claims
            for each in claim["status"]["allocation"]["devices"]["results"]
        }

    def _on(self, node: str) -> Iterator[tuple[Device, JSON]]:
        for _, given in self._store.of("resourceslices", group=self._group()):
            spec = given["spec"]
            if spec.get("nodeName") == node:
                for each in spec["devices"]:
                    yield (spec["driver"], spec["pool"]["name"], each["name"]), each.get("basic", each)

    def _means(self, wanted: JSON, device: Device, told: JSON) -> bool:
        found = self._store.objects.get((self._group(), "deviceclasses", "", wanted["deviceClassName"]))
        if found is None:
            return False
        selectors = [*found["spec"].get("selectors", ()), *wanted.get("selectors", ())]
        return all(_holds(each["cel"]["expression"], device[0], told) for each in selectors)


def _holds(expression: str, driver: str, told: JSON) -> bool:
    """Equalities with `&&`, `||` and brackets. One about an attribute that is not there fails."""
    values = {name: next(iter(value.values())) for name, value in told.get("attributes", {}).items()}
    text = expression.replace("'", '"')

    def value(found: re.Match[str]) -> str:
        if found[1] is not None:
            return str(found[1] == driver)
        return str(found[2] == driver and values.get(found[3]) == found[4])

    words = _TERM.sub(value, text).replace("&&", " and ").replace("||", " or ")
    if re.sub(r"True|False|and|or|[ ()]", "", words):
        raise AssertionError(f"the fake does not know this expression: {expression}")
    return bool(eval(words))


def a_slice(node: str, product: str, count: int, *, version: str = "v1", **more: Any) -> JSON:
    """The devices of one node, as NVIDIA's driver lists them; `more`: other attributes of each."""
    attributes = {"type": {"string": "gpu"}, "productName": {"string": product}}
    attributes |= {name: {"string": value} for name, value in more.items()}
    told: JSON = {"attributes": attributes, "capacity": {"memory": {"value": "80Gi"}}}
    devices = [
        {"name": f"gpu-{index}", **({"basic": told} if version == "v1beta1" else told)}
        for index in range(count)
    ]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    return {
        "metadata": {"name": f"{node}-gpu.nvidia.com"},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": node, "pool": pool, "devices": devices},
    }


def a_class(name: str, kind: str) -> JSON:
    """A class of devices, as NVIDIA's driver brings it."""
    text = f"device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == '{kind}'"
    return {"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": text}}]}}
