"""Unix sockets whose path may be longer than an address holds."""

from __future__ import annotations

import os


def socket_address(path: str) -> tuple[str, int | None]:
    """What to bind or connect to, and a folder handle to close afterwards: a path may be longer than the 107
    bytes that a unix address holds. Raises OSError."""
    if len(os.fsencode(path)) < 100:
        return path, None
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
    return "/proc/self/fd/%d/%s" % (folder, os.path.basename(path)), folder
