"""A stored tree as text, in which a few entries are found and replaced without reading the others.

An entry of a stored tree begins with its path (`model.tree.Entry`), and JSON writes a quotation mark within a
text with a backslash before it: `{"path":"` is where an entry begins, and nowhere else.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.tree import CHANGE_MAX, Entry, TreeChange, folders_above

_HEAD: Final = b'{"entries":['
_TAIL: Final = b"]}"
_CHANGES: Final = 64
_START: Final = b'{"path":"'


class Changes:
    """The last changes of trees, unless they are large. `expecting` hear the digest of each tree that a
    client is about to change."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[tuple[str, str], TreeChange] = collections.OrderedDict()
        self.expecting: list[Callable[[str], None]] = []

    def get(self, since: str, digest: str) -> TreeChange | None:
        return self._kept.get((since, digest))

    def keep(self, digest: str, change: TreeChange) -> None:
        if len(change.entries) + len(change.removed) > CHANGE_MAX:
            return
        self._kept[change.since, digest] = change
        while len(self._kept) > _CHANGES:
            self._kept.popitem(last=False)

    def expect(self, digest: str) -> None:
        for call in self.expecting:
            call(digest)


class TreeText:
    """Raises KeyError for a text that is not of a folder's tree."""

    def __init__(self, text: bytes) -> None:
        if not text.startswith(_HEAD) or not text.endswith(_TAIL):
            raise KeyError("not the text of a folder")
        pieces = text[len(_HEAD) : -len(_TAIL)].removeprefix(_START).split(b"," + _START)
        self._pieces = {_path_in(piece): piece for piece in pieces if piece}  # by paths as they are written

    def entry(self, path: str) -> Entry | None:
        piece = self._pieces.get(_written(path))
        return msgspec.json.decode(_START + piece, type=Entry) if piece is not None else None

    def text(self) -> bytes:
        if not self._pieces:
            return _HEAD + _TAIL
        return _HEAD + _START + (b"," + _START).join(self._pieces.values()) + _TAIL

    def change(self, change: TreeChange) -> TreeChange:
        """Replace, add and remove; returns the change with the folders that it touches, and those that go.
        Raises `path-escapes`."""
        gone: list[str] = []
        for path in change.removed:
            removed = self.entry(path)
            if removed is not None:
                del self._pieces[_written(path)]
                gone += [path, *folders_above(path)] if removed.kind == "d" else folders_above(path)
        is_new = False
        closed: set[bytes] = set()  # what has become something that holds nothing
        for entry in change.entries:
            was = self.entry(entry.path)
            is_new = is_new or was is None
            if entry.kind != "d" and (was is None or was.kind == "d"):
                closed.add(_written(entry.path))
            self._pieces[_written(entry.path)] = msgspec.json.encode(entry)[len(_START) :]
        if is_new:
            self._pieces = dict(sorted(self._pieces.items(), key=lambda item: _read(item[0])))
        self._refuse_contents(closed)
        told = {entry.path for entry in change.entries}
        holding = {above for path in told for above in folders_above(path)}
        for path in holding:
            entry_above = self.entry(path)
            if entry_above is not None and entry_above.kind != "d":
                text = f"`{path}`, which is not a folder, holds something in this tree"
                raise ArgosyError("path-escapes", text)
        left = {above for path in change.removed for above in folders_above(path)}
        touched = (holding | left) - told
        folders = [each for path in sorted(touched) if (each := self.entry(path)) and each.kind == "d"]
        return msgspec.structs.replace(change, entries=(*folders, *change.entries), folders=self._empty(gone))

    def _refuse_contents(self, closed: set[bytes]) -> None:
        for key in self._pieces if closed else ():
            if not closed.isdisjoint(_above_written(key)):
                text = f"`{_read(key)}` is inside something that is not a folder"
                raise ArgosyError("path-escapes", text)

    def _empty(self, gone: Iterable[str]) -> tuple[str, ...]:
        """Of the folders that are gone, or held what is, those in which nothing is any more."""
        maybe = {_written(path): path for path in gone}
        for key in self._pieces if maybe else ():
            maybe.pop(key, None)
            for above in _above_written(key):
                maybe.pop(above, None)
        return tuple(sorted(maybe.values()))


def _path_in(piece: bytes) -> bytes:
    end = piece.index(b'"')
    while (end - len(piece[:end].rstrip(b"\\"))) % 2:  # this one is part of the text
        end = piece.index(b'"', end + 1)
    return piece[:end]


def _written(path: str) -> bytes:
    return msgspec.json.encode(path)[1:-1]


def _read(key: bytes) -> str:
    return msgspec.json.decode(b'"' + key + b'"', type=str)


def _above_written(key: bytes) -> list[bytes]:
    pieces = key.split(b"/")
    return [b"/".join(pieces[:count]) for count in range(1, len(pieces))]
