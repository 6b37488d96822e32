"""Which files travel, as `sync: {include, exclude}` says. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache


def travels(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a path below what is copied does: it fits one of `include` (when there are any) and none of
    `exclude`. A pattern fits a whole path, its last name, or a folder on the way; `*` also stands for `/`.

    >>> [travels(path, ["*.pt", "conf"], ["*.tmp"]) for path in ("a/b.pt", "conf/x", "a/c.tmp", "b.txt")]
    [True, True, False, False]
    """
    if include and not any(_fits(path, pattern) for pattern in include):
        return False
    return not any(_fits(path, pattern) for pattern in exclude)


def _fits(path: str, pattern: str) -> bool:
    compiled, names_only = _compiled(pattern)
    if names_only:
        return any(compiled.fullmatch(part) for part in path.split("/"))
    if compiled.fullmatch(path):
        return True
    at = path.find("/")
    while at >= 0:
        if compiled.fullmatch(path[:at]):
            return True
        at = path.find("/", at + 1)
    return False


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> tuple[re.Pattern[str], bool]:
    plain = pattern.strip("/").removeprefix("./")
    return re.compile(translate(plain)), "/" not in plain
