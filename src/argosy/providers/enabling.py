"""Which drivers are in use: those whose credentials are found where their own tools keep them, or that
`ARGOSY_INFRA` names. No driver and no SDK is imported to find that out.

A manifest says where credentials are (`credentials`): each entry is one way that is enough: environment
variables (`A and B`), a file (`~/.aws/credentials`), or a program on the PATH (`program sinfo`).
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from argosy.infra.provider import Manifest

SETTING: Final = "ARGOSY_INFRA"
_PROGRAM: Final = "program "
_RESTART: Final = "`argosy server stop` (the next command starts it again)"


class Standing(NamedTuple):
    """Of one provider with a driver: whether it is in use, and if not, why and what to do."""

    name: str
    in_use: bool
    found: str = ""  # where its credentials are
    fact: str = ""  # why it is not in use
    fix: str = ""


def standing_of(manifest: Manifest, environ: Mapping[str, str]) -> Standing:
    """Whether this server uses a provider that has a driver."""
    name, named = manifest.name, named_in(environ)
    found = where_found(manifest.credentials, environ)
    if named is not None and name not in named:
        fact = f"{name} is not in use on this server: {SETTING} is `{environ[SETTING]}`"
        return Standing(name, False, found, fact, f"add `{name}` to {SETTING}, then {_RESTART}")
    if named is None and not found and not manifest.enabled_by_default:
        if not manifest.credentials:
            return Standing(
                name, False, "", f"{name} is not in use on this server", f"{SETTING}={name},local uses it"
            )
        fact = f"{name} is not in use on this server: no credentials were found"
        return Standing(name, False, "", fact, _how_to_sign_in(manifest))
    if missing := missing_packages(manifest.extra):
        is_are = "is" if len(missing) == 1 else "are"
        fact = f"{name} is not in use on this server: {', '.join(missing)} {is_are} not installed"
        return Standing(name, False, found, fact, f"`pip install argosy[{manifest.extra}]`, then {_RESTART}")
    return Standing(name, True, found)


def named_in(environ: Mapping[str, str]) -> frozenset[str] | None:
    """The providers that `ARGOSY_INFRA` names; None: it says nothing, and what is found is used."""
    text = environ.get(SETTING, "")
    names = frozenset(part.strip().lower() for part in text.split(",") if part.strip())
    return names or None


def where_found(credentials: Sequence[str], environ: Mapping[str, str]) -> str:
    """The first way that is there; "": none is."""
    return next((way for way in credentials if _is_there(way, environ)), "")


def _is_there(way: str, environ: Mapping[str, str]) -> bool:
    if way.startswith(_PROGRAM):
        return shutil.which(way.removeprefix(_PROGRAM), path=environ.get("PATH")) is not None
    if way.startswith(("~", "/")):
        path = Path(environ.get("HOME") or "/nonexistent") / way[2:] if way.startswith("~") else Path(way)
        try:
            return path.is_dir() or path.stat().st_size > 0
        except OSError:
            return False
    return all(environ.get(name.strip()) for name in way.split(" and "))


def _how_to_sign_in(manifest: Manifest) -> str:
    ways = "; or ".join(manifest.credentials)
    tool = f"{manifest.how_to_sign_in}, or " if manifest.sign_in else ""
    return f"{tool}give the server {ways}; then {_RESTART}"


def missing_packages(extra: str) -> tuple[str, ...]:
    """Packages of `argosy[EXTRA]` that are not installed."""
    if not extra:
        return ()
    marker = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""")
    wanted = [
        match.group()
        for each in importlib.metadata.requires("argosy") or ()
        if marker.search(each) and (match := re.match(r"[A-Za-z0-9._-]+", each)) is not None
    ]
    return tuple(name for name in wanted if not _is_installed(name))


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
