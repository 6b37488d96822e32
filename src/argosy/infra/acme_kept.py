"""Certificates that are kept in a folder and renewed in time, through an authority that speaks ACME.

`account.key` is the account; `NAME.pem` (0600) is a key and the certificate with its chain, in one file that
is replaced at once; `NAME.failed` says why there is no newer one. A certificate is in use until the next one
is there; what fails is tried again, later each time, also after a restart.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra.acme import Acme, Solver, renewal_ms, retry_s
from argosy.infra.acme_keys import AccountKey, make_key
from argosy.infra.border import BorderError, Transient
from argosy.model.ids import Clock

_log: Final = logging.getLogger(__name__)
_LONGEST_S: Final = 6 * 3600.0  # a sleep: the clock may be set meanwhile


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why the last try brought nothing, and when the next one is."""

    count: int
    next_ms: int
    why: str


class Kept:
    """The certificates of one folder. `account`: an account at an authority, from its key."""

    def __init__(
        self,
        folder: Path,
        account: Callable[[AccountKey], Acme],
        solver: Solver,
        *,
        clock: Clock,
        dice: Callable[[], float],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._folder, self._make_account, self._solver = folder, account, solver
        self._clock, self._dice, self._pause = clock, dice, pause
        self._account: Acme | None = None
        self._renewals: dict[tuple[int, int], int] = {}  # by life: dice are thrown once for each

    def file(self, names: Sequence[str]) -> Path | None:
        """The certificate for these hosts with its key, if there is one that is not over."""
        return certificate_in(self._folder, names, self._clock.now_ms())

    def failure(self, names: Sequence[str]) -> Failure | None:
        """What the last try came to; None: it went well, or there was none."""
        try:
            return msgspec.json.decode(self._note(names).read_bytes(), type=Failure)
        except (OSError, msgspec.MsgspecError):
            return None

    def due_ms(self, names: Sequence[str]) -> int:
        """When the authority is to be asked next; in the past: now."""
        life, at_ms = _life_of(self._path(names), names), 0
        if life is not None and life not in self._renewals:
            self._renewals[life] = renewal_ms(*life, self._dice)
        if life is not None:
            at_ms = self._renewals[life]
        failed = self.failure(names)
        return max(at_ms, failed.next_ms) if failed is not None else at_ms

    async def renew(self, names: Sequence[str]) -> Path | None:
        """Ask the authority if it is time; the new certificate, None: it was not time, or did not work (then
        `failure` says why)."""
        if self._clock.now_ms() < self.due_ms(names):
            return None
        try:
            return await self._obtain(names)
        except (BorderError, OSError) as error:
            failed = self.failure(names)
            count = failed.count + 1 if failed is not None else 1
            wait_s = retry_s(count, self._dice)
            if isinstance(error, Transient):
                wait_s = max(wait_s, error.after_s)
            next_ms = self._clock.now_ms() + int(wait_s * 1000)
            kept = Failure(count=count, next_ms=next_ms, why=str(error))
            _write(self._note(names), msgspec.json.encode(kept))
            _log.warning("no certificate for %s: %s (next try in %.0f s)", ", ".join(names), error, wait_s)
            return None

    async def keep(self, names: Sequence[str], changed: Callable[[Path], None]) -> None:
        """Renew for ever; `changed` is told of each new certificate."""
        while True:
            made = await self.renew(names)
            if made is not None:
                changed(made)
            left_s = (self.due_ms(names) - self._clock.now_ms()) / 1000
            await self._pause(min(max(left_s, 1.0), _LONGEST_S))

    async def _obtain(self, names: Sequence[str]) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._account is None:
            self._account = self._make_account(self._account_key())
        key = make_key()
        chain = await self._account.obtain(names, key, self._solver)
        draft, path = self._folder / f"{_file_name(names)}.new", self._path(names)
        _write(draft, key + chain)
        if _life_of(draft, names) is None:
            draft.unlink()
            raise Transient("the authority sent no certificate for these hosts and this key", 3600)
        draft.replace(path)
        self._note(names).unlink(missing_ok=True)
        _log.info("a new certificate for %s", ", ".join(names))
        return path

    def _account_key(self) -> AccountKey:
        path = self._folder / "account.key"
        if not path.exists():
            _write(path, make_key())
        try:
            return AccountKey(path.read_bytes())
        except ValueError as error:
            raise Transient(f"{path}: {error}", 3600) from None

    def _path(self, names: Sequence[str]) -> Path:
        return self._folder / f"{_file_name(names)}.pem"

    def _note(self, names: Sequence[str]) -> Path:
        return self._folder / f"{_file_name(names)}.failed"


def certificate_in(folder: Path, names: Sequence[str], now_ms: int) -> Path | None:
    """The file of the certificate for these hosts with its key, if there is one that is not over."""
    path = folder / f"{_file_name(names)}.pem"
    life = _life_of(path, names)
    return path if life is not None and life[1] > now_ms else None


def _file_name(names: Sequence[str]) -> str:
    return names[0].replace("*", "_").replace(":", "_")


def _life_of(path: Path, names: Iterable[str]) -> tuple[int, int] | None:
    """From when to when the certificate in this file is good, in ms; None: there is none for these hosts, or
    it does not belong to the key beside it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        text = path.read_bytes()
        leaf = x509.load_pem_x509_certificates(text)[0]
        key = load_pem_private_key(text, None)
        there = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return None
    named = {*there.get_values_for_type(x509.DNSName), *map(str, there.get_values_for_type(x509.IPAddress))}
    if not set(names) <= named or key.public_key() != leaf.public_key():
        return None
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    return int(begins.timestamp() * 1000), int(ends.timestamp() * 1000)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, for nobody else to read."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)
