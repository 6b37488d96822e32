"""One call of one tool: what all tools know is taken from its arguments, then the tool's module runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from argosy.files.twin.session import Session, Usage

_MODULES = {
    "find": ("find", "run"),
    "du": ("du", "run"),
    "chmod": ("change", "run_chmod"),
    "chown": ("change", "run_chown"),
    "rm": ("remove", "run"),
    "cp": ("cp", "run"),
    "sync": ("sync", "run"),
    "ls": ("ls", "run"),
    "stat": ("facts", "run"),
}
_TROUBLE = {"ls": 2}


def main(arguments: Sequence[str]) -> int:
    """`arguments`: the tool, then what it is given. Returns the exit status."""
    if not arguments or arguments[0] not in _MODULES:
        sys.stderr.write(f"usage: {'|'.join(_MODULES)} ...\n")
        return 2
    tool = arguments[0]
    session = Session(tool, _TROUBLE.get(tool, 1))
    module, name = _MODULES[tool]
    try:
        words = _common(session, list(arguments[1:]))
        run = getattr(importlib.import_module(f"argosy.files.twin.{module}"), name)
        status: int = run(session, words)
    except Usage as wrong:
        session.note(str(wrong))
        status = session.trouble
    session.flush()
    if session.output_failed:
        session.complain("cannot write", "standard output")
        return session.trouble
    return status


def _common(session: Session, words: list[str]) -> list[str]:
    """Take --threads N, --progress, --json, --dryrun out. Raises Usage."""
    rest: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--":
            return [*rest, word, *words]
        if word == "--json":
            session.json = True
        elif word == "--progress":
            session.progress = True
        elif word in ("--dryrun", "--dry-run"):
            session.dryrun = True
        elif word == "--threads" and words:
            number = words.pop(0)
            if not number.isdigit() or not int(number):
                raise Usage(f"not a number of threads: '{number}'")
            session.threads = min(int(number), 64)
        else:
            rest.append(word)
    return rest
