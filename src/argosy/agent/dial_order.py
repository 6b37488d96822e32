"""`dial.json`: where an agent dials out to, and with what."""

from __future__ import annotations

import json
import os


def read_order(root: str) -> dict[str, str] | None:
    """What `dial.json` says; None when this node does not dial."""
    try:
        with open(root + "/dial.json", encoding="utf-8") as file:
            return {str(key): str(value) for key, value in dict(json.load(file)).items()}
    except (OSError, ValueError, TypeError):
        return None


def write_order(root: str, order: dict[str, str]) -> None:
    """Replace `dial.json`; only its owner may read it. Raises OSError."""
    temporary = "%s/dial.json.%d" % (root, os.getpid())
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(order, file)
    os.replace(temporary, root + "/dial.json")
