"""How often somebody may try to sign in: by name and by address.

Wrong ones are counted in the database, for all servers together, in a fixed number of rows: no attack makes
them more, and what is old goes when its row is written again. They are written with the record of the
refusal, in one commit; who signs in pays nothing for it. Those that are being looked at count as wrong until
they are right, so that many at once are no way around.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from argosy.model.audit import Act
from argosy.model.errors import ArgosyError
from argosy.model.people import WrongAttempts
from argosy.store.errors import Conflict
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

_FREE: Final = 5  # wrong ones without a wait
_FIRST_MS: Final = 2_000
_MOST_MS: Final = 15 * 60_000
_FORGET_MS: Final = 60 * 60_000
_ADDRESS_FREE: Final = 30  # many people may stand behind one address
ROWS: Final = 128
KEYS_OF_A_ROW: Final = 64
_TRIES: Final = 10  # when others write the same row

Seen = dict[str, tuple[int, int]]  # key: number, time of the last


class Attempts:
    """Wrong attempts, by key. After a few, each wrong one doubles the time until the next may come.

    A name that nobody has is counted like any other, so that this tells nothing about who exists."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._looked_at: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, rows: Snapshot, name: str, address: str, now_ms: int) -> Iterator[None]:
        """While one attempt is looked at. Raises `too-often`."""
        keys = _keys(name, address)
        wait_ms = max(self._wait_ms(rows, key, free, now_ms) for key, free in keys)
        if wait_ms > 0:
            raise ArgosyError(
                "too-often",
                f"too many wrong attempts to sign in: the next may come in {-(-wait_ms // 1000)} s",
                hint="an administrator of the server can set another password: `argosy user password NAME`",
            )
        self._looked_at.update(key for key, _ in keys)
        try:
            yield
        finally:
            self._looked_at.subtract(key for key, _ in keys)
            for key, _ in keys:
                if not self._looked_at[key]:
                    del self._looked_at[key]

    async def note_wrong(self, name: str, address: str, now_ms: int, *, acts: tuple[Act, ...] = ()) -> None:
        """`acts`: the record of it, in the same commit."""

        def count(seen: Seen, key: str) -> None:
            number, last_ms = seen.get(key, (0, now_ms))
            seen[key] = (1 if now_ms - last_ms > _FORGET_MS else number + 1, now_ms)

        await self._change([key for key, _ in _keys(name, address)], count, now_ms, acts)

    async def note_right(self, rows: Snapshot, name: str, now_ms: int) -> None:
        """The name is free again; its address is not: it may try the names of others."""
        [(key, _)] = _keys(name, "")
        row = rows.people.get(_row_of(key))
        if isinstance(row, WrongAttempts) and key in row.seen:
            await self._change([key], lambda seen, key: seen.pop(key, None), now_ms)

    async def _change(
        self, keys: list[str], act: Callable[[Seen, str], object], now_ms: int, acts: tuple[Act, ...] = ()
    ) -> None:
        for last in range(_TRIES, 0, -1):
            rows = await self._store.snapshot()
            puts: dict[str, WrongAttempts] = {}
            for key in keys:
                id = _row_of(key)
                row = puts.get(id) or rows.people.get(id) or WrongAttempts(id=id, created_ms=now_ms)
                assert isinstance(row, WrongAttempts)
                seen = dict(row.seen)
                act(seen, key)
                puts[id] = msgspec.structs.replace(row, seen=_young(seen, now_ms))
            with contextlib.suppress(Conflict):
                await self._store.commit(tuple(puts.values()), acts=acts)
                return
            if last == 1:  # many servers under one attack: the record is what must not be missing
                await self._store.commit(acts=acts)

    def _wait_ms(self, rows: Snapshot, key: str, free: int, now_ms: int) -> int:
        row = rows.people.get(_row_of(key))
        number, last_ms = row.seen.get(key, (0, 0)) if isinstance(row, WrongAttempts) else (0, 0)
        if now_ms - last_ms > _FORGET_MS:
            number = 0
        number += self._looked_at.get(key, 0)
        if number < free:
            return 0
        pause_ms = min(_FIRST_MS << min(number - free, 20), _MOST_MS)
        return max(last_ms, now_ms if self._looked_at.get(key) else 0) + pause_ms - now_ms


def _young(seen: Seen, now_ms: int) -> Seen:
    """The newest of them, without those that are forgotten."""
    kept = {key: each for key, each in seen.items() if now_ms - each[1] <= _FORGET_MS}
    newest = sorted(kept, key=lambda key: kept[key][1])[-KEYS_OF_A_ROW:]
    return {key: kept[key] for key in newest}


def _keys(name: str, address: str) -> tuple[tuple[str, int], ...]:
    """What is counted, as hashes: somebody may have typed a password where the name belongs."""
    where = ((_hashed(f"address:{address}"), _ADDRESS_FREE),) if address else ()
    return ((_hashed(f"name:{name[:100]}"), _FREE), *where)


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _row_of(key: str) -> str:
    return f"wrg-{int(key[:4], 16) % ROWS:03d}"
