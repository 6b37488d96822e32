"""The Python environment of a node, in which its programs install what they need.

It lies before the machine's Python on the PATH and shows what that has. So `pip install` works where the
system's Python is "externally managed", and touches neither it nor the environment in which Argosy lives.
Making it costs a few small files; nothing is run.
"""

from __future__ import annotations

import os
import sys
import threading

from argosy.agent import programs

_PIP = """#!/bin/sh
here=$(dirname "$0")
"$here/python" -c 'import pip' 2>/dev/null || "$here/python" -m ensurepip -q --default-pip >/dev/null || exit
exec "$here/python" -m pip "$@"
"""


_looking = threading.Lock()
_chosen: dict[str, str] = {}  # a script that chooses a Python -> the program that it has chosen


def without_own(path: str, own: str = "") -> str:
    """A PATH without the virtual environment that runs us (`own`: its folder of programs)."""
    own = own or os.path.dirname(sys.executable)
    if not _is_venv(own):
        return path
    hidden = os.path.realpath(own)
    return ":".join(folder for folder in path.split(":") if os.path.realpath(folder) != hidden)


def _is_venv(folder: str) -> bool:
    return os.path.exists(os.path.join(os.path.dirname(folder), "pyvenv.cfg"))


def entered(env: dict[str, str], folder: str) -> None:
    """Put the environment in `folder` (made when it is missing) first on the PATH of `env`. Leaves `env` as
    it is where there is no Python, or one that lives in a virtual environment of the user's own."""
    python = _python_of(env["PATH"])
    if not python or _is_venv(os.path.dirname(python)):
        return
    try:
        if not os.path.exists(folder + "/pyvenv.cfg"):
            _make(folder, python)
    except OSError:
        return  # a full disk: programs have the machine's Python, as it is
    env["PATH"] = folder + "/bin:" + env["PATH"]
    env["VIRTUAL_ENV"] = folder


def look_ahead() -> None:
    """Find out which program `python3` is before somebody waits for it. A script that chooses one (of pyenv,
    asdf) takes a third of a second."""
    try:
        _python_of(without_own(os.environ.get("PATH", "")))
    except OSError:
        pass  # who needs it finds that again


def must_be_asked() -> bool:
    """Whether `python3` is a script that chooses one, so that `look_ahead` pays."""
    try:
        return not _first_of(without_own(os.environ.get("PATH", "")))[1]
    except OSError:
        return False


def _python_of(path: str) -> str:
    """The real program behind `python3`, which may be a script that chooses one."""
    found, is_program = _first_of(path)
    return found if is_program else _choice_of(found)


def _first_of(path: str) -> tuple[str, bool]:
    """The first `python3`, and whether it is a program itself; "" and True where there is none. Raises
    OSError."""
    for folder in path.split(":"):
        for name in ("python3", "python"):
            found = os.path.join(folder, name)
            if folder and os.access(found, os.X_OK):
                with open(found, "rb") as file:
                    return found, file.read(4) == b"\x7fELF"
    return "", True


def _choice_of(script: str) -> str:
    """Asked once for the life of this process, and again when what was chosen is no longer there."""
    with _looking:
        if not os.access(_chosen.get(script, ""), os.X_OK):
            asked = [script, "-I", "-c", "import sys; print(sys.executable)"]
            _chosen[script] = programs.answer_of(asked, 10.0).strip()
        return _chosen[script]


def _make(folder: str, python: str) -> None:
    os.makedirs(folder + "/bin", exist_ok=True)
    for name, target in (("python3", python), ("python", "python3")):
        if not os.path.lexists(folder + "/bin/" + name):
            os.symlink(target, folder + "/bin/" + name)
    for name in ("pip", "pip3"):
        with open(folder + "/bin/" + name, "w", encoding="ascii") as file:
            file.write(_PIP)
        os.chmod(folder + "/bin/" + name, 0o700)
    with open(folder + "/pyvenv.cfg.new", "w", encoding="utf-8") as file:
        file.write("home = %s\ninclude-system-site-packages = true\n" % os.path.dirname(python))
    os.replace(folder + "/pyvenv.cfg.new", folder + "/pyvenv.cfg")
