"""Which files a copy takes, and what a synchronisation does: patterns, comparisons, names a disk cannot hold.
Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

import msgspec

NAME_MAX_BYTES: Final = 255  # of one part of a path, on the usual file systems
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_WILD: Final = re.compile(r"[*?\[]")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file or an object, by its name below the side that it is on, with `/`."""

    name: str
    size: int  # bytes
    modified_ms: int = 0
    etag: str = ""


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which names are meant: those that an `include` fits (none: all), and no `exclude`. A pattern without
    `/` fits the last part of a name, another the whole of it; `*` stops at a `/` and `**` does not."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, name: str) -> bool:
        """
        >>> rules = Rules(include=("*.csv",), exclude=("old/**",))
        >>> [rules.takes(name) for name in ("a/b.csv", "b.txt", "old/x/b.csv")]
        [True, False, False]
        """
        if self.include and not any(fits(each, name) for each in self.include):
            return False
        return not any(fits(each, name) for each in self.exclude)


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """What a synchronisation does. `copies`: names of the source; `removes`: of the target."""

    copies: tuple[Entry, ...] = ()
    removes: tuple[str, ...] = ()
    same: int = 0  # how many need nothing


def fits(pattern: str, name: str) -> bool:
    return _pattern(pattern).fullmatch(name if "/" in pattern else name.rpartition("/")[2]) is not None


def wild_split(key: str) -> tuple[str, str]:
    """A key with wildcards as the prefix before them, up to a `/`, and the whole as a pattern; ("" : none).

    >>> wild_split("train/2026-*/x.csv"), wild_split("train/x")
    (('train/', 'train/2026-*/x.csv'), ('train/x', ''))
    """
    found = _WILD.search(key)
    if found is None:
        return key, ""
    return key[: key.rfind("/", 0, found.start()) + 1], key


@lru_cache(256)
def _pattern(text: str) -> re.Pattern[str]:
    out, at = "", 0
    while at < len(text):
        char = text[at]
        if text.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
            continue
        if text.startswith("**", at):
            out, at = out + ".*", at + 2
            continue
        end = text.find("]", at + 2) if char == "[" else -1
        if end > 0:
            inner = text[at + 1 : end].replace("\\", "\\\\")
            out, at = out + f"[{'^' + inner[1:] if inner[0] == '!' else inner}]", end + 1
            continue
        out += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        at += 1
    return re.compile(out, re.DOTALL)


def is_digest(etag: str) -> bool:
    """Whether an ETag is the MD5 of the bytes, by its look."""
    return _MD5.fullmatch(etag) is not None


def same_objects(source: Entry, target: Entry) -> bool:
    """Whether two objects are taken for the same: by their digests where both tell them, else by size and by
    who is younger."""
    if source.size != target.size:
        return False
    if is_digest(source.etag) and is_digest(target.etag):
        return source.etag == target.etag
    return target.modified_ms >= source.modified_ms or (source.etag == target.etag != "")


def steps(
    source: Iterable[Entry],
    target: Iterable[Entry],
    same: Callable[[Entry, Entry], bool],
    rules: Rules,
    *,
    removes: bool,
) -> Steps:
    """What makes the target as the source is, of the names that `rules` take; others stay as they are."""
    there: Mapping[str, Entry] = {each.name: each for each in target if rules.takes(each.name)}
    copies, kept, seen = [], 0, set()
    for each in source:
        if not rules.takes(each.name):
            continue
        seen.add(each.name)
        old = there.get(each.name)
        if old is not None and same(each, old):
            kept += 1
        else:
            copies.append(each)
    gone = tuple(sorted(name for name in there if name not in seen)) if removes else ()
    return Steps(copies=tuple(copies), removes=gone, same=kept)


def not_on_disk(names: Iterable[str]) -> dict[str, str]:
    """Names that cannot be files below one folder together, and why.

    >>> not_on_disk(["a", "a/b", "c"]), not_on_disk(["../x"])
    ({'a': 'it is a folder, too'}, {'../x': 'it leads out of the folder'})
    """
    every = list(names)
    folders = {name[:at] for name in every for at in _slashes(name)}
    found = {}
    for name in every:
        parts = name.split("/")
        if name.startswith("/") or ".." in parts:
            found[name] = "it leads out of the folder"
        elif any(part in ("", ".") for part in parts):
            found[name] = "a part of it is empty"
        elif "\0" in name:
            found[name] = "it has a zero byte"
        elif any(len(part.encode("utf-8", "surrogateescape")) > NAME_MAX_BYTES for part in parts):
            found[name] = f"a part of it has more than {NAME_MAX_BYTES} bytes"
        elif name in folders:
            found[name] = "it is a folder, too"
    return found


def _slashes(name: str) -> Iterable[int]:
    return (at for at, char in enumerate(name) if char == "/")
