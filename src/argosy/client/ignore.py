"""Ignore files with exactly git's meaning, as regular expressions. No I/O here.

Our own instead of `pathspec`: that one lets a pattern that matches a folder also decide about everything
below it, which differs from git for negated patterns in nested files, and importing it costs 55 ms of the
time to the first line of output. A test compares this one with git on generated folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_CLASSES: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\s",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


class Rule(NamedTuple):
    """One line of an ignore file."""

    ignores: bool  # False: `!pattern`, which takes back an earlier one
    folders_only: bool
    matches: re.Pattern[str]  # of the whole path below the ignore file's folder


class Rules(NamedTuple):
    """An ignore file, for paths below its own folder. `below` is that folder: "" or ends with `/`."""

    below: str
    rules: tuple[Rule, ...]  # the last one first: it counts

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        """Whether `path` (below the scanned folder) is ignored; None when no line speaks of it."""
        name = _bytewise(path[len(self.below) :])
        for rule in self.rules:
            if (is_folder or not rule.folders_only) and rule.matches.fullmatch(name):
                return rule.ignores
        return None


def is_ignored(path: str, is_folder: bool, files: Sequence[Rules]) -> bool:
    """Whether to leave `path` out. Of several ignore files the nearest one that speaks of it decides.

    What lies in an ignored folder is never asked about: nothing can take it back, as in git.
    """
    for rules in reversed(files):
        verdict = rules.verdict(path, is_folder)
        if verdict is not None:
            return verdict
    return False


def parse_rules(text: str, below: str = "") -> Rules:
    """The rules of an ignore file. Like git, it is silent about lines that can match nothing.

    >>> rules = parse_rules("*.log\\n!keep.log\\nbuild/\\n")
    >>> [rules.verdict(name, False) for name in ("a.log", "x/keep.log", "build")]
    [True, False, None]
    """
    lines = _bytewise(text.removeprefix("\ufeff")).split("\n")
    rules = [rule for line in lines if (rule := _parse_line(line))]
    return Rules(below, tuple(reversed(rules)))


def _bytewise(text: str) -> str:
    """Each byte of UTF-8 as one character: for git, `?` is one byte."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _parse_line(line: str) -> Rule | None:
    line = line.removesuffix("\r")
    if line.startswith("#"):
        return None
    line = _without_trailing_spaces(line)
    ignores = not line.startswith("!")
    if not ignores:
        line = line[1:]
    folders_only = line.endswith("/")
    if folders_only:
        line = line[:-1]
    if not line:
        return None
    anchored = "/" in line
    expression = _translate(line.removeprefix("/") if anchored else line)
    if expression is None:
        return None
    try:
        pattern = re.compile(expression if anchored else f"(?:.*/)?{expression}", re.DOTALL)
    except re.error:
        return None
    return Rule(ignores, folders_only, pattern)


def _without_trailing_spaces(line: str) -> str:
    body = line.rstrip(" ")
    if len(body) == len(line):
        return line
    slashes = len(body) - len(body.rstrip("\\"))
    return body + " " if slashes % 2 else body


def _translate(glob: str) -> str | None:
    """A regular expression for one path; None when the glob can match nothing."""
    out: list[str] = []
    plain = next((at for at, char in enumerate(glob) if char in "*?[\\"), len(glob))
    at = 0
    while at < len(glob):
        char = glob[at]
        if char == "*":
            end = at
            while end < len(glob) and glob[end] == "*":
                end += 1
            # git compares the plain beginning first and then looks at the rest alone, where `**` may come
            # first.
            begins = at == plain or glob[at - 1] == "/"
            whole = begins and (end == len(glob) or glob[end] == "/")
            if end - at < 2 or not whole:
                out.append("[^/]*")
                at = end
            elif end == len(glob):
                out.append(".*")
                at = end
            else:
                out.append("(?:.*/)?")
                at = end + 1
        elif char == "?":
            out.append("[^/]")
            at += 1
        elif char == "[":
            found = _bracket(glob, at + 1)
            if found is None:
                return None
            expression, at = found
            out.append(expression)
        elif char == "\\":
            if at + 1 == len(glob):
                return None
            out.append(re.escape(glob[at + 1]))
            at += 2
        else:
            out.append(re.escape(char))
            at += 1
    return "".join(out)


def _bracket(glob: str, at: int) -> tuple[str, int] | None:
    """What stands for `[...]`, whose content begins at `at`, and where it ends."""
    negated = at < len(glob) and glob[at] in "!^"
    at += negated
    items: list[str] = []
    first = True
    while True:
        if at >= len(glob):
            return None
        if glob[at] == "]" and not first:
            at += 1
            break
        first = False
        if glob.startswith("[:", at):
            end = glob.find(":]", at)
            if end > 0:
                name = _CLASSES.get(glob[at + 2 : end])
                if name is None:
                    return None
                items.append(name)
                at = end + 2
                continue
        low, at = _one(glob, at)
        items.append(re.escape(low))  # also of a range that runs backwards, as in git
        if at + 1 < len(glob) and glob[at] == "-" and glob[at + 1] != "]":
            high, at = _one(glob, at + 1)
            if low <= high:
                items.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"(?!/)[{'^' if negated else ''}{''.join(items)}]", at


def _one(glob: str, at: int) -> tuple[str, int]:
    if glob[at] == "\\" and at + 1 < len(glob):
        return glob[at + 1], at + 2
    return glob[at], at + 1
