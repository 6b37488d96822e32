"""`service.models`: several models, or versions of one, behind one endpoint. Each becomes a task of its own.

    service:
      models:
        small:    {weight: 90, envs: {MODEL: org/small}}
        small-v2: {weight: 10, envs: {MODEL: org/small-v2}, resources: {accelerators: L4:1}}

What a model says comes over what the task says: `envs` and `resources` field by field, `run`, `setup`,
`replicas` and `replica_policy` as a whole. Weights are per cent of the requests that name no model.
"""

from __future__ import annotations

from typing import Final

from argosy.model.errors import suggest
from argosy.spec.findings import Findings, Place, excerpt
from argosy.spec.source import Node, Pairs, Scalar

_OF_TASK: Final = ("run", "setup")
_MERGED: Final = ("envs", "resources")
_OF_SERVICE: Final = ("replicas", "replica_policy")
_OWN: Final = ("weight", "model")
FIELDS: Final = (*_OWN, *_OF_TASK, *_MERGED, *_OF_SERVICE)


def expand_models(document: Node, findings: Findings) -> tuple[Node, ...]:
    """The document itself, or one for each of its `service.models`."""
    service = _get(document, "service")
    models = _get(service, "models")
    if not isinstance(document, Pairs) or not isinstance(service, Pairs) or not isinstance(models, Pairs):
        return (document,)
    entries = [(str(key.value), value, key.place) for key, value in models.pairs if isinstance(key, Scalar)]
    if not entries:
        findings.error(models.place, "`models` names none", "write `models: {small: {weight: 100}}`")
        return (document,)
    weights = _weights(entries, models.place, findings)
    named = _get(document, "name")
    endpoint = str(named.value) if isinstance(named, Scalar) and named.value else "models"
    found = []
    for name, value, place in entries:
        fields = dict(_fields(name, value, place, findings))
        said = fields.pop("model", None)
        own = {
            "model": said if said is not None else _scalar(name, place),
            "endpoint": _scalar(endpoint, place),
            "share": _scalar(weights[name], place),
        }
        found.append(_document(document, service, f"{endpoint}-{_slug(name)}", fields, own, place))
    return tuple(found)


def _fields(name: str, value: Node, place: Place, findings: Findings) -> list[tuple[str, Node]]:
    if isinstance(value, Scalar) and value.value is None:
        return []
    if not isinstance(value, Pairs):
        findings.error(value.place, f"`models.{name}` is not a mapping", "write `{weight: 50}`")
        return []
    found = []
    for key, each in value.pairs:
        text = str(key.value) if isinstance(key, Scalar) else ""
        if text not in FIELDS:
            hint = suggest(text, FIELDS) or f"a model has {', '.join(FIELDS)}"
            findings.error(key.place, f"unknown field `{excerpt(text)}` in `models.{name}`", hint)
        elif text != "weight":
            found.append((text, each))
    return found


def _weights(
    entries: list[tuple[str, Node, Place]], place: Place, findings: Findings
) -> dict[str, int | float]:
    """Per cent, by model. All or none say theirs; they sum to 100."""
    said: dict[str, int | float] = {}
    for name, value, _ in entries:
        weight = _get(value, "weight")
        if isinstance(weight, Scalar) and isinstance(weight.value, int | float) and weight.value >= 0:
            said[name] = weight.value
        elif weight is not None:
            findings.error(
                weight.place, f"the weight of `{name}` is not a number from 0", "write `weight: 50`"
            )
    if not said:
        return {name: 100 / len(entries) for name, _, _ in entries}
    total = sum(said.values())
    if abs(total - 100) > 0.01:
        findings.error(
            place,
            f"the weights of `models` sum to {total:g}, not to 100",
            "give each its per cent of the requests that name no model; 0 is one that must be named",
        )
    return {name: said.get(name, 0) for name, _, _ in entries}


def _document(
    document: Pairs, service: Pairs, name: str, fields: dict[str, Node], own: dict[str, Node], place: Place
) -> Node:
    """The task of one model."""
    inside = {key: value for key, value in fields.items() if key in _OF_SERVICE}
    dropped = {"models", *own, *(_OF_SERVICE if inside else ())}
    kept = tuple(pair for pair in service.pairs if _text(pair[0]) not in dropped)
    served = Pairs((*kept, *_pairs({**inside, **own}, place)), service.place)
    over = {key: value for key, value in fields.items() if key not in _OF_SERVICE}
    for key in _MERGED:
        base = _get(document, key)
        if key in over and isinstance(base, Pairs) and isinstance(over[key], Pairs):
            over[key] = _over(base, over[key])
    over |= {"name": _scalar(name, place), "service": served}
    rest = tuple(pair for pair in document.pairs if _text(pair[0]) not in over)
    return Pairs((*rest, *_pairs(over, place)), document.place)


def _over(base: Pairs, more: Node) -> Node:
    assert isinstance(more, Pairs)
    names = {_text(key) for key, _ in more.pairs}
    return Pairs((*(pair for pair in base.pairs if _text(pair[0]) not in names), *more.pairs), base.place)


def _pairs(fields: dict[str, Node], place: Place) -> tuple[tuple[Node, Node], ...]:
    return tuple((_scalar(name, place), value) for name, value in fields.items())


def _scalar(value: str | float, place: Place) -> Scalar:
    return Scalar(value, str(value), place, plain=not isinstance(value, str))


def _get(node: Node | None, name: str) -> Node | None:
    if not isinstance(node, Pairs):
        return None
    return next((value for key, value in node.pairs if _text(key) == name), None)


def _text(key: Node) -> str:
    return str(key.value) if isinstance(key, Scalar) else ""


def _slug(name: str) -> str:
    """
    >>> _slug("Qwen/Qwen3-8B")
    'qwen3-8b'
    """
    last = name.rstrip("/").rpartition("/")[2].lower()
    return "".join(letter if letter.isalnum() else "-" for letter in last).strip("-")
