"""The server with `synchronous = NORMAL`, for `durability.py` only: what people run always has FULL."""

from __future__ import annotations

import sys

from argosy.server.__main__ import main
from argosy.store import database

database._PRAGMAS = tuple(  # type: ignore[misc]
    line.replace("synchronous = FULL", "synchronous = NORMAL") for line in database._PRAGMAS
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
