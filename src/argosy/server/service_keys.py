"""Keys that let requests in to a service: made, shown, removed. Pure, but for who makes the secret."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from argosy.api.service_keys import ServiceKeyRequest, ServiceKeyView
from argosy.controllers.service.routes import MODELS, guards_models
from argosy.model.errors import ArgosyError
from argosy.model.kinds.service import AccessKey, service_spec
from argosy.model.rows import Workload
from argosy.model.service_keys import KeyUse, Prices

_KEYS_MAX: Final = 1000
_NAME_MAX: Final = 63
_MICRO_USD_MAX: Final = 10**15  # a thousand million dollars
_NO_USE: Final = KeyUse()


def access_key(request: ServiceKeyRequest, sha256: str, now_ms: int) -> AccessKey:
    """What is asked for, as it is kept. Errors: "usage"."""
    name = request.name.strip()
    if not name or len(name) > _NAME_MAX or not name.isprintable() or name.startswith(MODELS):
        raise ArgosyError("usage", f"`{name}` is no name for a key", hint="write the name of who uses it")
    limits = (
        request.requests_per_minute,
        request.tokens_per_minute,
        request.max_concurrency,
        request.budget_micro_usd,
        request.expires_s,
    )
    if min(limits) < 0:
        raise ArgosyError("usage", "a limit of a key is a number of at least 0", hint="0 is no limit")
    if request.budget_micro_usd > _MICRO_USD_MAX:
        raise ArgosyError("usage", "a budget is at most $1,000,000,000", hint="0 is no limit")
    return AccessKey(
        name=name,
        sha256=sha256,
        requests_per_minute=request.requests_per_minute,
        tokens_per_minute=request.tokens_per_minute,
        max_concurrency=request.max_concurrency,
        budget_micro_usd=request.budget_micro_usd,
        period=request.period,
        expires_ms=now_ms + request.expires_s * 1000 if request.expires_s else 0,
        made_ms=now_ms,
    )


def check_paid(key: AccessKey, row: Workload) -> None:
    """Its budget can be spent. Errors: "usage"."""
    if key.budget_micro_usd and not service_spec(row).prices:
        raise ArgosyError(
            "usage",
            f"`{row.name}` has no prices, so the budget of `{key.name}` would never be spent",
            hint=f"say them first: `argosy serve price {row.name} --input 0.25 --output 2` ($ a million)",
        )


def with_key(row: Workload, request: ServiceKeyRequest, sha256: str, now_ms: int) -> Workload:
    """The service with this key, in place of an older one of that name. Errors: "usage"."""
    key, spec = access_key(request, sha256, now_ms), service_spec(row)
    check_paid(key, row)
    others = tuple(each for each in spec.keys if each.name != key.name)
    if len(others) >= _KEYS_MAX:
        raise ArgosyError(
            "usage",
            f"`{row.name}` has {_KEYS_MAX} keys already",
            hint=f"`argosy serve key {row.name} NAME --remove` removes one",
        )
    return msgspec.structs.replace(row, spec=msgspec.structs.replace(spec, keys=(*others, key)))


def with_prices(row: Workload, prices: Prices) -> Workload:
    """The service whose requests cost so much from now on. Errors: "usage"."""
    amounts = (prices.input, prices.output, prices.requests)
    if not all(0 <= each <= _MICRO_USD_MAX for each in amounts):
        raise ArgosyError("usage", "a price is from $0 to $1,000,000,000 a million")
    spec = service_spec(row)
    paying = [each for each in spec.keys if each.budget_micro_usd]
    changed = msgspec.structs.replace(row, spec=msgspec.structs.replace(spec, prices=prices))
    if paying and not prices:
        check_paid(paying[0], changed)
    return changed


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


def view_keys(keys: Iterable[AccessKey], uses: Mapping[str, KeyUse]) -> tuple[ServiceKeyView, ...]:
    """`uses`: by name."""
    return tuple(_view_key(key, uses.get(key.name, _NO_USE)) for key in keys)


def _view_key(key: AccessKey, use: KeyUse) -> ServiceKeyView:
    return ServiceKeyView(
        name=key.name,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        max_concurrency=key.max_concurrency,
        budget_micro_usd=key.budget_micro_usd,
        period=key.period,
        spent_micro_usd=use.spent_micro_usd,
        requests=use.requests,
        refused=use.refused,
        input_tokens=use.input_tokens,
        output_tokens=use.output_tokens,
        last_use_ms=use.last_use_ms,
        expires_ms=key.expires_ms,
        made_ms=key.made_ms,
    )


def added_uses(uses: Iterable[Mapping[str, KeyUse]]) -> dict[str, KeyUse]:
    """Of keys that several services have, each with limits of its own there."""
    return _together(uses, lambda one, other: one + other)


def model_key_uses(uses: Iterable[Mapping[str, KeyUse]]) -> dict[str, KeyUse]:
    """Of keys of all language models, by name: each service tells what was spent at all of them."""
    found = _together(uses, max)
    return {id.removeprefix(MODELS): use for id, use in found.items() if id.startswith(MODELS)}


def _together(uses: Iterable[Mapping[str, KeyUse]], spent: Callable[[int, int], int]) -> dict[str, KeyUse]:
    found: dict[str, KeyUse] = {}
    for each in uses:
        for id, use in each.items():
            before = found.get(id, _NO_USE)
            found[id] = KeyUse(
                requests=before.requests + use.requests,
                refused=before.refused + use.refused,
                input_tokens=before.input_tokens + use.input_tokens,
                output_tokens=before.output_tokens + use.output_tokens,
                spent_micro_usd=spent(before.spent_micro_usd, use.spent_micro_usd),
                last_use_ms=max(before.last_use_ms, use.last_use_ms),
            )
    return found


def access_of(row: Workload, *, is_local: bool, has_model_keys: bool = False) -> str:
    """Who may send requests: whoever has a key, everybody, whoever is on the machine, nobody yet.
    `has_model_keys`: the language models of its project have keys."""
    spec = service_spec(row)
    if spec.keys or (has_model_keys and guards_models(row)):
        return "keys"
    if spec.public:
        return "public"
    return "machine" if is_local else "nobody"
