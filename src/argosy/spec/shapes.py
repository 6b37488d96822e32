"""The types of values that a field may hold. Parser, JSON schema and documentation all walk these same
values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from argosy.spec.findings import Place

Check = Callable[[str], object]  # text → value; ValueError says, in a sentence, what is wrong


class Text(msgspec.Struct, frozen=True):
    """Text. A number or boolean in its place is refused: it was probably meant otherwise."""

    says: str = "text"
    check: Check | None = None
    pattern: str = ""  # for the schema only


class AsText(msgspec.Struct, frozen=True):
    """Any scalar, taken as it is written: `010` stays `010`. None only where `nullable`."""

    says: str = "text or a number"
    nullable: bool = False
    booleans: bool = False  # `True` and `False` mean what they say, so nobody is warned of them


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    minimum: int | None = None
    maximum: int | None = None
    says: str = "a whole number"


class Number(msgspec.Struct, frozen=True, kw_only=True):
    minimum: float = 0.0
    says: str = "a number"


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    says: str = "`true` or `false`"


class Choice(msgspec.Struct, frozen=True):
    """One of some words, in any case; read as they are spelled here."""

    words: tuple[str, ...]

    @property
    def says(self) -> str:
        return "one of " + ", ".join(f"`{word}`" for word in self.words)


class Notation(msgspec.Struct, frozen=True):
    """Text or a number in a notation of its own, such as `4+` or `1h30m`."""

    says: str
    parse: Check
    pattern: str = ""  # for the schema only


class ListOf(msgspec.Struct, frozen=True):
    item: Shape
    one_will_do: bool = False  # a bare item counts as a list of it
    maximum: int = 1000
    says: str = "a list"


class MapOf(msgspec.Struct, frozen=True):
    """A mapping whose keys are free; read as a tuple of `Entry`."""

    key: Notation | Text
    value: Shape
    says: str = "a mapping"
    null_will_do: bool = False  # `{a, b}`: a set


class OneOf(msgspec.Struct, frozen=True):
    """The first of some shapes that takes this kind of value; only that one complains."""

    says: str
    shapes: tuple[Shape, ...]


class Then(msgspec.Struct, frozen=True):
    """A shape, and what becomes of its value; ValueError says what is wrong."""

    shape: Shape
    make: Callable[[Any], object]  # Any: whatever `shape` reads


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """Any plain data; read as JSON-like Python values."""

    says: str = "any value"
    mapping: bool = False  # only a mapping will do


class Table(msgspec.Struct, frozen=True):
    """A mapping with known fields; read as a `Section`."""

    name: str  # as in `unknown field ... in NAME`; empty for the task itself
    fields: tuple[Field, ...]
    says: str = "a mapping"
    lenient: bool = False  # unknown fields are kept and named in a warning

    def field(self, name: str) -> Field | None:
        return _index(self.fields).get(name)


Shape = (
    Text | AsText | Whole | Number | Flag | Choice | Notation | ListOf | MapOf | OneOf | Then | Open | Table
)


class Field(msgspec.Struct, frozen=True):
    """One field of the YAML, a row of a table: all that parser, schema and documentation know about it."""

    name: str
    shape: Shape
    doc: str
    example: str  # YAML of a value, for tests and documentation
    later: bool = False  # accepted and checked, not executed yet
    quiet: bool = False  # `later`, and its entries are named in warnings one by one
    keep: bool = False  # its plain data is needed besides the value
    verbatim: bool = False  # `${K}` is left to the shell that reads it
    secret: bool = False  # never quoted in a message
    also: tuple[str, ...] = ()  # what people write when they mean this field
    aliases: tuple[str, ...] = ()  # other names under which it is read
    late: bool = False  # `$SECRET` is allowed: it is resolved where the value is used, and shown nowhere
    into: str = ""  # the attribute that takes the value as it is, and of which it is written again
    show: Callable[[Any], object] | None = None  # how that attribute is written (None: as it is)


_INDICES: dict[int, tuple[tuple[Field, ...], dict[str, Field]]] = {}


def _index(fields: tuple[Field, ...]) -> dict[str, Field]:
    # Keyed by identity, with the tuple kept alive beside it: hashing a deep table is slow.
    known = _INDICES.get(id(fields))
    if known is None or known[0] is not fields:
        known = (fields, {name: field for field in fields for name in (field.name, *field.aliases)})
        _INDICES[id(fields)] = known
    return known[1]


def says(shape: Shape) -> str:
    """What fits, as in `must be ...`."""
    return says(shape.shape) if isinstance(shape, Then) else shape.says


class Entry(msgspec.Struct, frozen=True):
    """One pair of a `MapOf`."""

    key: object
    value: object
    place: Place  # of the key


_T = TypeVar("_T")


class Section:
    """A table as it was read: the values of the fields that were given and were right."""

    __slots__ = ("place", "places", "plain", "values")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.values: dict[str, object] = {}
        self.places: dict[str, Place] = {}
        self.plain: dict[str, object] = {}  # JSON-like values of the fields that are for later

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, kind: type[_T]) -> _T | None:
        """The value of `name`, which its shape reads as a `kind`; None when it was not given."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, kind):
            raise TypeError(f"the shape of `{name}` reads {type(value).__name__}, not {kind.__name__}")
        return value

    def under(self, over: Section) -> Section:
        """These values, with those of `over` in their stead where it has any."""
        merged = Section(over.place)
        for attribute in ("values", "places", "plain"):
            setattr(merged, attribute, {**getattr(self, attribute), **getattr(over, attribute)})
        return merged

    def without(self, *names: str) -> Section:
        rest = Section(self.place)
        rest.values = {name: value for name, value in self.values.items() if name not in names}
        rest.places = {name: place for name, place in self.places.items() if name not in names}
        rest.plain = {name: value for name, value in self.plain.items() if name not in names}
        return rest
