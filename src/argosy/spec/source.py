"""YAML text or Python values as one tree of nodes that know where they were written.

The YAML event stream is composed here rather than by PyYAML's constructor: we need a place for every value,
the text of numbers as written, bounded depth and size (aliases can explode), and no resolution of dates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Final

import msgspec

from argosy.model.errors import ArgosyError
from argosy.spec.findings import Place, excerpt

if TYPE_CHECKING:
    import yaml

TEXT_LIMIT: Final = 4 << 20  # characters
DEPTH_LIMIT: Final = 64
SIZE_LIMIT: Final = 200_000  # values, aliases counted as often as they are used

Plain = None | bool | int | float | str


class Scalar(msgspec.Struct, frozen=True):
    """`raw` is the text as written; `plain` means unquoted, so its type was guessed from the text."""

    value: Plain
    raw: str
    place: Place
    plain: bool = True
    filled: bool = False  # a `${K}` in it was replaced


class Items(msgspec.Struct, frozen=True):
    items: tuple[Node, ...]
    place: Place


class Pairs(msgspec.Struct, frozen=True):
    """A mapping in the order in which it was written; equal keys are kept, for the reader to refuse."""

    pairs: tuple[tuple[Node, Node], ...]
    place: Place


Node = Scalar | Items | Pairs

# What PyYAML's safe loader takes for numbers and booleans (YAML 1.1), less dates and base-60 numbers, which
# people never mean. Every text that is special here is quoted by PyYAML's dumper, so rendering round-trips.
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {
    spelling: value
    for words, value in ((("yes", "true", "on"), True), (("no", "false", "off"), False))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}
_INT: Final = re.compile(r"[-+]?(?:0b[0-1_]+|0[0-7_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(
    r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"
)


def resolve_plain(text: str) -> Plain:
    """The value of an unquoted scalar.

    >>> resolve_plain("4"), resolve_plain("yes"), resolve_plain("4+"), resolve_plain("~")
    (4, True, '4+', None)
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > 400:  # no number; int() of a very long one would be slow
        return text
    try:
        if _INT.fullmatch(text):
            return _whole(text)
        if _FLOAT.fullmatch(text):
            bare = text.replace("_", "").lower()
            return float(bare.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:  # e.g. `0b_`
        return text
    return text


def _whole(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits.startswith(("0b", "0x")):
        return sign * int(digits, 0)
    if digits.startswith("0") and digits != "0":
        return sign * int(digits, 8)
    return sign * int(digits)


def scalar(text: str, place: Place) -> Scalar:
    """An unquoted scalar, e.g. the value of a flag."""
    return Scalar(resolve_plain(text), text, place)


def compose(text: str, source: str) -> tuple[Node, ...]:
    """The documents of a YAML text; empty ones are left out.

    Raises ArgosyError `spec-invalid` (malformed: place, what is wrong, what to do) or `spec-unreadable`.
    """
    import yaml  # 20 ms: only when there is YAML

    text = text.removeprefix("\ufeff")
    if len(text) > TEXT_LIMIT:
        raise ArgosyError(
            "spec-unreadable",
            f"the text has {len(text) >> 20} MiB; a task has less than {TEXT_LIMIT >> 20}",
            where=source,
            hint="put data into files and name them in `file_mounts`",
        )
    bad = _UNPRINTABLE.search(text)
    if bad:
        before = text[: bad.start()]
        line = before.count("\n") + 1
        raise ArgosyError(
            "spec-invalid",
            f"there is a control character (U+{ord(bad[0]):04X}) in the text",
            where=Place(source, line, bad.start() - (before.rfind("\n") + 1) + 1).render(),
            hint='delete it, or write it as an escape in a double-quoted text: `"\\x1b"`',
        )
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Composer(source).compose(yaml.parse(text, Loader=loader))
    except yaml.YAMLError as error:
        raise _explain(error, text, source) from None


class _Open:
    """A list or mapping whose end has not come yet."""

    __slots__ = ("anchor", "children", "is_mapping", "is_set", "place", "size")

    def __init__(self, place: Place, anchor: str | None, *, is_mapping: bool, is_set: bool = False) -> None:
        self.place = place
        self.anchor = anchor
        self.is_mapping = is_mapping
        self.is_set = is_set
        self.children: list[Node] = []
        self.size = 1


class _Composer:
    def __init__(self, source: str) -> None:
        self._source = source
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._open_anchors: set[str] = set()
        self._documents: list[Node] = []
        self._total = 0

    def compose(self, events: Any) -> tuple[Node, ...]:
        import yaml

        for event in events:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self._close(self._scalar(event), 1, event.anchor)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._start(event, is_mapping=kind is yaml.MappingStartEvent)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                opened = self._stack.pop()
                self._open_anchors.discard(opened.anchor or "")
                node = _pairs(opened) if opened.is_mapping else Items(tuple(opened.children), opened.place)
                self._close(node, opened.size, opened.anchor)
            elif kind is yaml.AliasEvent:
                self._alias(event)
            elif kind is yaml.DocumentStartEvent:
                self._anchors.clear()
        return tuple(
            node for node in self._documents if not (isinstance(node, Scalar) and node.value is None)
        )

    def _place(self, mark: yaml.Mark) -> Place:
        return Place(self._source, mark.line + 1, mark.column + 1)

    def _refuse(self, place: Place, what: str, hint: str) -> ArgosyError:
        return ArgosyError("spec-invalid", what, where=place.render(), hint=hint)

    def _start(self, event: Any, *, is_mapping: bool) -> None:
        place = self._place(event.start_mark)
        tag = _short_tag(event.tag)
        allowed = ("", "map", "set", "omap") if is_mapping else ("", "seq")
        if tag not in allowed:
            raise self._refuse(place, f"the tag `{excerpt(event.tag)}` is not supported", "leave the tag out")
        if len(self._stack) >= DEPTH_LIMIT:
            raise self._refuse(
                place, f"values are nested more than {DEPTH_LIMIT} deep", "a task needs about five levels"
            )
        if event.anchor:
            self._open_anchors.add(event.anchor)
        self._stack.append(_Open(place, event.anchor, is_mapping=is_mapping, is_set=tag == "set"))

    def _close(self, node: Node, size: int, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = (node, size)
        self._total += 1
        if not self._stack:
            self._documents.append(node)
            return
        parent = self._stack[-1]
        parent.children.append(node)
        parent.size += size
        if parent.size > SIZE_LIMIT or self._total > SIZE_LIMIT:
            raise self._refuse(
                node.place,
                f"the file expands to more than {SIZE_LIMIT:,} values",
                "use fewer aliases (`*name`)",
            )

    def _alias(self, event: Any) -> None:
        place = self._place(event.start_mark)
        if event.anchor in self._open_anchors:
            raise self._refuse(
                place, f"`*{excerpt(event.anchor)}` contains itself", "write the value out instead"
            )
        if event.anchor not in self._anchors:
            raise self._refuse(
                place,
                f"`*{excerpt(event.anchor)}` refers to an anchor that is not above it",
                f"mark the value with `&{excerpt(event.anchor)}`, or quote the text if it is no alias",
            )
        node, size = self._anchors[event.anchor]
        self._close(node, size, None)

    def _scalar(self, event: Any) -> Scalar:
        place = self._place(event.start_mark)
        raw: str = event.value
        tag = _short_tag(event.tag)
        if tag == "str" or (tag == "" and not event.implicit[0]):
            return Scalar(raw, raw, place, plain=False)
        if tag == "":
            return Scalar(resolve_plain(raw), raw, place)
        value = resolve_plain(raw)
        fits = _TAGS.get(tag)
        if fits is None:
            raise self._refuse(place, f"the tag `{excerpt(event.tag)}` is not supported", "leave the tag out")
        if not isinstance(value, fits) or (isinstance(value, bool) and tag != "bool"):
            raise self._refuse(place, f"the value does not fit its tag `!!{tag}`", "leave the tag out")
        return Scalar(value, raw, place)


_TAGS: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


def _short_tag(tag: str | None) -> str:
    if tag is None or tag == "!":
        return "str" if tag == "!" else ""
    return tag.removeprefix("tag:yaml.org,2002:") if tag.startswith("tag:yaml.org,2002:") else "?" + tag


def _pairs(opened: _Open) -> Pairs:
    """The mapping, with `<<` merged in: written keys win, then earlier merges."""
    pairs = list(zip(opened.children[::2], opened.children[1::2], strict=True))
    if not any(_is_merge(key) for key, _ in pairs):
        return Pairs(tuple(pairs), opened.place)
    own = [(key, value) for key, value in pairs if not _is_merge(key)]
    taken = {key.raw for key, _ in own if isinstance(key, Scalar)}
    for key, value in pairs:
        if not _is_merge(key):
            continue
        sources = value.items if isinstance(value, Items) else (value,)
        if not all(isinstance(source, Pairs) for source in sources):
            raise ArgosyError(
                "spec-invalid",
                "`<<` merges mappings, and this is none",
                where=value.place.render(),
                hint="write `<<: *name`, where `&name` marks a mapping",
            )
        for source in sources:
            for merged_key, merged_value in source.pairs if isinstance(source, Pairs) else ():
                raw = merged_key.raw if isinstance(merged_key, Scalar) else ""
                if raw not in taken:
                    taken.add(raw)
                    own.append((merged_key, merged_value))
    return Pairs(tuple(own), opened.place)


def _is_merge(key: Node) -> bool:
    return isinstance(key, Scalar) and key.plain and key.raw == "<<"


#: (what the problem says, what we say, hint); the first that fits. Both the C and the Python parser's words.
_PROBLEMS: Final = (
    (
        "mapping values are not allowed",
        "there is a `:` where a value has already begun",
        'quote the value (`key: "a: b"`), or check the indentation of this line and the one above',
    ),
    (
        "could not find expected ':'",
        "this line is no `key: value`",
        "add the `:`, or indent the line so that it belongs to the text above",
    ),
    (
        "did not find expected key",
        "this line does not fit the block that it stands in",
        "give it the same indentation as its neighbours",
    ),
    (
        "expected <block end>",
        "this line does not fit the block that it stands in",
        "give it the same indentation as its neighbours",
    ),
    (
        "did not find expected '-' indicator",
        "this line does not fit the list that it stands in",
        "begin each entry of the list with `- `, all with the same indentation",
    ),
    ("did not find expected ',' or ']'", "a `[` is not closed", "add the `]`"),
    ("expected ',' or ']'", "a `[` is not closed", "add the `]`"),
    ("did not find expected ',' or '}'", "a `{` is not closed", "add the `}`"),
    ("expected ',' or '}'", "a `{` is not closed", "add the `}`"),
    (
        "block sequence entries are not allowed",
        "a list begins in the middle of a line",
        "begin it on a new line",
    ),
    (
        "unknown escape character",
        "a `\\` in a double-quoted text begins no known escape",
        "use single quotes, or write `\\\\`",
    ),
    ("block collections are not allowed", "a block begins in the middle of a line", "begin it on a new line"),
    ("found undefined tag handle", "a value begins with `!`", "quote the value"),
    ("alphabetic or numeric character", "a value begins with `*` or `&`", "quote the value"),
)


def _explain(error: yaml.YAMLError, text: str, source: str) -> ArgosyError:
    problem = str(getattr(error, "problem", None) or "")
    context = str(getattr(error, "context", None) or "")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if "quoted scalar" in context and "end of stream" in problem:
        start = getattr(error, "context_mark", None) or mark
        return _malformed(start, source, "a quote is not closed", "add the closing quote")
    lines = text.split("\n")
    at = ""
    if mark is not None and mark.line < len(lines):
        line = lines[mark.line]
        at = line[mark.column : mark.column + 1]
        if "\t" in line[: len(line) - len(line.lstrip())] or at == "\t":
            return _malformed(
                mark, source, "there is a tab in the indentation", "YAML is indented with spaces only"
            )
    if "flow" in context and getattr(error, "context_mark", None) is not None:
        mark = error.context_mark  # type: ignore[attr-defined]  # where the bracket was opened
    for pattern, what, hint in _PROBLEMS:
        if pattern in problem:
            return _malformed(mark, source, what, hint)
    if "cannot start any token" in problem and at:
        return _malformed(mark, source, f"a value cannot begin with `{excerpt(at)}`", "quote the value")
    said = excerpt(problem or type(error).__name__, 80)
    return _malformed(mark, source, f"this is not valid YAML: {said}", "compare with the lines above it")


def _malformed(mark: Any, source: str, what: str, hint: str) -> ArgosyError:
    place = Place(source, mark.line + 1, mark.column + 1) if mark is not None else Place(source)
    return ArgosyError("spec-invalid", what, where=place.render(), hint=hint)


def from_python(value: object, place: Place, *, depth: int = 0) -> Node:
    """Python values as nodes that all stand at `place`.

    Raises ArgosyError `spec-invalid` for what is not plain data.
    """
    if depth > DEPTH_LIMIT:
        raise ArgosyError(
            "spec-invalid",
            f"values are nested more than {DEPTH_LIMIT} deep",
            where=place.render(),
            hint="a task needs about five levels; does the value contain itself?",
        )
    if value is None or isinstance(value, bool | int | float | str):
        # `plain` false: a Python value has its type, nothing is guessed from its text.
        return Scalar(value, "" if value is None else str(value), place, plain=False)
    if isinstance(value, Mapping):
        return Pairs(
            tuple(
                (from_python(key, place, depth=depth + 1), from_python(item, place, depth=depth + 1))
                for key, item in value.items()
            ),
            place,
        )
    if isinstance(value, Set):
        keys = sorted(value, key=str)
        return Pairs(
            tuple((from_python(key, place, depth=depth + 1), Scalar(None, "", place)) for key in keys), place
        )
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return Items(tuple(from_python(item, place, depth=depth + 1) for item in value), place)
    fspath = getattr(type(value), "__fspath__", None)
    if fspath is not None:
        return from_python(fspath(value), place, depth=depth + 1)
    raise ArgosyError(
        "spec-invalid",
        f"a `{type(value).__name__}` is no plain value",
        where=place.render(),
        hint="use text, numbers, booleans, lists and mappings",
    )
