"""The tokens that `argosy login` got, by server, in a file (0600)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from argosy.api.location import Location

FILE: Final = "sign-ins.json"


def signed_in(location: Location) -> Location:
    """The location with the token of an earlier `argosy login`, where none is said."""
    if location.token or location.socket is not None:
        return location
    return location._replace(token=_read(location.home).get(location.render(), ""))


def keep(location: Location, token: str) -> Path:
    """Remember the token ("": forget it). Returns the file. Raises OSError."""
    tokens = _read(location.home)
    tokens.pop(location.render(), None)
    if token:
        tokens[location.render()] = token
    location.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = location.home / FILE
    draft = path.with_name(f".{FILE}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(tokens))
    draft.replace(path)
    return path


def _read(home: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode((home / FILE).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}
