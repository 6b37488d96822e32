"""Protocol buffers on the wire, no more of them than the gRPC of the protocol needs: numbers of fields with
varints, fixed lengths and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from argosy.inference.tensors import BadRequest

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MOST_BYTES = 10  # of a varint


def varint(value: int) -> bytes:
    """Negative numbers as their 64 bits."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def number(field: int, value: int) -> bytes:
    """A field with a number or a truth; nothing for zero, as the format has it."""
    return varint(field << 3 | VARINT) + varint(int(value)) if value else b""


def data(field: int, value: bytes) -> bytes:
    """A field with bytes or a message; also an empty one, which stands for itself in a list."""
    return varint(field << 3 | BYTES) + varint(len(value)) + value


def text(field: int, value: str) -> bytes:
    """A field with a text; nothing for an empty one."""
    return data(field, value.encode()) if value else b""


def numbers(field: int, values: Iterable[int]) -> bytes:
    """A list of whole numbers."""
    found = b"".join(varint(each) for each in values)
    return data(field, found) if found else b""


def fields(message: Any) -> Iterator[tuple[int, int, Any]]:
    """(number, kind, value) of each field: a number for VARINT, else a view of its bytes. Raises
    BadRequest."""
    view, at = memoryview(message), 0
    while at < len(view):
        key, at = _read(view, at)
        field, kind = key >> 3, key & 7
        if kind == VARINT:
            value: Any
            value, at = _read(view, at)
        elif kind in (FIXED64, FIXED32, BYTES):
            length = 8 if kind == FIXED64 else 4
            if kind == BYTES:
                length, at = _read(view, at)
            value, at = view[at : at + length], at + length
            if at > len(view):
                raise BadRequest(f"the message ends within its field {field}")
        else:
            raise BadRequest(f"field {field} of the message has the unknown kind {kind}")
        yield field, kind, value


def _read(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_MOST_BYTES):
        if at + count >= len(view):
            break
        byte = view[at + count]
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value & (1 << 64) - 1, at + count + 1
    raise BadRequest("a number of the message does not end")


def signed(value: int) -> int:
    """A varint as the 64-bit number that it stands for."""
    return value - (1 << 64) if value >> 63 else value


def read_text(value: Any) -> str:
    """Raises BadRequest."""
    try:
        return bytes(value).decode()
    except (TypeError, ValueError):
        raise BadRequest("a text of the message is no UTF-8") from None


def read_numbers(kind: int, value: Any) -> list[int]:
    """What one occurrence of a list of whole numbers holds: one, or several that are packed."""
    if kind == VARINT:
        return [value]
    found, at = [], 0
    while at < len(value):
        one, at = _read(value, at)
        found.append(one)
    return found


def read_floats(value: Any, code: str) -> list[float]:
    """The same of numbers of four ("<f4") or eight ("<f8") bytes."""
    try:
        found: list[float] = np.frombuffer(value, dtype=code).tolist()
    except ValueError:
        raise BadRequest("a list of the message ends within a number") from None
    return found
