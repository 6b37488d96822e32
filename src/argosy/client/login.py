"""The user that the client claims to be: who owns its jobs and clusters, and whose queue they count in."""

from __future__ import annotations

import os
from collections.abc import Mapping


def user_name(env: Mapping[str, str]) -> str:
    """ARGOSY_USER, else the login name: as the shell says it, else (cron, containers, services) as the system
    knows our uid.

    >>> user_name({"ARGOSY_USER": "ann", "USER": "root"}), user_name({"LOGNAME": "bob"})
    ('ann', 'bob')
    """
    for name in ("ARGOSY_USER", "USER", "LOGNAME"):
        if env.get(name, "").strip():
            return env[name].strip()
    try:
        import pwd  # not there on every system
    except ImportError:
        return env.get("USERNAME", "")
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container with a uid of its own
        return f"uid-{uid}"
