"""Checks JSON against the schemas of an OpenAPI document: what a fake receives and answers against what its
vendor has published.

    spec = Spec(path)
    spec.check_request("POST", "/v2/pods", body)
    spec.check_answer("GET", "/v2/pods", 200, answer)

Unknown fields are wrong everywhere, also where a schema is silent about them: a fake that knows a field which
the vendor does not is what this is to find.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


class Spec:
    """One document, as JSON. Raises OSError, msgspec.DecodeError."""

    def __init__(self, path: Path) -> None:
        self._told: dict[str, Any] = msgspec.json.decode(path.read_bytes())

    def check_request(self, method: str, path: str, body: object) -> None:
        """Raises AssertionError, with the place in the body."""
        operation = self._operation(method, path)
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        self._hold(body, schema, f"{method} {path}")

    def check_answer(self, method: str, path: str, status: int, body: object) -> None:
        """Raises AssertionError."""
        operation = self._operation(method, path)
        answer = self._resolved(operation["responses"].get(str(status)) or operation["responses"]["default"])
        kinds = answer.get("content", {})
        content = kinds.get("application/json") or kinds.get("application/problem+json")
        if content is not None:
            self._hold(body, content["schema"], f"{status} of {method} {path}")

    def check_query(self, method: str, path: str, names: object) -> None:
        """Raises AssertionError for a parameter that the operation does not know."""
        known = {self._resolved(each)["name"] for each in self._operation(method, path).get("parameters", ())}
        assert set(dict.fromkeys(names)) <= known, f"{method} {path} knows {sorted(known)}, not {names}"  # type: ignore[call-overload]

    def _operation(self, method: str, path: str) -> dict[str, Any]:
        for pattern, operations in self._told["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path) and method.lower() in operations:
                found: dict[str, Any] = operations[method.lower()]
                return found
        raise AssertionError(f"the document has no {method} {path}")

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            found: Any = self._told
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def _hold(self, value: object, schema: dict[str, Any], where: str) -> None:
        problems = list(self._problems(value, schema, where))
        assert not problems, "\n".join(problems)

    def _problems(self, value: object, schema: dict[str, Any], where: str) -> Iterator[str]:
        parts = list(self._parts(schema))
        for choices in [part[key] for part in parts for key in ("oneOf", "anyOf") if key in part]:
            tried = [list(self._problems(value, each, where)) for each in choices]
            if all(tried):
                yield from min(tried, key=len)
                return
        for part in parts:
            yield from self._plain(value, part, where)
        if isinstance(value, dict):
            yield from self._fields(value, parts, where)
        items = next((part["items"] for part in parts if "items" in part), None)
        if isinstance(value, list) and items is not None:
            for at, each in enumerate(value):
                yield from self._problems(each, items, f"{where}[{at}]")

    def _parts(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        schema = self._resolved(schema)
        yield schema
        for each in schema.get("allOf", ()):
            yield from self._parts(each)

    def _plain(self, value: object, part: dict[str, Any], where: str) -> Iterator[str]:
        kinds = part.get("type", ())
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        wanted = tuple(kind for each in kinds for kind in _TYPES[each])
        if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
            yield f"{where} is {value!r}, and must be {' or '.join(kinds)}"
        if "enum" in part and value not in part["enum"]:
            yield f"{where} is {value!r}, and must be one of {part['enum']}"
        if isinstance(value, str) and "pattern" in part and not re.search(part["pattern"], value):
            yield f"{where} is {value!r}, and must match {part['pattern']}"
        if isinstance(value, (int, float)) and value < part.get("minimum", value):
            yield f"{where} is {value}, and must be at least {part['minimum']}"

    def _fields(self, value: dict[str, Any], parts: list[dict[str, Any]], where: str) -> Iterator[str]:
        known: dict[str, Any] = {}
        for part in parts:
            known |= part.get("properties", {})
            for name in part.get("required", ()):
                if name not in value:
                    yield f"{where} has no `{name}`"
        others = [part["additionalProperties"] for part in parts if part.get("additionalProperties")]
        for name, each in value.items():
            if name in known:
                yield from self._problems(each, known[name], f"{where}.{name}")
            elif others and isinstance(others[0], dict):
                yield from self._problems(each, others[0], f"{where}.{name}")
            elif not others and known:
                yield f"{where} knows no `{name}`"
