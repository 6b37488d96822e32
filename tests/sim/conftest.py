"""Fixtures of this folder. They live in `replayer`, which tests import by a name that no other folder has."""

from replayer import replayer

__all__ = ["replayer"]
