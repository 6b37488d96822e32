"""`matrix:` of a task file: every combination of some values, with `include` and `exclude`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Final

from argosy.model.errors import near
from argosy.spec.findings import Findings, Place, excerpt
from argosy.spec.names import parse_variable
from argosy.spec.shapes import Entry, Section
from argosy.spec.source import Items, Node, Pairs, Scalar, scalar

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
COMBINATIONS_MAX: Final = 20_000
DISTINCT_MAX: Final = 1000  # of which each is a task of its own, because more than its commands differs
_PLACE: Final = re.compile(r"\{\{\s*matrix\.([A-Za-z_][A-Za-z0-9_-]*)\s*\}\}")
_COMMANDS: Final = frozenset(("run", "setup", "envs"))  # filled in when the job is made
_OWN: Final = frozenset(("matrix", "after", "depends_on"))
Values = dict[str, str]


def combinations(matrix: tuple[object, ...], place: Place, findings: Findings) -> list[Values]:
    """The combinations of a matrix as it was read, in the order in which it was written."""
    axes: dict[str, list[str]] = {}
    special: dict[str, list[Values]] = {"include": [], "exclude": []}
    for entry in matrix:
        assert isinstance(entry, Entry) and isinstance(entry.key, str)
        values = entry.value if isinstance(entry.value, tuple) else ()
        if entry.key in special:
            special[entry.key] = [_mapping(each) for each in values if _is_mapping(each)]
            if len(special[entry.key]) < len(values):
                findings.error(
                    entry.place, f"`{entry.key}` lists mappings", "for example `[{lr: 0.1, model: small}]`"
                )
        elif any(map(_is_mapping, values)):
            findings.error(entry.place, f"`{entry.key}` lists values, not mappings", "for example `[1, 2]`")
        elif not values:
            findings.error(entry.place, f"`{entry.key}` has no value", "give it a list of values")
        elif wrong := _wrong_name(entry.key):
            findings.error(entry.place, wrong, "give the value another name")
        else:
            axes[entry.key] = list(dict.fromkeys(map(str, values)))
    size = 1
    for choices in axes.values():
        size *= len(choices)
    if size > COMBINATIONS_MAX:
        findings.error(
            place, f"the matrix has {size:,} combinations; at most {COMBINATIONS_MAX:,} are taken", ""
        )
        return []
    found = [dict(zip(axes, chosen, strict=True)) for chosen in product(*axes.values())] if axes else []
    found = [each for each in found if not any(_covers(each, one) for one in special["exclude"])]
    for more in special["include"]:
        _include(found, more, axes)
    if not found and not findings.has_errors:
        findings.error(place, "the matrix has no combination", "give it values, or exclude less")
    return found


def _wrong_name(name: str) -> str:
    """Why a value cannot be called so; "" when it can. It is a variable of the task where its name is one."""
    if not _NAME.fullmatch(name):
        return f"`{excerpt(name)}` is no name for a value: letters, digits, `_` and `-`"
    if not name.isidentifier():
        return ""
    try:
        parse_variable(name)
    except ValueError as error:
        return str(error)
    return ""


def _include(found: list[Values], more: Values, axes: Mapping[str, object]) -> None:
    """Values of no axis are added to the combinations that have the others; where none has, it is a
    combination of its own."""
    shared = {name: value for name, value in more.items() if name in axes}
    fitting = [each for each in found if _covers(each, shared)]
    if fitting and len(shared) < len(more):
        for each in fitting:
            each.update(more)
    elif not any(each == more for each in found):
        found.append(dict(more))


def _covers(values: Values, some: Values) -> bool:
    return all(values.get(name) == value for name, value in some.items())


def _is_mapping(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, Entry) for each in value)


def _mapping(value: object) -> Values:
    assert isinstance(value, tuple)
    return {str(each.key): str(each.value) for each in value}


def check_names(node: Node, found: list[Values], findings: Findings) -> None:
    """Every `{{matrix.NAME}}` in the document is a value that all combinations have."""
    known = set.intersection(*(set(each) for each in found)) if found else set()
    for each in _scalars(node):
        for match in _PLACE.finditer(each.raw):
            if match[1] not in known and found:
                guess = near(match[1], known)
                findings.error(
                    each.place,
                    f"`{{{{matrix.{excerpt(match[1])}}}}}` is no value of the matrix",
                    f"did you mean `{guess}`?" if guess else f"it has {', '.join(sorted(known)) or 'none'}",
                )


def is_plain(node: Node, found: list[Values]) -> bool:
    """Whether only commands and variables differ between the combinations: then it is one task."""
    if not isinstance(node, Pairs):
        return True
    names = {name for each in found for name in each}
    for key, value in node.pairs:
        if isinstance(key, Scalar) and key.raw in _COMMANDS | _OWN:
            continue
        for each in _scalars(value):
            if "{{" in each.raw or ("$" in each.raw and any(name in each.raw for name in names)):
                return False
    return True


def filled(node: Node, values: Values) -> Node:
    """The document with `{{matrix.NAME}}` filled in. A value that is nothing else becomes what it looks
    like."""
    match node:
        case Scalar():
            whole = _PLACE.fullmatch(node.raw.strip())
            if whole is not None and whole[1] in values:
                return scalar(values[whole[1]], node.place)
            if "{{" not in node.raw:
                return node
            text = _PLACE.sub(lambda found: values.get(found[1], found[0]), node.raw)
            return Scalar(text, text, node.place, plain=False)
        case Items():
            return Items(tuple(filled(each, values) for each in node.items), node.place)
    return Pairs(tuple((filled(key, values), filled(value, values)) for key, value in node.pairs), node.place)


def _scalars(node: Node) -> Iterator[Scalar]:
    match node:
        case Scalar():
            yield node
        case Items():
            for each in node.items:
                yield from _scalars(each)
        case Pairs():
            for key, value in node.pairs:
                yield from _scalars(key)
                yield from _scalars(value)


def variables(values: Values) -> Values:
    """Those whose names can be variables of the task."""
    return {name: value for name, value in values.items() if name.isidentifier()}


def read_matrix(section: Section, findings: Findings) -> list[Values]:
    """The combinations of a task; [] when it has no matrix."""
    matrix = section.get("matrix", tuple)
    return combinations(matrix, section.places["matrix"], findings) if matrix else []
