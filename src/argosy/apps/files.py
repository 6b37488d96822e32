"""Reading app files: `NAME.toml`, those of a user's folder before the shipped ones."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from argosy.model.apps import App
from argosy.model.errors import ArgosyError

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
_LISTENS: Final = ("", "socket", "port")


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file may say; the name is the file's."""

    title: str = ""
    about: str = ""
    command: str = ""
    listens: str = ""
    port: int = 0
    ready: str = "/"
    quiet: tuple[str, ...] = ()
    kernels: str = ""
    needs: tuple[str, ...] = ()
    program: str = ""
    env: dict[str, str] = {}


def parse_app(name: str, text: str, where: str) -> App:
    """An app from the text of its file. Raises "spec-invalid", with the file and the field."""
    wrong = ""
    if not _NAME.fullmatch(name):
        raise ArgosyError(
            "spec-invalid",
            f"`{name}` is no name of an app",
            hint="small letters, digits and dashes, up to 31, beginning with a letter",
            where=where,
        )
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ArgosyError("spec-invalid", f"the app `{name}`: {error}", where=where) from None
    if file.listens not in _LISTENS:
        wrong = f"listens is `{file.listens}`: socket or port"
    elif not 0 <= file.port < 65536:
        wrong = f"port is {file.port}: 1 to 65535"
    elif file.port and file.listens != "port":
        wrong = "port is given, and listens is not `port`"
    elif (file.ready and not file.ready.startswith("/")) or any(
        not each.startswith("/") for each in file.quiet
    ):
        wrong = "paths in ready and quiet begin with /"
    elif (file.program or (file.needs and file.listens)) and not file.command:
        wrong = "needs and program are of a command, and there is none"  # terminals alone may use packages
    if wrong:
        raise ArgosyError("spec-invalid", f"the app `{name}`: {wrong}", where=where)
    return App(name=name, **{field: getattr(file, field) for field in _File.__struct_fields__})


def shipped() -> dict[str, App]:
    """Apps that come with Argosy, by name."""
    found = {}
    for path in resources.files(__package__).iterdir():
        if path.name.endswith(".toml"):
            name = path.name.removesuffix(".toml")
            found[name] = parse_app(name, path.read_text("utf-8"), path.name)
    return found


def known_apps(own: Path) -> dict[str, App]:
    """All apps by name: files in the folder `own` (it need not be there) replace shipped ones. One that
    cannot be read is left out: it must not keep people from the others (`find_app` says what is wrong with
    it)."""
    apps = shipped()
    for path in sorted(own.glob("*.toml")):
        apps.pop(path.stem, None)
        try:
            apps[path.stem] = parse_app(path.stem, path.read_text("utf-8"), str(path))
        except (ArgosyError, OSError, UnicodeDecodeError):
            continue
    return dict(sorted(apps.items()))


def find_app(own: Path, name: str) -> App:
    """Raises "not-found", with the names that there are, and "spec-invalid" for a file that cannot be
    read."""
    path = own / f"{name}.toml"
    if _NAME.fullmatch(name) and path.is_file():
        return parse_app(name, path.read_text("utf-8"), str(path))
    apps = known_apps(own)
    if name not in apps:
        raise ArgosyError(
            "not-found",
            f"there is no app `{name}`",
            hint=f"there are {', '.join(apps)}; a file `apps/{name}.toml` in the server's folder adds one",
        )
    return apps[name]
