"""Objects of the fake API server: versions, watches that may be too old, owners, finalizers, quotas."""

from __future__ import annotations

import asyncio
import copy
import re
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Final, NamedTuple

from argosy.testing.fake_kube_rules import JSON, KINDS, Kind, Refused, amount

_KEPT: Final = 5000
Key = tuple[str, str, str, str]  # group, plural, namespace, name


class Entry(NamedTuple):
    """A change, for watches."""

    version: int
    type: str
    key: Key
    object: JSON


class Store:
    """All objects by key."""

    def __init__(self) -> None:
        self.version = 0
        self.objects: dict[Key, JSON] = {}
        self.log: list[Entry] = []
        self.compacted = 0  # watches from before this are too old
        self.news = asyncio.Event()
        self.removed: Callable[[Key, JSON], None] = lambda key, given: None

    def of(self, plural: str, namespace: str = "", group: str = "v1") -> Iterator[tuple[Key, JSON]]:
        for key, given in sorted(self.objects.items()):
            if key[:2] == (group, plural) and namespace in ("", key[2]):
                yield key, given

    def tell(self, type_: str, key: Key, given: JSON) -> None:
        self.version += 1
        given["metadata"]["resourceVersion"] = str(self.version)
        self.log.append(Entry(self.version, type_, key, copy.deepcopy(given)))
        if len(self.log) > _KEPT:
            self.compacted = self.log[0].version
            del self.log[0]
        self.news.set()
        self.news = asyncio.Event()

    def add(self, kind: Kind, namespace: str, body: JSON) -> JSON:
        """Raises Refused when it is there, its namespace is not, or a quota does not allow it."""
        meta = body["metadata"]
        key = (kind.group, kind.plural, namespace, meta["name"])
        if kind.namespaced and ("v1", "namespaces", "", namespace) not in self.objects:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        old = self.objects.get(key)
        if old is not None:
            ending = "object is being deleted: " if old["metadata"].get("deletionTimestamp") else ""
            raise Refused(409, "AlreadyExists", f'{ending}{kind.plural} "{meta["name"]}" already exists')
        if kind.name == "Pod":
            self._check_quotas(namespace, meta["name"], body)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": stamp()}
        if kind.namespaced:
            meta["namespace"] = namespace
        if kind.name == "Pod":
            body["status"] = {"phase": "Pending"}
        body |= {"kind": kind.name, "apiVersion": kind.group}
        self.objects[key] = body
        self.tell("ADDED", key, body)
        return body

    def change(self, key: Key, **status: object) -> None:
        """Fields of its status."""
        given = self.objects.get(key)
        if given is not None:
            given["status"] = {**given.get("status", {}), **status}
            self.tell("MODIFIED", key, given)

    def remove(self, key: Key) -> None:
        """Now, unless a finalizer keeps it; with all that it owns."""
        given = self.objects.get(key)
        if given is None:
            return
        if given["metadata"].get("finalizers"):
            given["metadata"].setdefault("deletionTimestamp", stamp())
            self.tell("MODIFIED", key, given)
            return
        del self.objects[key]
        self.tell("DELETED", key, given)
        self.removed(key, given)
        uid = given["metadata"]["uid"]
        for other, one in list(self.objects.items()):
            if any(owner["uid"] == uid for owner in one["metadata"].get("ownerReferences") or ()):
                self.remove(other)

    def _check_quotas(self, namespace: str, name: str, body: JSON) -> None:
        asked = requests_of(body)
        for key, quota in self.of("resourcequotas", namespace):
            hard = quota["spec"]["hard"]
            used = {resource: Decimal(0) for resource in hard}
            for _, pod in self.of("pods", namespace):
                if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                    for resource, value in requests_of(pod).items():
                        used[resource] = used.get(resource, Decimal(0)) + value
            over = [each for each in hard if used[each] + asked.get(each, Decimal(0)) > amount(hard[each])]
            if over:
                words = {
                    "requested": ",".join(f"{each}={asked.get(each, 0)}" for each in over),
                    "used": ",".join(f"{each}={used[each]}" for each in over),
                    "limited": ",".join(f"{each}={hard[each]}" for each in over),
                }
                text = ", ".join(f"{word}: {value}" for word, value in words.items())
                raise Refused(
                    403, "Forbidden", f'pods "{name}" is forbidden: exceeded quota: {key[3]}, {text}'
                )


def requests_of(pod: JSON) -> dict[str, Decimal]:
    """What a pod counts in quotas, by `requests.NAME` and `NAME`."""
    total: dict[str, Decimal] = {"pods": Decimal(1)}
    for each in pod["spec"]["containers"]:
        have = each.get("resources") or {}
        for name, value in {**(have.get("limits") or {}), **(have.get("requests") or {})}.items():
            for key in (f"requests.{name}", name):
                total[key] = total.get(key, Decimal(0)) + amount(value)
    return total


def merge(given: JSON, patch: JSON) -> None:
    """A merge patch."""
    for name, value in patch.items():
        if value is None:
            given.pop(name, None)
        elif isinstance(value, dict) and isinstance(given.get(name), dict):
            merge(given[name], value)
        else:
            given[name] = value


def json_patch(given: JSON, steps: list[JSON]) -> None:
    """`remove`, `add` and `replace` of maps. Raises Refused."""
    for step in steps:
        *path, last = [re.sub("~1", "/", part) for part in step["path"].split("/")[1:]]
        place = given
        for part in path:
            place = place.get(part, {})
        if step["op"] == "remove":
            if last not in place:
                raise Refused(422, "Invalid", f"the server rejected our request: {step['path']} is not there")
            del place[last]
        else:
            place[last] = step["value"]


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def kind_of(group: str, plural: str) -> Kind | None:
    return next((each for each in KINDS if each.group == group and each.plural == plural), None)
