"""CRC32C and CRC64NVME, which clients of S3 send and Python's own library does not have.

A cyclic redundancy check is linear: lanes of 64 bytes are worked through side by side, and their results are
joined in pairs by an operator that stands for the zeros between them: some 70 MB/s, where one table and a
loop in Python make three.
Source: M. Adler's `crc32_combine` in zlib, for the joining.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.unsignedinteger]

_LANE: Final = 64  # bytes


class Crc:
    """A check of `bits` bits with a reflected polynomial; all ones at its beginning and inverted at its end,
    as both of S3's are.

    >>> crc32c().digest_of(b"123456789").hex(), crc64nvme().digest_of(b"123456789").hex()
    ('e3069283', 'ae8b14860a799888')
    """

    def __init__(self, bits: int, polynomial: int) -> None:
        self._bits, self._polynomial = bits, polynomial
        self._ones = (1 << bits) - 1
        self._value = self._ones

    def update(self, data: bytes, /) -> None:
        count = len(data) // _LANE
        if count >= 4:
            lanes = memoryview(data)[: count * _LANE]
            self._value = self._moved(self._value, count) ^ self._joined(self._of_lanes(lanes, count))
            data = data[count * _LANE :]
        table = _table(self._bits, self._polynomial)
        value = self._value
        for byte in data:
            value = table[(value ^ byte) & 255] ^ (value >> 8)
        self._value = value

    def digest(self) -> bytes:
        return (self._value ^ self._ones).to_bytes(self._bits // 8, "big")

    def digest_of(self, data: bytes) -> bytes:
        self.update(data)
        return self.digest()

    def _of_lanes(self, data: memoryview, count: int) -> Words:
        """The check of each lane, from zero."""
        import numpy as np

        kind = np.uint32 if self._bits == 32 else np.uint64
        table = np.array(_table(self._bits, self._polynomial), dtype=kind)
        columns = np.frombuffer(data, dtype=np.uint8).reshape(count, _LANE).T.astype(kind)
        values: Any = np.zeros(count, dtype=kind)
        low, eight = kind(255), kind(8)
        for column in columns:
            values = table[(values ^ column) & low] ^ (values >> eight)
        found: Words = values
        return found

    def _joined(self, values: Words) -> int:
        """Of all lanes as one."""
        import numpy as np

        step = 0
        while len(values) > 1:
            if len(values) % 2:  # a lane of zeros before the first changes nothing
                values = np.concatenate([np.zeros(1, dtype=values.dtype), values])
            earlier, later = values[0::2], values[1::2]
            moved = np.zeros_like(earlier)
            for byte, table in enumerate(_operator(self._bits, self._polynomial, step)):
                part = (earlier >> values.dtype.type(8 * byte)) & values.dtype.type(255)
                moved ^= np.array(table, dtype=values.dtype)[part]
            values, step = moved ^ later, step + 1
        return int(values[0])

    def _moved(self, value: int, lanes: int) -> int:
        """A value with so many lanes of zeros behind it."""
        step = 0
        while lanes:
            if lanes & 1:
                value = _apply(_operator(self._bits, self._polynomial, step), value)
            lanes, step = lanes >> 1, step + 1
        return value


def crc32c() -> Crc:
    return Crc(32, 0x82F63B78)


def crc64nvme() -> Crc:
    return Crc(64, 0x9A6C9329AC4BC9B5)


@lru_cache(2)
def _table(bits: int, polynomial: int) -> tuple[int, ...]:
    """What one byte makes of a value of zero."""
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        found.append(value)
    return tuple(found)


Operator = tuple[tuple[int, ...], ...]  # for each byte of a value, what each of its 256 values becomes


@lru_cache(128)
def _operator(bits: int, polynomial: int, step: int) -> Operator:
    """2 ** `step` lanes of zeros."""
    if step:
        half = _operator(bits, polynomial, step - 1)
        return _tables(bits, [_apply(half, _apply(half, 1 << bit)) for bit in range(bits)])
    table, images = _table(bits, polynomial), []
    for bit in range(bits):
        value = 1 << bit
        for _ in range(_LANE):
            value = table[value & 255] ^ (value >> 8)
        images.append(value)
    return _tables(bits, images)


def _tables(bits: int, images: list[int]) -> Operator:
    """An operator by what it makes of each bit."""
    found = []
    for first in range(0, bits, 8):
        row = [0] * 256
        for byte in range(1, 256):
            lowest = (byte & -byte).bit_length() - 1
            row[byte] = row[byte & (byte - 1)] ^ images[first + lowest]
        found.append(tuple(row))
    return tuple(found)


def _apply(operator: Operator, value: int) -> int:
    made = 0
    for byte, table in enumerate(operator):
        made ^= table[(value >> (8 * byte)) & 255]
    return made
