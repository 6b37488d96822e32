"""What proves to a cloud who asks: where it is looked for, what is said without it, tokens that end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from argosy.infra import border
from argosy.infra.http_json import Ask
from argosy.infra.provider import Manifest
from argosy.model.ids import Clock


def home_text(environ: Mapping[str, str], name: str) -> str:
    """A file of the user's folder; "": there is none that can be read."""
    try:
        return (Path(environ.get("HOME") or "/nonexistent") / name).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def lacks(manifest: Manifest, what: str) -> border.CredentialsRejected:
    """Nothing was found where credentials may be."""
    *others, last = manifest.credentials
    where = f"neither in {', '.join(others)} nor in {last}" if others else f"{last} is not set"
    return border.CredentialsRejected(
        f"{manifest.title} has no {what} to use, {where}; {manifest.how_to_sign_in}"
    )


class Token(NamedTuple):
    text: str
    lasts_s: float


class Bearer:
    """A token that `make` gives, for as long as it lasts less `early_s`."""

    def __init__(self, make: Callable[[], Awaitable[Token]], clock: Clock, *, early_s: float) -> None:
        self._make, self._clock, self._early_s = make, clock, early_s
        self._token, self._until_s = "", 0.0
        self._making = asyncio.Lock()

    async def sign(self, ask: Ask) -> Mapping[str, str]:
        return {"authorization": f"Bearer {await self.token(again=ask.again)}"}

    async def token(self, *, again: bool = False) -> str:
        """`again`: the last one was not accepted."""
        refused = self._token if again else None
        async with self._making:
            now_s = self._clock.monotonic_s()
            if self._token in ("", refused) or now_s > self._until_s:  # nobody renewed it while we waited
                self._token, lasts_s = await self._make()
                self._until_s = now_s + max(lasts_s - self._early_s, 1.0)
            return self._token
