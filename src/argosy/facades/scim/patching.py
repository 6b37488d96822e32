"""PATCH of SCIM (RFC 7644, 3.5.2) over a resource as JSON. Pure."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from argosy.facades.scim.filters import BadFilter, key_of, parse_filter, plain_path

_PATH: Final = re.compile(
    r"(?P<name>[^\[\].]+)(?:\[(?P<filter>.*)\])?(?:\.(?P<sub>[A-Za-z$]+))?\Z", re.DOTALL
)
_OPERATIONS_MAX: Final = 1000


class BadPatch(ValueError):
    """What is asked cannot be done; `kind` is SCIM's word for it."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def patched(resource: Mapping[str, Any], request: Mapping[str, Any], fixed: frozenset[str]) -> dict[str, Any]:
    """The resource with these operations done, in their order. `fixed`: names that cannot be written. Raises
    BadPatch."""
    operations = request.get(key_of(request, "operations"))
    if not isinstance(operations, list) or not operations or len(operations) > _OPERATIONS_MAX:
        raise BadPatch("invalidSyntax", "a PATCH has a list of Operations")
    changed = copy.deepcopy(dict(resource))
    for each in operations:
        if not isinstance(each, dict):
            raise BadPatch("invalidSyntax", "an operation is an object")
        _do(changed, {key.lower(): value for key, value in each.items()}, fixed)
    return changed


def _do(resource: dict[str, Any], operation: Mapping[str, Any], fixed: frozenset[str]) -> None:
    verb, path, value = str(operation.get("op", "")).lower(), operation.get("path"), operation.get("value")
    if verb not in ("add", "replace", "remove"):
        raise BadPatch("invalidSyntax", f"there is no operation `{verb[:20]}`")
    if path is None or path == "":
        if verb == "remove" or not isinstance(value, dict):
            raise BadPatch("noTarget", "without a path, the value is an object of attributes")
        for name, inner in value.items():
            _at(resource, verb, str(name), inner, fixed)
        return
    _at(resource, verb, str(path), value, fixed)


def _at(resource: dict[str, Any], verb: str, path: str, value: Any, fixed: frozenset[str]) -> None:
    found = _PATH.match(_after_schema(path))
    if found is None:
        raise BadPatch("invalidPath", f"`{path[:100]}` is no path")
    name, test, sub = key_of(resource, found["name"]), found["filter"], found["sub"]
    if name.lower() in fixed:
        if verb != "remove" and value == resource.get(name):
            return  # says what is so already
        raise BadPatch("mutability", f"`{name}` cannot be written")
    if test is not None:
        _in_list(resource, verb, name, test, sub, value)
    elif sub:
        inner = resource.get(name)
        if isinstance(inner, list):
            _in_list(resource, verb, name, "", sub, value)
            return
        inner = dict(inner) if isinstance(inner, dict) else {}
        _set(inner, verb, key_of(inner, sub), value)
        resource[name] = inner
    else:
        _set(resource, verb, name, value)


def _set(resource: dict[str, Any], verb: str, name: str, value: Any) -> None:
    there = resource.get(name)
    if verb == "remove":
        if isinstance(there, list) and value:  # some identity providers say whom to remove in `value`
            gone = [_value(each) for each in (value if isinstance(value, list) else [value])]
            resource[name] = [each for each in there if _value(each) not in gone]
        else:
            resource.pop(name, None)
    elif verb == "add" and isinstance(there, list):
        more = value if isinstance(value, list) else [value]
        known = [_value(each) for each in there]
        resource[name] = [*there, *(each for each in more if _value(each) not in known)]
    elif verb == "add" and isinstance(there, dict) and isinstance(value, dict):
        resource[name] = {**there, **value}
    else:
        resource[name] = value


def _in_list(resource: dict[str, Any], verb: str, name: str, test: str, sub: str | None, value: Any) -> None:
    try:
        passes = parse_filter(test) if test else lambda _: True
    except BadFilter as error:
        raise BadPatch("invalidPath", str(error)) from None
    there = [each for each in resource.get(name) or [] if isinstance(each, dict)]
    hits = [each for each in there if passes(each)]
    if verb == "remove" and not sub:
        resource[name] = [each for each in there if not passes(each)]
        return
    if not hits:
        made = _asked_for(test)
        if verb == "remove" or made is None:
            raise BadPatch("noTarget", f"nothing in `{name}` is what the path says")
        there.append(made)
        hits = [made]
    for each in hits:
        if sub:
            _set(each, verb, key_of(each, sub), value)
        elif isinstance(value, dict):
            each.update(value)
        else:
            raise BadPatch("invalidValue", f"an element of `{name}` is an object")
    resource[name] = there


def _asked_for(test: str) -> dict[str, Any] | None:
    """What `type eq "work"` describes, for an element that is not there yet."""
    words = re.fullmatch(r'\s*([A-Za-z]+)\s+eq\s+("(?:[^"\\]|\\.)*"|true|false)\s*', test, re.IGNORECASE)
    return {words[1]: json.loads(words[2].lower() if words[2][0] != '"' else words[2])} if words else None


def _after_schema(path: str) -> str:
    head, bracket, rest = path.partition("[")
    return plain_path(head) + bracket + rest


def _value(each: Any) -> Any:
    return each.get("value", each) if isinstance(each, dict) else each
