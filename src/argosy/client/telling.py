"""Messages for Python programs: warnings at the line of the call, and hints in terms of Python."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable
from typing import Final

from argosy.client.errors import named
from argosy.model.errors import ArgosyError
from argosy.model.task import IGNORED

_IN_PYTHON: Final = (
    (re.compile(r"`--(env|secret) (\w+)=\.\.\.`"), r"`task.update_\1s({'\2': ...})`"),
    (re.compile(r"see `--help`"), "see `help(argosy)`"),
    (re.compile(r"`--([a-z-]+) [A-Z][A-Z:]*`"), lambda found: f"`{found[1].replace('-', '_')}=...`"),
    (re.compile(r"`--([a-z-]+)`"), lambda found: f"`{found[1].replace('-', '_')}=True`"),
)


def tell(texts: Iterable[str], *, of_reply: bool = False) -> None:
    """Warn at the first line outside of Argosy, where the user's program called.

    `of_reply`: the server's. Which fields of a task are not supported yet was told when it was built."""
    for text in texts:
        if of_reply and text.startswith(IGNORED):
            continue
        level = 1
        frame = sys._getframe(0)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("argosy"):
            frame, level = frame.f_back, level + 1
        warnings.warn(text, stacklevel=level)


def in_python(error: ArgosyError) -> ArgosyError:
    """The same error; where its hints name flags of the command line, they name what Python has instead."""
    error.hint = python_words(error.hint)
    error.details = tuple(python_words(detail) for detail in error.details)
    return named(error)


def python_words(text: str) -> str:
    """
    >>> python_words("name jobs, or say `--all`"), python_words("give it with `--env N=...`")
    ('name jobs, or say `all=True`', "give it with `task.update_envs({'N': ...})`")
    """
    for pattern, words in _IN_PYTHON:
        text = pattern.sub(words, text)
    return text
