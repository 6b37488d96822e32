"""A mapping from text to values that never changes: a change makes a new one that shares what stayed the
same.

Rows of keys and values in chunks of about 64, and one list of chunks: a change of k keys copies at most k
chunks and the list (n/64), so it costs microseconds where a copied dict costs the number of all rows.
Iterates in order of keys, which makes `span` (all keys with one beginning) an index scan.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from itertools import chain
from typing import Any, Final, Generic, TypeVar, cast

V = TypeVar("V")
D = TypeVar("D")

_FULL: Final = 128  # a longer chunk is split
_GOOD: Final = 64  # into chunks of this length
_THIN: Final = 16  # a shorter chunk joins its right neighbour

_Chunk = tuple[tuple[str, ...], tuple[V, ...]]


class _Values(ValuesView[V], Generic[V]):
    __slots__ = ()
    _mapping: SortedMap[V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(values for _, values in self._mapping._chunks)


class _Items(ItemsView[str, V], Generic[V]):
    __slots__ = ()
    _mapping: SortedMap[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return chain.from_iterable(zip(keys, values, strict=True) for keys, values in self._mapping._chunks)


class SortedMap(Mapping[str, V], Generic[V]):
    """Immutable and sorted by key.

    >>> a = SortedMap[int]().changed({"b": 2, "a": 1})
    >>> b = a.changed({"a": None, "c": 3})
    >>> dict(a), dict(b)
    ({'a': 1, 'b': 2}, {'b': 2, 'c': 3})
    """

    __slots__ = ("_chunks", "_firsts", "_size")

    def __init__(self) -> None:
        self._firsts: tuple[str, ...] = ()  # the first key of each chunk
        self._chunks: tuple[_Chunk[V], ...] = ()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(keys for keys, _ in self._chunks)

    def __getitem__(self, key: str) -> V:
        found = self.get(key, self)
        if found is self:
            raise KeyError(key)
        return cast(V, found)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key, self) is not self

    def get(self, key: str, default: Any = None, /) -> Any:  # Any: as typeshed, V | whatever the default is
        at = bisect_right(self._firsts, key) - 1
        if at < 0:
            return default
        keys, values = self._chunks[at]
        place = bisect_left(keys, key)
        return values[place] if place < len(keys) and keys[place] == key else default

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[str, V]:
        return _Items(self)

    def span(self, beginning: str) -> tuple[V, ...]:
        """The values of all keys that start with `beginning`, in order of keys. O(answer + log)."""
        at = max(bisect_right(self._firsts, beginning) - 1, 0)
        parts: list[tuple[V, ...]] = []
        while at < len(self._chunks):
            keys, values = self._chunks[at]
            start = bisect_left(keys, beginning)
            stop = start if start < len(keys) else len(keys)
            if keys[-1].startswith(beginning):
                stop = len(keys)
            else:
                while stop < len(keys) and keys[stop].startswith(beginning):
                    stop += 1
            if stop > start:
                parts.append(values[start:stop])
            if stop < len(keys):
                break
            at += 1
        return parts[0] if len(parts) == 1 else tuple(chain.from_iterable(parts))

    def changed(self, changes: Mapping[str, V | None]) -> SortedMap[V]:
        """The map with these keys set; None takes a key out (absent is fine)."""
        if not changes:
            return self
        by_chunk: dict[int, list[str]] = {}
        for key in sorted(changes):
            by_chunk.setdefault(max(bisect_right(self._firsts, key) - 1, 0), []).append(key)
        firsts, chunks = list(self._firsts), list(self._chunks)
        size = self._size
        for at in sorted(by_chunk, reverse=True):  # from the end: places before stay as they were
            keys: list[str] = list(chunks[at][0]) if chunks else []
            values: list[V] = list(chunks[at][1]) if chunks else []
            size -= len(keys)
            for key in by_chunk[at]:
                value = changes[key]
                place = bisect_left(keys, key)
                there = place < len(keys) and keys[place] == key
                if value is None:
                    if there:
                        del keys[place], values[place]
                elif there:
                    values[place] = value
                else:
                    keys.insert(place, key)
                    values.insert(place, value)
            size += len(keys)
            end = at + 1
            if 0 < len(keys) < _THIN and end < len(chunks):
                keys += chunks[end][0]
                values += chunks[end][1]
                end += 1
            pieces: list[_Chunk[V]]
            if len(keys) <= _FULL:
                pieces = [(tuple(keys), tuple(values))] if keys else []
            else:
                pieces = [
                    (tuple(keys[start : start + _GOOD]), tuple(values[start : start + _GOOD]))
                    for start in range(0, len(keys), _GOOD)
                ]
            chunks[at:end] = pieces
            firsts[at:end] = [piece[0][0] for piece in pieces]
        made: SortedMap[V] = SortedMap()
        made._firsts, made._chunks, made._size = tuple(firsts), tuple(chunks), size
        return made

    def differences(self, before: SortedMap[V]) -> Iterator[tuple[V | None, V | None]]:
        """(value before, value now) of every key where they are not the same object; None: it is not there.
        By key.

        Chunks that both share are not looked at, so this costs what changed, not what there is.
        """
        if before is self:
            return
        mine = {id(chunk) for chunk in self._chunks}
        theirs = {id(chunk) for chunk in before._chunks}
        was = dict(_pairs(chunk for chunk in before._chunks if id(chunk) not in mine))
        now = dict(_pairs(chunk for chunk in self._chunks if id(chunk) not in theirs))
        for key in sorted(was.keys() | now.keys()):
            old, new = was.get(key), now.get(key)
            if old is not new:
                yield old, new


def _pairs(chunks: Iterable[_Chunk[V]]) -> Iterator[tuple[str, V]]:
    return chain.from_iterable(zip(keys, values, strict=True) for keys, values in chunks)
