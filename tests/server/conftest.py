"""Fixtures of this folder. They live in `raw_requests`, which tests import by a name that no other folder
has."""

from raw_requests import raw, server

__all__ = ["raw", "server"]
