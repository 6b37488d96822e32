"""Keys that let requests in to a service: made, shown, removed. Pure, but for who makes the secret."""

from __future__ import annotations

import msgspec

from argosy.api.services import ServiceKeyRequest, ServiceKeyView
from argosy.model.errors import ArgosyError
from argosy.model.kinds.service import AccessKey, service_spec
from argosy.model.rows import Workload

_KEYS_MAX = 1000
_NAME_MAX = 63


def with_key(row: Workload, request: ServiceKeyRequest, sha256: str, now_ms: int) -> Workload:
    """The service with this key, in place of an older one of that name. Errors: "usage"."""
    name = request.name.strip()
    if not name or len(name) > _NAME_MAX or not name.isprintable():
        raise ArgosyError("usage", f"`{name}` is no name for a key", hint="write the name of who uses it")
    limits = (
        request.requests_per_minute,
        request.tokens_per_minute,
        request.max_concurrency,
        request.expires_s,
    )
    if min(limits) < 0:
        raise ArgosyError("usage", "a limit of a key is a number of at least 0", hint="0 is no limit")
    key = AccessKey(
        name=name,
        sha256=sha256,
        requests_per_minute=request.requests_per_minute,
        tokens_per_minute=request.tokens_per_minute,
        max_concurrency=request.max_concurrency,
        expires_ms=now_ms + request.expires_s * 1000 if request.expires_s else 0,
        made_ms=now_ms,
    )
    spec = service_spec(row)
    others = tuple(each for each in spec.keys if each.name != name)
    if len(others) >= _KEYS_MAX:
        raise ArgosyError(
            "usage",
            f"`{row.name}` has {_KEYS_MAX} keys already",
            hint=f"`argosy serve key {row.name} NAME --remove` removes one",
        )
    return msgspec.structs.replace(row, spec=msgspec.structs.replace(spec, keys=(*others, key)))


def without_key(row: Workload, name: str) -> Workload:
    """The service without the key of this name. Errors: "not-found"."""
    spec = service_spec(row)
    rest = tuple(each for each in spec.keys if each.name != name)
    if len(rest) == len(spec.keys):
        raise ArgosyError(
            "not-found",
            f"`{row.name}` has no key `{name}`",
            hint=f"`argosy serve key {row.name}` lists its keys",
        )
    return msgspec.structs.replace(row, spec=msgspec.structs.replace(spec, keys=rest))


def view_keys(row: Workload) -> tuple[ServiceKeyView, ...]:
    return tuple(
        ServiceKeyView(
            name=key.name,
            requests_per_minute=key.requests_per_minute,
            tokens_per_minute=key.tokens_per_minute,
            max_concurrency=key.max_concurrency,
            expires_ms=key.expires_ms,
            made_ms=key.made_ms,
        )
        for key in service_spec(row).keys
    )


def access_of(row: Workload, *, is_local: bool) -> str:
    """Who may send requests: whoever has a key, everybody, whoever is on the machine, nobody yet."""
    spec = service_spec(row)
    if spec.keys:
        return "keys"
    if spec.public:
        return "public"
    return "machine" if is_local else "nobody"
