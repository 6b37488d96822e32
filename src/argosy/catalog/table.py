"""The file of prices: columns by provider, compressed one by one, so that a lookup unpacks only what it
needs.

Layout: `MAGIC`, length of the directory (u32), directory (msgpack), sections (zlib). The directory names each
section with offset, length and CRC; a wrong byte anywhere is found before a figure of it is used.
docs/decisions/0010 says why.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from argosy.catalog.facts import Facts, HazardColumns
from argosy.model.market import Block, Lane, Note, Place
from argosy.model.offer import Capacity

MAGIC = b"ARGOSY PRICES 1\n"
_FACTS = "facts"
_HAZARD = "hazard"


class CorruptTable(Exception):
    """The file is not a table of prices, is cut, or was changed. The text says which."""


class _Section(msgspec.Struct, frozen=True, array_like=True):
    offset: int
    length: int
    crc: int


class Directory(msgspec.Struct, frozen=True, array_like=True):
    built: str  # YYYY-MM-DD
    offers: dict[str, int]  # by provider, of all lanes
    sections: dict[str, _Section]


class _LaneHead(msgspec.Struct, frozen=True, array_like=True):
    capacity: Capacity
    rows: int


class _BlockHead(msgspec.Struct, frozen=True, array_like=True):
    instance_types: list[str]
    models: list[str]
    arches: list[str]
    sources: list[str]
    rules: list[str]
    kinds: list[list[int]]  # model, milli, device MiB, milli-CPU, MiB, disk bytes, arch; one list a column
    places: list[Place]
    notes: list[tuple[int, int, int, bool]]  # day, source, rule, estimated
    lanes: list[_LaneHead]


class PriceRow(NamedTuple):
    """One figure on its way into a block."""

    instance_type: str
    model: str
    accelerators_milli: int
    device_memory_bytes: int
    cpus_milli: int
    memory_bytes: int
    disk_bytes: int
    arch: str
    region: str
    zone: str
    capacity: Capacity
    price_micro_usd: int
    note: Note

    @property
    def kind(self) -> tuple[str, str, int, int, int, int, int, str]:
        return self[:8]


def build_block(provider: str, rows: Iterable[PriceRow]) -> Block:
    """Columns from rows. Raises ValueError for a price that is not above 0."""
    rows = list(rows)
    kinds = sorted({row.kind for row in rows})
    kind_index = {kind: index for index, kind in enumerate(kinds)}
    places = sorted({Place(row.region, row.zone) for row in rows})
    place_index = {place: index for index, place in enumerate(places)}
    note_index: dict[Note, int] = {}
    lanes = []
    for capacity in (Capacity.ON_DEMAND, Capacity.SPOT):
        by_kind: list[list[tuple[int, int, int]]] = [[] for _ in kinds]
        for row in rows:
            if row.capacity is not capacity:
                continue
            if row.price_micro_usd <= 0:
                raise ValueError(f"{row.instance_type} in {row.region}: price {row.price_micro_usd / 1e6:g}")
            note = note_index.setdefault(row.note, len(note_index))
            by_kind[kind_index[row.kind]].append(
                (row.price_micro_usd, place_index[Place(row.region, row.zone)], note)
            )
        start, place, price, notes = [0], array("H"), array("q"), array("H")
        for group in by_kind:
            for micro_usd, at, note in sorted(group):
                price.append(micro_usd)
                place.append(at)
                notes.append(note)
            start.append(len(price))
        if price:
            lanes.append(Lane(capacity, start, place, price, notes))
    return Block(
        provider,
        instance_types=[kind[0] for kind in kinds],
        models=[kind[1] for kind in kinds],
        accelerators_milli=[kind[2] for kind in kinds],
        device_memory_bytes=[kind[3] for kind in kinds],
        cpus_milli=[kind[4] for kind in kinds],
        memory_bytes=[kind[5] for kind in kinds],
        disk_bytes=[kind[6] for kind in kinds],
        arch=[kind[7] for kind in kinds],
        places=places,
        lanes=lanes,
        notes=list(note_index),
    )


def rows_of(block: Block) -> Iterable[PriceRow]:
    """The rows that `build_block` makes the same block of."""
    for lane, kind, row in block.rows():
        columns = block.lanes[lane]
        place = block.places[columns.place[row]]
        yield PriceRow(
            instance_type=block.instance_types[kind],
            model=block.models[kind],
            accelerators_milli=block.accelerators_milli[kind],
            device_memory_bytes=block.device_memory_bytes[kind],
            cpus_milli=block.cpus_milli[kind],
            memory_bytes=block.memory_bytes[kind],
            disk_bytes=block.disk_bytes[kind],
            arch=block.arch[kind],
            region=place.region,
            zone=place.zone,
            capacity=columns.capacity,
            price_micro_usd=columns.price[row],
            note=block.notes[columns.note[row]],
        )


def write_table(
    built: str,
    blocks: Sequence[Block],
    facts: Facts | None = None,
    hazards: Mapping[str, HazardColumns] | None = None,
) -> bytes:
    """The file's bytes; the same blocks give the same bytes."""
    raw: dict[str, bytes] = {
        _FACTS: msgspec.msgpack.encode(facts or Facts()),
        _HAZARD: msgspec.msgpack.encode(hazards or {}),
    }
    raw.update({_section_name(block.provider): _pack_block(block) for block in blocks})
    packed = {name: zlib.compress(data, 9) for name, data in raw.items()}
    sections, offset = {}, 0
    for name, data in packed.items():
        sections[name] = _Section(offset, len(data), zlib.crc32(data))
        offset += len(data)
    directory = msgspec.msgpack.encode(
        Directory(built=built, offers={block.provider: len(block) for block in blocks}, sections=sections)
    )
    head = MAGIC + struct.pack("<II", len(directory), zlib.crc32(directory)) + directory
    return head + b"".join(packed.values())


class Table:
    """An opened file of prices. Nothing but the directory is unpacked until it is asked for."""

    def __init__(self, data: bytes) -> None:
        head = len(MAGIC) + 8
        if data[: len(MAGIC)] != MAGIC or len(data) < head:
            raise CorruptTable("it does not begin like a table of prices")
        length, crc = struct.unpack_from("<II", data, len(MAGIC))
        if zlib.crc32(data[head : head + length]) != crc:
            raise CorruptTable("its directory is damaged")
        try:
            self.directory = msgspec.msgpack.decode(data[head : head + length], type=Directory)
        except msgspec.MsgspecError as error:
            raise CorruptTable(f"its directory cannot be read: {error}") from None
        self._data = memoryview(data)[head + length :]

    @classmethod
    def open(cls, path: Path) -> Table:
        """Raises OSError, CorruptTable."""
        return cls(path.read_bytes())

    @property
    def providers(self) -> Sequence[str]:
        return tuple(self.directory.offers)

    def offers(self) -> Mapping[str, int]:
        return self.directory.offers

    def facts(self) -> Facts:
        try:
            return msgspec.msgpack.decode(self._section(_FACTS), type=Facts)
        except msgspec.MsgspecError as error:
            raise CorruptTable(f"its facts cannot be read: {error}") from None

    def hazards(self) -> dict[str, HazardColumns]:
        """By provider."""
        try:
            return msgspec.msgpack.decode(self._section(_HAZARD), type=dict[str, HazardColumns])
        except msgspec.MsgspecError as error:
            raise CorruptTable(f"its spot hazards cannot be read: {error}") from None

    def block(self, provider: str) -> Block:
        try:
            return _unpack_block(provider, self._section(_section_name(provider)))
        except (msgspec.MsgspecError, struct.error, IndexError, ValueError) as error:
            raise CorruptTable(f"its prices of {provider} cannot be read: {error}") from None

    def check(self) -> None:
        """Read everything once. Raises CorruptTable."""
        self.facts()
        self.hazards()
        for provider in self.providers:
            block = self.block(provider)
            if len(block) != self.directory.offers[provider]:
                raise CorruptTable(f"its prices of {provider} are not as many as it says")
            if any(price <= 0 for lane in block.lanes for price in lane.price):
                raise CorruptTable(f"it has a price of {provider} that is not above 0")

    def _section(self, name: str) -> bytes:
        section = self.directory.sections.get(name)
        if section is None:
            raise CorruptTable(f"it has no section {name}")
        data = self._data[section.offset : section.offset + section.length]
        if zlib.crc32(data) != section.crc:
            raise CorruptTable(f"its section {name} is damaged")
        return zlib.decompress(data)


def _section_name(provider: str) -> str:
    return f"prices/{provider}"


def _intern(values: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found.setdefault(value, len(found))
    return found


def _pack_block(block: Block) -> bytes:
    models, arches = _intern(block.models), _intern(block.arch)
    sources = _intern(note.source for note in block.notes)
    rules = _intern(note.rule for note in block.notes)
    head = _BlockHead(
        instance_types=list(block.instance_types),
        models=list(models),
        arches=list(arches),
        sources=list(sources),
        rules=list(rules),
        kinds=[
            [models[name] for name in block.models],
            list(block.accelerators_milli),
            list(block.device_memory_bytes),
            list(block.cpus_milli),
            list(block.memory_bytes),
            list(block.disk_bytes),
            [arches[name] for name in block.arch],
        ],
        places=list(block.places),
        notes=[(n.as_of_day, sources[n.source], rules[n.rule], n.estimated) for n in block.notes],
        lanes=[_LaneHead(lane.capacity, len(lane.price)) for lane in block.lanes],
    )
    packed = msgspec.msgpack.encode(head)
    parts = [struct.pack("<I", len(packed)), packed]
    for lane in block.lanes:
        for column in (array("I", lane.start), lane.place, lane.price, lane.note):
            parts.append(_little(column).tobytes())
    return b"".join(parts)


def _unpack_block(provider: str, data: bytes) -> Block:
    (length,) = struct.unpack_from("<I", data)
    head = msgspec.msgpack.decode(data[4 : 4 + length], type=_BlockHead)
    at = 4 + length
    lanes = []
    for lane in head.lanes:
        columns = []
        for code, count in (
            ("I", len(head.instance_types) + 1), ("H", lane.rows), ("q", lane.rows), ("H", lane.rows),
        ):  # fmt: skip
            column = array(code)
            size = column.itemsize * count
            if at + size > len(data):
                raise ValueError("cut short")
            column.frombytes(data[at : at + size])
            columns.append(_little(column))
            at += size
        lanes.append(Lane(lane.capacity, *columns))
    model, milli, device_memory, cpus, memory, disk, arch = head.kinds
    return Block(
        provider,
        instance_types=head.instance_types,
        models=[head.models[index] for index in model],
        accelerators_milli=milli,
        device_memory_bytes=device_memory,
        cpus_milli=cpus,
        memory_bytes=memory,
        disk_bytes=disk,
        arch=[head.arches[index] for index in arch],
        places=head.places,
        lanes=lanes,
        notes=[Note(day, head.sources[s], head.rules[r], estimated) for day, s, r, estimated in head.notes],
    )


def _little(column: array[int]) -> array[int]:
    """Files are little-endian on every machine."""
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column
