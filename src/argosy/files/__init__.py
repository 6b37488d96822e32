"""Parallel file tools: find, ls, du, chmod, chown, cp, rm, sync, stat with many calls under way at once.

Two engines do the same: a small program in C (`native/`), and Python (`twin/`) where that cannot run.
"""
