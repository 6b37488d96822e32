"""Passwords: argon2id, in threads, at most two at once; and what a password must not be.

19 MiB, two passes (OWASP's first choice): 40 ms of a core. Two at once bound the memory that an attack takes.
The function comes with `cryptography`, which a server has anyway; it is imported with the first password.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argosy.infra.system import random_bytes
from argosy.model.errors import ArgosyError

T = TypeVar("T")

_MEMORY_KIB: Final = 19 * 1024
_PASSES: Final = 2
_AT_ONCE: Final = 2
_WAITING_MAX: Final = 64  # seconds of work; who comes then is told to come back
_NICE: Final = 10  # of threads that hash: what signed-in people ask for goes first
_MIN_LENGTH: Final = 10
_MAX_BYTES: Final = 1024
#: What is verified for who does not exist, so that it takes as long. No password is known to have this hash.
_NOBODY: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$YXJnb3N5LW5vYm9keS4uLg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


class Passwords:
    """Makes and checks hashes off the event loop, behind all other work of the machine. Who comes when two
    are at it waits; who comes when many wait is refused with `too-often`."""

    def __init__(self, memory_kib: int = _MEMORY_KIB) -> None:
        self.memory_kib = memory_kib
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._threads: ThreadPoolExecutor | None = None
        self._running = self._asked = 0
        self.most = 0  # that ran at once, ever

    async def hashed(self, password: str) -> str:
        """What is kept of it. Raises `usage` for one that is too easy to guess."""
        check_password(password)
        return await self._in_turn(lambda: _hash(password, self.memory_kib))

    async def matches(self, kept: str, password: str) -> bool:
        """Whether it is the one of `kept`; "" is nobody's, and takes as long."""
        if len(password.encode("utf-8", "surrogatepass")) > _MAX_BYTES:
            password = ""
        fits = await self._in_turn(lambda: _verify(kept or _NOBODY, password))
        return fits and bool(kept)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._asked >= _WAITING_MAX:
            raise ArgosyError(
                "too-often",
                "too many people are signing in at this moment",
                hint="try again in a few seconds; those who are signed in are not affected",
            )
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_AT_ONCE, "argosy-passwords", _gently)
        self._asked += 1
        try:
            async with self._turn:
                self._running += 1
                self.most = max(self.most, self._running)
                try:
                    return await asyncio.get_running_loop().run_in_executor(self._threads, work)
                finally:
                    self._running -= 1
        finally:
            self._asked -= 1


def _gently() -> None:
    """For the thread that begins here."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def check_password(password: str, name: str = "") -> None:
    """Raises `usage`."""
    if len(password) < _MIN_LENGTH:
        raise ArgosyError(
            "usage",
            f"a password has at least {_MIN_LENGTH} characters, this has {len(password)}",
            hint="four words in a row are long and easy to keep in mind",
        )
    if len(password.encode("utf-8", "surrogatepass")) > _MAX_BYTES:
        raise ArgosyError("usage", f"a password has at most {_MAX_BYTES} bytes")
    plain = password.lower()
    if len(set(plain)) < 5 or (name and name.lower() in plain and len(plain) < len(name) + 6):
        raise ArgosyError(
            "usage",
            "this password is too easy to guess",
            hint="four words in a row are long and easy to keep in mind",
        )


def _hash(password: str, memory_kib: int) -> str:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    made = Argon2id(salt=random_bytes(16), length=32, iterations=_PASSES, lanes=1, memory_cost=memory_kib)
    return made.derive_phc_encoded(password.encode("utf-8", "surrogatepass"))


def _verify(kept: str, password: str) -> bool:
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        Argon2id.verify_phc_encoded(password.encode("utf-8", "surrogatepass"), kept)
    except InvalidKey:
        return False
    return True
