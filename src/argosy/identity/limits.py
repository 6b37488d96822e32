"""How often somebody may try to sign in: by name and by address. In memory of one server."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from argosy.model.errors import ArgosyError

_FREE: Final = 5  # wrong ones without a wait
_FIRST_MS: Final = 2_000
_MOST_MS: Final = 15 * 60_000
_FORGET_MS: Final = 60 * 60_000
_ADDRESS_FREE: Final = 30  # many people may stand behind one address
_KEPT: Final = 10_000


class Attempts:
    """Wrong attempts, by key. After a few, each wrong one doubles the time until the next may come.

    A name that nobody has is counted like any other, so that this tells nothing about who exists."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, int]] = OrderedDict()  # key: number, time of the last

    def check(self, name: str, address: str, now_ms: int) -> None:
        """Raises `too-often`."""
        wait_ms = max(self._wait(key, free, now_ms) for key, free in _keys(name, address))
        if wait_ms > 0:
            wait_s = -(-wait_ms // 1000)
            raise ArgosyError(
                "too-often",
                f"too many wrong attempts to sign in: the next may come in {wait_s} s",
                hint="who administers the server can set another password: `argosy user password NAME`",
            )

    def note_wrong(self, name: str, address: str, now_ms: int) -> None:
        for key, _ in _keys(name, address):
            count, last_ms = self._wrong.pop(key, (0, now_ms))
            self._wrong[key] = (1 if now_ms - last_ms > _FORGET_MS else count + 1, now_ms)
        while len(self._wrong) > _KEPT:
            self._wrong.popitem(last=False)

    def note_right(self, name: str) -> None:
        """The name is free again; its address is not: it may try the names of others."""
        self._wrong.pop(f"name:{name}", None)

    def _wait(self, key: str, free: int, now_ms: int) -> int:
        count, last_ms = self._wrong.get(key, (0, 0))
        if count < free or now_ms - last_ms > _FORGET_MS:
            return 0
        pause_ms = min(_FIRST_MS << min(count - free, 20), _MOST_MS)
        return last_ms + pause_ms - now_ms


def _keys(name: str, address: str) -> tuple[tuple[str, int], ...]:
    where = ((f"address:{address}", _ADDRESS_FREE),) if address else ()
    return ((f"name:{name[:100]}", _FREE), *where)
