"""The channels of a server: `notify.yaml` in its state folder, read again when it has changed.

smtp: {host: mail.example.com, port: 587, user: argosy, password: ..., from: argosy@example.com}
channels:
  team: {to: https://hooks.example.com/abc, secret: ..., events: [failed], projects: [vision]}
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.notify import ENDS, OCCASIONS, Notify

_log = logging.getLogger(__name__)
FILE = "notify.yaml"


class Smtp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """Where e-mail is handed over."""

    host: str
    sender: str
    port: int = 25
    user: str = ""
    password: str = ""
    starttls: bool = True  # where the server offers it


class Channel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"on": "events"}):
    """An address that tasks name, and that is told of everything in `projects`."""

    to: str
    on: tuple[str, ...] = ENDS
    secret: str = ""
    projects: tuple[str, ...] = ()  # `*`: all; (): only tasks that name it


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    smtp: Smtp | None = None
    channels: dict[str, Channel] = {}


class ChannelFile:
    """What the file says now. One that cannot be read leaves what was known, and is told in the log."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE
        self._seen: tuple[int, int] | None = None
        self._known = _File()

    @property
    def smtp(self) -> Smtp | None:
        return self._look().smtp

    def channel(self, name: str) -> Channel | None:
        return self._look().channels.get(name)

    def of_project(self, project: str, occasion: str) -> list[tuple[str, Notify]]:
        """(name, address) of the channels that are told of this in a project."""
        return [
            (name, Notify(to=each.to, on=each.on, secret=each.secret))
            for name, each in sorted(self._look().channels.items())
            if occasion in each.on and ("*" in each.projects or project in each.projects)
        ]

    def check(self, name: str) -> None:
        """Raises `not-found` for a channel that the server does not have."""
        if self.channel(name) is None:
            known = sorted(self._look().channels)
            raise ArgosyError(
                "not-found",
                f"there is no notification channel `{name}`",
                hint=f"there are {', '.join(known)}"
                if known
                else f"write a URL or an e-mail address, or have the channel added to {FILE} of the server",
            )

    def _look(self) -> _File:
        try:
            about = self.path.stat()
        except OSError:
            self._seen, self._known = None, _File()
            return self._known
        seen = (about.st_mtime_ns, about.st_size)
        if seen != self._seen:
            self._seen = seen
            try:
                self._known = self._read()
            except (OSError, ValueError) as error:
                what = str(error).partition(" - at")[0]  # never a value: it may be a password
                _log.error("%s cannot be read, what it said before holds: %s", self.path, what)
        return self._known

    def _read(self) -> _File:
        """Raises OSError, ValueError."""
        import yaml

        try:
            plain = yaml.safe_load(self.path.read_text("utf-8")) or {}
        except yaml.YAMLError:
            raise ValueError("it is no YAML") from None
        found = msgspec.convert(plain, _File)
        for name, channel in found.channels.items():
            wrong = [each for each in channel.on if each not in OCCASIONS or each == "started"]
            if wrong:
                raise ValueError(f"channel `{name}`: `events` has `{wrong[0]}`")
        return found
