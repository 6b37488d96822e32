"""Reads how far a consumer group of Kafka is behind: four requests of its protocol, over plain TCP or TLS.

The oldest versions that brokers up to 4.x still answer are spoken: Metadata 1, FindCoordinator 0, OffsetFetch
1, ListOffsets 1. Blocking.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

TIMEOUT_S: Final = 5.0
_MOST: Final = 4 << 20  # bytes of an answer
_CLIENT: Final = b"argosy"
_METADATA, _COORDINATOR, _FETCH, _LIST = (3, 1), (10, 0), (9, 1), (2, 1)
_LATEST: Final = -1
_WORDS: Final = {
    3: "there is no such topic or partition",
    15: "its coordinator is not available",
    16: "this broker does not coordinate the group",
    29: "the topic may not be read without a right to it",
    30: "the group may not be read without a right to it",
    6: "the broker does not lead the partition any more",
}


class KafkaError(Exception):
    """A broker does not say it, or says no."""


class Lag(NamedTuple):
    """Of one partition: where the group is, and where the messages end; `committed` -1: it has done none."""

    committed: int
    latest: int

    def behind(self, from_first: bool, otherwise: int) -> int:
        """Messages; for a group that has done none yet all of them, or what is said for that case."""
        if self.committed < 0:
            return self.latest if from_first else otherwise
        return max(0, self.latest - self.committed)


class _Reader:
    """Reads one answer, field by field."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(">" + form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def text(self) -> str:
        length = self.number("h")
        if length < 0:
            return ""
        found = self._data[self._at : self._at + length]
        self._at += length
        return found.decode()

    def numbers(self) -> list[int]:
        return [self.number("i") for _ in range(self.number("i"))]


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">h", len(data)) + data


class _Broker:
    """One connection."""

    def __init__(self, host: str, port: int, tls: bool) -> None:
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        if tls:
            self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
        self._number = 0

    def __enter__(self) -> _Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, what: tuple[int, int], body: bytes) -> _Reader:
        self._number += 1
        head = struct.pack(">hhih", *what, self._number, len(_CLIENT)) + _CLIENT
        self._socket.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        (length,) = struct.unpack(">i", self._exactly(4))
        if not 4 <= length <= _MOST:
            raise KafkaError("what answers there is no broker of Kafka")
        answer = _Reader(self._exactly(length))
        if answer.number("i") != self._number:
            raise KafkaError("what answers there is no broker of Kafka")
        return answer

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise KafkaError("the broker closed the connection: does it ask for TLS or a password?")
            data += more
        return data


def lags(
    servers: Sequence[tuple[str, int]],
    group: str,
    topic: str,
    *,
    tls: bool = False,
    check: Callable[[str], None] = lambda host: None,
) -> dict[int, Lag]:
    """By partition of the topic. The first of `servers` that answers is asked. `check` raises for a host that
    may not be asked, also one that a broker names. Raises KafkaError, OSError."""
    last: OSError | KafkaError = KafkaError("no server is named")
    for host, port in servers:
        try:
            check(host)
            with _Broker(host, port, tls) as broker:
                brokers, leaders = _metadata(broker, topic)
                place = _coordinator(broker, group)
            check(place[0])
            with _Broker(*place, tls) as broker:
                committed = _committed(broker, group, topic, sorted(leaders))
            latest: dict[int, int] = {}
            for leader in sorted(set(leaders.values())):
                mine = sorted(number for number, each in leaders.items() if each == leader)
                check(brokers[leader][0])
                with _Broker(*brokers[leader], tls) as broker:
                    latest |= _latest(broker, topic, mine)
            return {number: Lag(committed.get(number, -1), latest[number]) for number in sorted(leaders)}
        except (OSError, KafkaError) as error:
            last = error
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            last = KafkaError(f"an answer of {host}:{port} cannot be read: {error}")
    raise last


def _check(code: int, what: str) -> None:
    if code:
        raise KafkaError(f"{what}: {_WORDS.get(code, f'error {code}')}")


def _metadata(broker: _Broker, topic: str) -> tuple[Mapping[int, tuple[str, int]], dict[int, int]]:
    """(address of each broker, leader of each partition)."""
    answer = broker.ask(_METADATA, struct.pack(">i", 1) + _text(topic))
    brokers = {}
    for _ in range(answer.number("i")):
        node, host, port = answer.number("i"), answer.text(), answer.number("i")
        answer.text()  # its rack
        brokers[node] = (host, port)
    answer.number("i")  # the controller
    leaders: dict[int, int] = {}
    for _ in range(answer.number("i")):
        _check(answer.number("h"), f"topic `{answer.text()}`")
        answer.number("b")
        for _ in range(answer.number("i")):
            answer.number("h")
            number, leader = answer.number("i"), answer.number("i")
            answer.numbers(), answer.numbers()
            leaders[number] = leader
    return brokers, leaders


def _coordinator(broker: _Broker, group: str) -> tuple[str, int]:
    answer = broker.ask(_COORDINATOR, _text(group))
    _check(answer.number("h"), f"group `{group}`")
    answer.number("i")
    return answer.text(), answer.number("i")


def _committed(broker: _Broker, group: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    numbers = struct.pack(f">i{len(partitions)}i", len(partitions), *partitions)
    answer = broker.ask(_FETCH, _text(group) + struct.pack(">i", 1) + _text(topic) + numbers)
    found = {}
    for _ in range(answer.number("i")):
        answer.text()
        for _ in range(answer.number("i")):
            number, offset = answer.number("i"), answer.number("q")
            answer.text()
            _check(answer.number("h"), f"group `{group}`")
            found[number] = offset
    return found


def _latest(broker: _Broker, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    asked = b"".join(struct.pack(">iq", number, _LATEST) for number in partitions)
    body = struct.pack(">ii", -1, 1) + _text(topic) + struct.pack(">i", len(partitions)) + asked
    answer = broker.ask(_LIST, body)
    found = {}
    for _ in range(answer.number("i")):
        answer.text()
        for _ in range(answer.number("i")):
            number, code = answer.number("i"), answer.number("h")
            answer.number("q")
            found[number] = answer.number("q")
            _check(code, f"partition {number} of `{topic}`")
    return found
