"""Landlock: this process and its children see the files they are given and no others. Needs no right at all.

It hides files, and with ABI 6 keeps signals and abstract sockets from programs outside. It does not hide
process ids, nor other people's sockets that have a path: what it cannot do is told in docs/sessions.md.
"""

from __future__ import annotations

import ctypes
import os
import struct

# Numbers of the system calls, the same on x86-64 and arm64.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_NO_NEW_PRIVILEGES, _DROP_FROM_BOUNDS, _CAPABILITIES_V3 = 38, 24, 0x20080522
_VERSION = 1  # a flag of _CREATE
_PATH_BENEATH = 1

# What may be done with files: execute, write, read file, read folder, then kinds of changes.
_EXECUTE, _WRITE, _READ, _LIST = 1, 2, 4, 8
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # so many kinds of rights, by ABI; from 5 on 16


def abi() -> int:
    """What this kernel's Landlock can do; 0: there is none."""
    try:
        return max(0, _call(_CREATE, None, ctypes.c_size_t(0), _VERSION))
    except (OSError, AttributeError):
        return 0


def restrict(readable: list[str], writable: list[str]) -> None:
    """From now on only these files and folders are there, and it cannot be undone. Paths that do not exist
    are left out. Raises OSError where Landlock is not to be had."""
    version = abi()
    _drop_capabilities()
    if not version:
        raise OSError("this kernel has no Landlock")
    every = (1 << _RIGHTS.get(version, 16)) - 1
    scope = 3 if version >= 6 else 0  # abstract sockets and signals stay among ourselves
    fields = struct.pack("QQQ", every, 0, scope)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _call(_CREATE, fields, ctypes.c_size_t(size), 0)
    try:
        for paths, rights in ((readable, _EXECUTE | _READ | _LIST), (writable, every)):
            for path in paths:
                _allow(rules, path, rights & every)
        if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "privileges cannot be given up")
        _call(_RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _drop_capabilities() -> None:
    """Of root: with some of them Landlock would let us look into other processes all the same."""
    library = ctypes.CDLL(None, use_errno=True)
    for number in range(64):
        library.prctl(_DROP_FROM_BOUNDS, number, 0, 0, 0)  # one that does not exist is refused
    header = struct.pack("Ii", _CAPABILITIES_V3, 0)
    if library.capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _EXECUTE | _WRITE | _READ | _TRUNCATE | _IOCTL
        _call(_ADD, rules, _PATH_BENEATH, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)


def _call(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    result = library.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)
