"""Errors and warnings about an input: collected, then reported all at once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.task import render_ignored

LIMIT: Final = 20  # errors told at once; a file with more is another kind of file


class Place(NamedTuple):
    """Where a value was written. A Python call or a flag has no lines: `line` is 0."""

    source: str
    line: int = 0
    column: int = 0

    def render(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Warning_(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that the user should know and that stops nothing."""

    where: str
    what: str
    hint: str = ""
    ignored: tuple[str, ...] = ()  # the fields that it names, when it is about what is not supported yet

    def without(self, names: Collection[str]) -> Warning_:
        """The same, but for fields that are heeded after all."""
        if not self.ignored:
            return self
        left = tuple(name for name in self.ignored if name not in names)
        return msgspec.structs.replace(self, what=render_ignored(left) if left else "", ignored=left)

    def render(self) -> str:
        """The warning in one line, e.g. `train.yaml:3:1: not supported yet, ignored: pool, sync`."""
        return f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class Finding(NamedTuple):
    place: Place
    what: str
    hint: str


class Findings:
    """Errors and warnings of one input. Never given a secret's value."""

    def __init__(self) -> None:
        self._errors: list[Finding] = []
        self._wrong: set[object] = set()
        self._warnings: list[tuple[Place, Warning_]] = []
        self._said: set[str] = set()
        self._ignored: dict[str, Place] = {}

    @property
    def warnings(self) -> tuple[Warning_, ...]:
        """In the order of the text; what is not supported yet is told in one, at the first such field."""
        found = list(self._warnings)
        if self._ignored:
            place = min(self._ignored.values(), key=_order)
            found.append(
                (
                    place,
                    Warning_(where=place.render(), what="", ignored=tuple(sorted(self._ignored))).without(()),
                )
            )
        return tuple(warning for _, warning in sorted(found, key=lambda pair: _order(pair[0])))

    @property
    def has_errors(self) -> bool:
        return bool(self._errors)

    def ignore(self, place: Place, name: str) -> None:
        """A field that is read, kept and not supported yet."""
        self._ignored.setdefault(name, place)

    def error(self, place: Place, what: str, hint: str = "") -> None:
        # One error per place: an anchor that is used twice is wrong once, and a second complaint about the
        # same value only follows from the first.
        key: object = place if place.line else (place, what)
        if key not in self._wrong:
            self._wrong.add(key)
            self._errors.append(Finding(place, what, hint))

    def warn(self, place: Place, what: str, hint: str = "", *, once: str = "") -> None:
        """Say `what`; with `once`, only the first time for that key."""
        if once in self._said:
            return
        if once:
            self._said.add(once)
        self._warnings.append((place, Warning_(where=place.render(), what=what, hint=hint)))

    def raise_if_any(self) -> None:
        """Raise one `spec-invalid` for all errors: the first in full, the others as details."""
        if not self._errors:
            return
        errors = sorted(self._errors, key=lambda finding: _order(finding.place))
        first = errors[0]
        details = []
        hints = {first.hint, ""}  # each is said once
        for place, what, hint in errors[1:LIMIT]:
            details.append(f"{place.render()}: {what}" + (f" ({hint})" if hint not in hints else ""))
            hints.add(hint)
        if len(errors) > LIMIT:
            details.append(f"and {len(errors) - LIMIT} more")
        raise ArgosyError(
            "spec-invalid", first.what, hint=first.hint, where=first.place.render(), details=tuple(details)
        )


def _order(place: Place) -> tuple[bool, int, int]:
    return (place.line == 0, place.line, place.column)


def excerpt(text: str, limit: int = 40) -> str:
    """`text` fit to stand in a sentence: one line, not long.

    >>> excerpt("a\\nb")
    'a b'
    """
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= limit else line[: limit - 3] + "..."
