"""Strict checks of requests at every depth: a field that this server does not know is an error with its path.

msgspec refuses unknown fields of `api.endpoint.Request`; the model types inside (tasks, resources) are read
leniently everywhere else, because stored rows and newer peers have fields of their own. So the walk over what
was sent is here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec

from argosy.model.errors import ArgosyError, near

T = TypeVar("T")
#: Returns the path of the first unknown field and what it may have been meant to be.
_Check = Callable[[Any, str], "tuple[str, str] | None"]  # Any: JSON of any shape


def decode_strictly(kind: type[T], body: bytes) -> T:
    """The request in `body`. Raises `spec-invalid` that names the field (`where` is a path such as
    `task.resources[0]`)."""
    try:
        value = msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `")
        where = path.removesuffix("`").removeprefix("$").lstrip(".")
        hint = "the server is of another version than the client, or the request was written by hand"
        raise ArgosyError("spec-invalid", _lower(text), where=where, hint=hint) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArgosyError("spec-invalid", f"the body is not JSON: {error}", hint="send JSON") from None
    check = _check_of(typing.cast("typing.Hashable", kind))
    found = check(msgspec.json.decode(body or b"{}"), "") if check is not None else None
    if found is not None:
        path, meant = found
        name = path.rpartition(".")[2]
        hint = f"did you mean `{meant}`?" if meant else "the server may be older than the client"
        raise ArgosyError("spec-invalid", f"unknown field `{name}`", where=path, hint=hint)
    return value


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


@cache
def _check_of(kind: Any) -> _Check | None:
    """What to check of a value of this type; None where nothing can be unknown."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _check_struct(kind)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        checks = [check for check in map(_check_of, args) if check is not None]
        return checks[0] if checks else None  # of our unions at most one member is a struct
    if origin is tuple and len(args) == 2 and args[1] is ...:
        inside = _check_of(args[0])
        return None if inside is None else _check_items(inside)
    return None


def _check_items(inside: _Check) -> _Check:
    def check(value: Any, path: str) -> tuple[str, str] | None:
        if isinstance(value, list):
            for position, item in enumerate(value):
                found = inside(item, f"{path}[{position}]")
                if found is not None:
                    return found
        return None

    return check


def _check_struct(kind: type[msgspec.Struct]) -> _Check:
    fields = {field.encode_name: _check_of(field.type) for field in msgspec.structs.fields(kind)}
    known = set(fields)
    tag = kind.__struct_config__.tag_field
    if tag is not None:
        known.add(tag)
    deeper = {name: check for name, check in fields.items() if check is not None}

    def check(value: Any, path: str) -> tuple[str, str] | None:
        if not isinstance(value, dict):
            return None
        if not value.keys() <= known:
            name = next(name for name in value if name not in known)
            return (f"{path}.{name}" if path else name), near(name, known) or ""
        for name, inside in deeper.items():
            if name in value:
                found = inside(value[name], f"{path}.{name}" if path else name)
                if found is not None:
                    return found
        return None

    return check
