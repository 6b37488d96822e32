"""Notifications: who is told when a job starts, ends or recovers."""

from __future__ import annotations

from typing import Final

import msgspec

#: What people may be told of, and the codes of events that mean it.
OCCASIONS: Final[dict[str, tuple[str, ...]]] = {
    "started": ("running",),
    "succeeded": ("succeeded",),
    "failed": ("failed", "lost", "preempted"),
    "cancelled": ("cancelled",),
    "recovering": ("recovering",),
}
ENDS: Final = ("succeeded", "failed", "cancelled")  # unless a wish says another
HIDDEN: Final = "***"  # in rows: addresses are kept sealed, as secrets are


class Notify(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One wish to be told: by a webhook, Slack, e-mail, or a channel of the server."""

    to: str  # a URL, an e-mail address, or the name of a channel; in rows only names of channels are readable
    on: tuple[str, ...] = ENDS  # of OCCASIONS
    secret: str = ""  # that signs what a webhook gets

    def __repr__(self) -> str:
        shown = self.to if is_channel(self.to) else HIDDEN
        return f"Notify(to={shown!r}, on={self.on!r})"


class Told(msgspec.Struct, frozen=True):
    """The wishes of one workload, and where their addresses are kept."""

    owner_id: str  # the workload with which they were submitted
    part: str  # which of its tasks: the beginning of their names among what is sealed
    wishes: tuple[Notify, ...]


def occasion_of(code: str) -> str:
    """What an event means to people; "" when nobody is told of it.

    >>> occasion_of("lost"), occasion_of("placed")
    ('failed', '')
    """
    return next((name for name, codes in OCCASIONS.items() if code in codes), "")


def is_channel(to: str) -> bool:
    """
    >>> is_channel("team"), is_channel("https://x.org/a"), is_channel("me@x.org"), is_channel("***")
    (True, False, False, False)
    """
    return "@" not in to and "://" not in to and to != HIDDEN


def sealed_id(owner_id: str) -> str:
    """Under which id the addresses of a workload are kept sealed: they outlive its end until it was told."""
    return f"notify/{owner_id}"


def sealed(part: str, wishes: tuple[Notify, ...]) -> tuple[tuple[Notify, ...], dict[str, str]]:
    """(the wishes as rows have them, addresses and signing secrets by name)."""
    kept: dict[str, str] = {}
    shown: list[Notify] = []
    for at, wish in enumerate(wishes):
        if not is_channel(wish.to):
            kept[f"{part}.{at}"] = wish.to
        if wish.secret:
            kept[f"{part}.{at}.secret"] = wish.secret
        to = wish.to if is_channel(wish.to) else HIDDEN
        shown.append(Notify(to=to, on=wish.on))
    return tuple(shown), kept


def opened(told: Told, kept: dict[str, str]) -> tuple[Notify, ...]:
    """The wishes with their addresses.

    >>> wishes = (Notify(to="https://x.org"), Notify(to="team"))
    >>> shown, kept = sealed("0", wishes)
    >>> opened(Told("job-1", "0", shown), kept) == wishes
    True
    """
    found = []
    for at, wish in enumerate(told.wishes):
        name = f"{told.part}.{at}"
        found.append(Notify(to=kept.get(name, wish.to), on=wish.on, secret=kept.get(f"{name}.secret", "")))
    return tuple(found)
