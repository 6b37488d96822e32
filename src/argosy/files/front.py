"""Choose the engine and run one tool; also what `python3 files.pyz TOOL ...` runs on a node."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence

TOOLS = ("find", "ls", "du", "chmod", "chown", "cp", "rm", "sync", "stat")
#: Those that the program in C has. `ls` and `stat` answer people: they are Python everywhere.
NATIVE = ("find", "du", "chmod", "chown", "cp", "rm", "sync")


def program_name() -> str:
    """Of the program in C for this machine."""
    machine = platform.machine().lower()
    return "pf-" + {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def find_program(environ: Mapping[str, str], places: Sequence[str] = ()) -> str:
    """Return the path of the program in C for this machine, "" when there is none. ARGOSY_FILES_PROGRAM names
    another; `none` there means: without it. `places`: more files where it may be."""
    named = environ.get("ARGOSY_FILES_PROGRAM", "")
    if named:
        return "" if named == "none" else named
    shipped = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs", program_name())
    return next((path for path in (shipped, *places) if os.access(path, os.X_OK)), "")


def run_tool(tool: str, arguments: Sequence[str], program: str = "") -> int:
    """Run one tool with arguments as GNU's takes them. `program`: the one in C, "" for Python. Returns the
    exit status."""
    if program and tool in NATIVE:
        words = numbered(tool, list(arguments))
        try:
            return subprocess.call([program, tool, *words])
        except OSError as error:
            sys.stderr.write(f"{tool}: {program} does not run here ({error.strerror}); Python does it\n")
    from argosy.files.twin.start import main

    return main([tool, *arguments])


def numbered(tool: str, words: list[str]) -> list[str]:
    """Names of users and groups as numbers where a directory service knows them: a static program does
    not."""
    if tool == "chown":
        operands = [index for index, word in enumerate(words) if not word.startswith("-")]
        if operands and not any(word.startswith("--reference=") for word in words):
            words[operands[0]] = _owner_numbers(words[operands[0]])
    elif tool == "find":
        for index, word in enumerate(words[:-1]):
            if word in ("-user", "-group"):
                words[index + 1] = _number(words[index + 1], group=word == "-group")
    return words


def _owner_numbers(text: str) -> str:
    user, colon, group = text.partition(":")
    return _number(user, group=False) + colon + _number(group, group=True)


def _number(name: str, *, group: bool) -> str:
    import grp
    import pwd

    if not name or name.isdigit():
        return name
    try:
        return str(grp.getgrnam(name).gr_gid if group else pwd.getpwnam(name).pw_uid)
    except KeyError:
        return name
