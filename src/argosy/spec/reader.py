"""Reads nodes by their shapes; for what does not fit, it reports what was expected and what was found."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Final

from argosy.model.errors import near, suggest
from argosy.spec.fields import ELSEWHERE, FOREIGN, TASK
from argosy.spec.fields_resources import CANDIDATE
from argosy.spec.findings import Findings, Place, excerpt
from argosy.spec.shapes import (
    AsText,
    Choice,
    Entry,
    Field,
    Flag,
    ListOf,
    MapOf,
    Notation,
    Number,
    OneOf,
    Open,
    Section,
    Shape,
    Table,
    Text,
    Then,
    Whole,
    says,
)
from argosy.spec.source import Items, Node, Pairs, Scalar, resolve_plain


class _Invalid:
    """What could not be read. The finding is already written."""


INVALID: Final = _Invalid()
_REFERENCE: Final = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
#: Left as they are without a word: the node's shell or home knows them.
_OF_THE_NODE: Final = frozenset({"HOME", "USER", "PWD", "TMPDIR"})


class Reader:
    """Reads one document. `later` collects the names of fields that are accepted but not executed."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._envs: Mapping[str, str] = {}
        self._secrets: frozenset[str] = frozenset()
        self._verbatim = True
        self._late = False
        self._secret = False
        self.later: list[str] = []

    def know(self, envs: Mapping[str, str], secrets: frozenset[str]) -> None:
        """From now on `${K}` stands for `envs[K]`; of `secrets` only the names are needed."""
        self._envs = envs
        self._secrets = secrets
        self._verbatim = False

    # --------------------------------------------------------------------------------------- tables

    def section(
        self, node: Node, table: Table, path: str, *, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()
    ) -> Section:
        """The table's fields: all, or `only` some, or all but some. Nothing is said about those left out."""
        section = Section(node.place)
        if not isinstance(node, Pairs):
            if not (isinstance(node, Scalar) and node.value is None):
                self._mistyped(node, table, path or "the task")
            return section
        seen: set[str] = set()
        for key, value in node.pairs:
            name = key.value if isinstance(key, Scalar) else None
            field = table.field(name) if isinstance(name, str) else None
            if (only and (field is None or field.name not in only)) or (field and field.name in skip):
                continue
            if field is None:
                self._unknown(key, value, table, section)
            elif field.name in seen:
                self._findings.error(
                    key.place, f"`{field.name}` is given twice{_within(table)}", "keep one of the two"
                )
            else:
                seen.add(field.name)
                self._field(field, key, value, table, path, section)
        return section

    def _field(self, field: Field, key: Node, node: Node, table: Table, path: str, section: Section) -> None:
        if isinstance(node, Scalar) and node.value is None:
            return  # `setup:` with nothing under it is as good as left out
        saved = self._verbatim, self._secret, self._late
        self._late = self._late or field.late
        self._verbatim = self._verbatim or field.verbatim
        self._secret = self._secret or field.secret
        try:
            where = f"{path}.{field.name}" if path else field.name
            value = self.read(node, field.shape, where)
            if value is INVALID or (field.later and value in ((), {})):
                return  # an empty list asks for nothing that could be executed later
            section.values[field.name] = value
            section.places[field.name] = key.place if key.place.line else node.place
            if (field.later and not field.quiet) or field.keep:
                section.plain[field.name] = self.plain(node, where)
            if field.later and not field.quiet:
                self.postpone(f"{table.name}.{field.name}" if table.name else field.name, key.place)
        finally:
            self._verbatim, self._secret, self._late = saved

    def postpone(self, name: str, place: Place) -> None:
        """`name` is read, kept and not supported yet."""
        if name not in self.later:
            self.later.append(name)
        self._findings.ignore(place, name)

    def missing(self, section: Section, path: str, name: str, otherwise: str) -> None:
        """Say that `section` lacks a field that it must have."""
        self._findings.error(section.place, f"`{path}` has no `{name}`", f"add `{name}: ...`, {otherwise}")

    def _unknown(self, key: Node, value: Node, table: Table, section: Section) -> None:
        if not isinstance(key, Scalar) or not isinstance(key.value, str):
            if isinstance(key, Scalar) and key.value is True and key.raw in FOREIGN and not table.name:
                self._findings.error(key.place, f"unknown field `{key.raw}`", FOREIGN[key.raw])
                return
            found = self._found(key)
            self._findings.error(
                key.place,
                f"a field must have a name, found {found}{_within(table)}",
                "quote `{{ }}` and the like; write `name: value`",
            )
            return
        name = key.value
        if table.lenient:
            section.plain[name] = self.plain(value, name)
            self._findings.warn(
                key.place,
                f"`{table.name}.{excerpt(name)}` is not known here and is kept as it is",
                suggest(name, [field.name for field in table.fields], otherwise=""),
                once=f"lenient {table.name}.{name}",
            )
            return
        self._findings.error(
            key.place, f"unknown field `{excerpt(name)}`{_within(table)}", _hint_for(name, table)
        )

    # --------------------------------------------------------------------------------------- shapes

    def read(self, node: Node, shape: Shape, path: str) -> object:
        """The value of `node`, or INVALID after a finding."""
        node = self._substituted(node)
        match shape:
            case Table():
                if not isinstance(node, Pairs):
                    return self._mistyped(node, shape, path)
                return self.section(node, shape, path)
            case Then():
                value = self.read(node, shape.shape, path)
                return value if value is INVALID else self._attempt(node, path, shape.make, value)
            case OneOf():
                for option in shape.shapes:
                    if _takes(option, node):
                        return self.read(node, option, path)
                return self._mistyped(node, shape, path)
            case ListOf():
                return self._list(node, shape, path)
            case MapOf():
                return self._map(node, shape, path)
            case Open():
                if shape.mapping and not isinstance(node, Pairs):
                    return self._mistyped(node, shape, path)
                return self.plain(node, path)
        if not _takes(shape, node) or not isinstance(node, Scalar):
            return self._mistyped(node, shape, path)
        return self._scalar(node, shape, path)

    def _scalar(self, node: Scalar, shape: Shape, path: str) -> object:
        value = node.value
        match shape:
            case Flag() | Open():
                return value
            case Whole():
                fits = isinstance(value, int) and _between(value, shape.minimum, shape.maximum)
                return value if fits else self._mistyped(node, shape, path)
            case Number():
                number = float(value) if isinstance(value, int | float) and abs(value) < 1e300 else math.nan
                return value if number >= shape.minimum else self._mistyped(node, shape, path)
            case Choice():
                folded = {word.lower(): word for word in shape.words}
                word = folded.get(str(value).lower())
                if word is None:
                    hint = suggest(str(value), shape.words)
                    return self._mistyped(node, shape, path, hint)
                return word
            case Text(check=check) | Notation(parse=check):
                wrong = _unfit_text(node.raw)
                if wrong:
                    self._findings.error(node.place, f"`{path}` {wrong}", "remove it")
                    return INVALID
                return node.raw if check is None else self._attempt(node, path, check, node.raw)
            case AsText():
                wrong = _unfit_text(node.raw)
                if wrong:
                    self._findings.error(node.place, f"`{path}` {wrong}", "remove it")
                    return INVALID
                if isinstance(value, bool) and node.plain and not (self._secret or shape.booleans):
                    self._findings.warn(
                        node.place,
                        f"`{path}` is the text `{node.raw}`",
                        "quote it to say so; SkyPilot makes `True` or `False` of it",
                    )
                return None if value is None else node.raw
        raise TypeError(shape)

    def _attempt(self, node: Node, path: str, make: Callable[..., object], value: object) -> object:
        try:
            return make(value)
        except ValueError as error:
            if self._secret:
                self._findings.error(
                    node.place,
                    f"`{path}` has an entry that is not written right",
                    "names of variables are letters, digits and `_`, and do not begin with "
                    "`ARGOSY_` or `SKYPILOT_`"
                    if path.startswith("secrets")
                    else "",
                )
                return INVALID
            what, _, hint = str(error).partition("; ")
            colon = "" if what.startswith("must ") else ":"
            self._findings.error(node.place, f"{_name(path)}{colon} {what}", hint)
            return INVALID

    def _list(self, node: Node, shape: ListOf, path: str) -> object:
        if not isinstance(node, Items):
            if shape.one_will_do and _takes(shape.item, node):
                value = self.read(node, shape.item, path)
                return value if value is INVALID else (value,)
            return self._mistyped(node, shape, path)
        if len(node.items) > shape.maximum:
            self._findings.error(
                node.place, f"`{path}` has {len(node.items)} entries; at most {shape.maximum} are taken"
            )
            return INVALID
        values = [self.read(item, shape.item, f"{path}[{index}]") for index, item in enumerate(node.items)]
        return INVALID if any(value is INVALID for value in values) else tuple(values)

    def _map(self, node: Node, shape: MapOf, path: str) -> object:
        if not isinstance(node, Pairs):
            return self._mistyped(node, shape, path)
        entries: list[Entry] = []
        seen: set[object] = set()
        right = True
        for key_node, value_node in node.pairs:
            key_node = self._substituted(key_node)
            if not isinstance(key_node, Scalar) or key_node.value is None:
                self._findings.error(
                    key_node.place,
                    f"a key of `{path}` must be {says(shape.key)}, found {self._found(key_node)}",
                )
                right = False
                continue
            # A key is text, whatever it looks like: `8000: x` or `on: x` mean what is written.
            text = Scalar(key_node.raw, key_node.raw, key_node.place, plain=False)
            key = self.read(text, shape.key, path if self._secret else f"a key of `{path}`")
            shown = path if self._secret else f"{path}.{excerpt(key_node.raw)}"
            if key is INVALID:
                right = False
            elif key in seen:
                told = "a variable" if self._secret else f"`{excerpt(key_node.raw)}`"
                self._findings.error(
                    key_node.place, f"{told} is given twice in `{path}`", "keep one of the two"
                )
                right = False
                continue
            seen.add(key)
            empty = isinstance(value_node, Scalar) and value_node.value is None
            nullable = shape.null_will_do or (isinstance(shape.value, AsText) and shape.value.nullable)
            value = None if empty and nullable else self.read(value_node, shape.value, shown)
            if value is INVALID:
                right = False
            else:
                entries.append(Entry(key, value, key_node.place))
        return tuple(entries) if right else INVALID

    # ----------------------------------------------------------------------------------- plain data

    def plain(self, node: Node, path: str) -> object:
        """JSON-like Python values. What JSON cannot hold is a finding."""
        node = self._substituted(node)
        if isinstance(node, Items):
            return [self.plain(item, path) for item in node.items]
        if isinstance(node, Pairs):
            result: dict[str, object] = {}
            for key_node, value in node.pairs:
                key_node = self._substituted(key_node)
                if not isinstance(key_node, Scalar):
                    self._findings.error(
                        key_node.place, f"a key in `{path}` must be text, found {self._found(key_node)}"
                    )
                    continue
                if key_node.raw in result:
                    self._findings.error(
                        key_node.place,
                        f"`{excerpt(key_node.raw)}` is given twice in `{path}`",
                        "keep one of the two",
                    )
                    continue
                result[key_node.raw] = self.plain(value, path)
            return result
        wrong = _unfit_text(node.raw)
        if wrong:
            self._findings.error(node.place, f"`{path}` {wrong}", "remove it")
            return None
        if isinstance(node.value, float) and not math.isfinite(node.value):
            return node.raw
        if isinstance(node.value, int) and abs(node.value) >= 1 << 63:
            return node.raw
        return node.value

    def _substituted(self, node: Node) -> Node:
        if self._verbatim or not isinstance(node, Scalar) or "$" not in node.raw:
            return node
        text = _REFERENCE.sub(lambda match: self._value_of(match, node.place), node.raw)
        if text == node.raw:
            return node
        value = resolve_plain(text) if node.plain else text
        return Scalar(value, text, node.place, plain=node.plain, filled=True)

    def _value_of(self, match: re.Match[str], place: Place) -> str:
        name = match[1] or match[2]
        if name in self._envs:
            return self._envs[name]
        if name in self._secrets and not self._late:
            self._findings.error(
                place,
                f"the secret `{name}` is used outside of `setup` and `run`, where it would be shown",
                f"move `{name}` to `envs` if it is none, or read it from the environment in `run`",
            )
        elif match[1] and name not in _OF_THE_NODE and name not in self._secrets:
            guess = near(name, self._envs)
            self._findings.warn(
                place,
                f"`${{{excerpt(name)}}}` is not in `envs` and stays as it is",
                f"did you mean `{guess}`?" if guess else "",
                once=f"unset {name} {place}",
            )
        return match[0]

    # ------------------------------------------------------------------------------------- findings

    def _found(self, node: Node) -> str:
        kind = f"{'an' if _kind(node)[0] in 'aeiou' else 'a'} {_kind(node)}"
        if not isinstance(node, Scalar) or node.value is None or self._secret:
            return "nothing" if isinstance(node, Scalar) and node.value is None else kind
        return f"the {_kind(node)} `{excerpt(node.raw)}`"

    def _mistyped(self, node: Node, shape: Shape, path: str, hint: str = "") -> _Invalid:
        if not hint and isinstance(node, Scalar) and isinstance(shape, Text) and node.value is not None:
            hint = "quote it if it is meant as text"
        if not hint and isinstance(node, Items) and path in ("setup", "run"):
            hint = f"write the commands one below the other after `{path}: |`"
        if not hint and isinstance(node, Pairs) and node.pairs and isinstance(node.pairs[0][0], Pairs):
            hint = "fill in the template first, or quote the value"
        if path == "the task":
            hint = "a task is written in lines such as `run: echo hello`"
        what = f"{_name(path)} must be {says(shape)}, found {self._found(node)}"
        self._findings.error(node.place, what, hint)
        return INVALID


def _between(value: int, minimum: int | None, maximum: int | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _takes(shape: Shape, node: Node) -> bool:
    """Whether `shape` is meant for this kind of value."""
    match shape:
        case Then():
            return _takes(shape.shape, node)
        case OneOf():
            return any(_takes(option, node) for option in shape.shapes)
        case ListOf():
            return isinstance(node, Items) or (shape.one_will_do and _takes(shape.item, node))
        case MapOf() | Table():
            return isinstance(node, Pairs)
        case Open():
            return isinstance(node, Pairs) or not shape.mapping
    if not isinstance(node, Scalar):
        return False
    if node.filled and isinstance(shape, Text):
        return True
    if node.value is None:
        return False
    value = node.value
    match shape:
        case Flag():
            return isinstance(value, bool)
        case Whole():
            return isinstance(value, int) and not isinstance(value, bool)
        case Number():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Text():
            return isinstance(value, str)
        case Notation():
            return not isinstance(value, bool)
        case Choice():
            return not isinstance(value, bool) or str(value).lower() in shape.words
    return True


def _kind(node: Node) -> str:
    if isinstance(node, Items):
        return "list"
    if isinstance(node, Pairs):
        return "mapping"
    if isinstance(node.value, bool):
        return "boolean"
    return "text" if isinstance(node.value, str) else "number" if node.value is not None else "empty value"


def _unfit_text(text: str) -> str:
    if "\0" in text:
        return "contains a NUL character"
    if any("\ud800" <= c <= "\udfff" for c in text) if not text.isascii() else False:
        return "contains half a character (a lone surrogate)"
    return ""


def _name(path: str) -> str:
    return path if path == "the task" or path.startswith("a key of ") else f"`{path}`"


def _within(table: Table) -> str:
    return f" in {table.name}" if table.name else ""


def _hint_for(name: str, table: Table) -> str:
    """What the user probably meant by an unknown field."""
    folded = name.lower().replace("-", "_")
    for field in table.fields:
        if folded in (field.name, *field.also):
            return f"did you mean `{field.name}`?"
    if not table.name and CANDIDATE.field(folded):
        return f"`{folded}` belongs under `resources:`"
    if not table.name and folded in FOREIGN:
        return FOREIGN[folded]
    if (table.name, folded) in ELSEWHERE:
        return ELSEWHERE[table.name, folded]
    if not table.name and name in FOREIGN:
        return FOREIGN[name]
    if table.name == "resources" and TASK.field(folded):
        return f"`{folded}` belongs at the top, beside `resources:`"
    if not table.name:
        for field in CANDIDATE.fields:
            if folded in field.also:
                return f"did you mean `{field.name}`, under `resources:`?"
    meant = {spelling: field.name for field in table.fields for spelling in (*field.also, field.name)}
    guess = near(name, [spelling for spelling in meant if not spelling.startswith("_")])
    if guess:
        return f"did you mean `{meant[guess]}`?"
    return _list_of([field.name for field in table.fields], table)


def _list_of(known: list[str], table: Table) -> str:
    if len(known) <= 12:
        return "known are " + ", ".join(f"`{name}`" for name in known)
    return "the documentation lists the fields" + _within(table)
