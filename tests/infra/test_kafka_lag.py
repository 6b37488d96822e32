"""The lag of a Kafka consumer group, from a small broker that speaks the protocol."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from argosy.infra.kafka_lag import KafkaError, Lag, lags
from argosy.infra.trigger_values import TriggerError, fetch_value
from argosy.model.scaling import Trigger

COMMITTED = {0: 90, 1: -1, 2: 7}
LATEST = {0: 100, 1: 40, 2: 7}


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


class Broker(socketserver.ThreadingTCPServer):
    """Leads all partitions of `jobs`, and coordinates `workers`. Reads requests to their last byte."""

    allow_reuse_address = daemon_threads = True
    asked: list[int]
    error = 0
    names = "127.0.0.1"

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Handler(socketserver.BaseRequestHandler):
    server: Broker

    def handle(self) -> None:
        stream = self.request.makefile("rb")
        while head := stream.read(4):
            data = stream.read(struct.unpack(">i", head)[0])
            key, version, number, length = struct.unpack_from(">hhih", data)
            assert data[10 : 10 + length] == b"argosy"
            self.server.asked.append(key)
            answer, rest = getattr(self, f"answer_{key}_{version}")(data[10 + length :])
            assert rest == b"", "the request is longer than its version says"
            answer = struct.pack(">i", number) + answer
            self.request.sendall(struct.pack(">i", len(answer)) + answer)

    def answer_3_1(self, body: bytes) -> tuple[bytes, bytes]:
        assert body[:10] == struct.pack(">i", 1) + _text("jobs"), body
        broker = (
            struct.pack(">i", 7)
            + _text(self.server.names)
            + struct.pack(">i", self.server.port)
            + b"\xff\xff"
        )
        parts = b"".join(struct.pack(">hiii2ii", 0, n, 7, 2, 7, 8, 0) for n in LATEST)
        topic = (
            struct.pack(">h", self.server.error)
            + _text("jobs")
            + b"\0"
            + struct.pack(">i", len(LATEST))
            + parts
        )
        return struct.pack(">i", 1) + broker + struct.pack(">ii", 7, 1) + topic, body[10:]

    def answer_10_0(self, body: bytes) -> tuple[bytes, bytes]:
        assert body[:9] == _text("workers")
        place = _text(self.server.names) + struct.pack(">i", self.server.port)
        return struct.pack(">hi", 0, 7) + place, body[9:]

    def answer_9_1(self, body: bytes) -> tuple[bytes, bytes]:
        asked = _text("workers") + struct.pack(">i", 1) + _text("jobs") + struct.pack(">i3i", 3, 0, 1, 2)
        parts = b"".join(struct.pack(">iqhh", n, offset, -1, 0) for n, offset in COMMITTED.items())
        return struct.pack(">i", 1) + _text("jobs") + struct.pack(">i", 3) + parts, body.removeprefix(asked)

    def answer_2_1(self, body: bytes) -> tuple[bytes, bytes]:
        asked = struct.pack(">ii", -1, 1) + _text("jobs") + struct.pack(">i", 3)
        asked += b"".join(struct.pack(">iq", n, -1) for n in LATEST)
        parts = b"".join(struct.pack(">ihqq", n, 0, -1, offset) for n, offset in LATEST.items())
        return struct.pack(">i", 1) + _text("jobs") + struct.pack(">i", 3) + parts, body.removeprefix(asked)


@pytest.fixture
def broker() -> Iterator[Broker]:
    server = Broker(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_lags_are_read_by_partition(broker: Broker) -> None:
    found = lags([("127.0.0.1", 1), ("127.0.0.1", broker.port)], "workers", "jobs")
    assert found == {0: Lag(90, 100), 1: Lag(-1, 40), 2: Lag(7, 7)}
    assert broker.asked == [3, 10, 9, 2]


@pytest.mark.parametrize(
    ("more", "value"),
    [
        ({}, 11),  # 10, and 1 for a group that has done nothing of partition 1
        ({"offsetResetPolicy": "earliest"}, 30),  # 50, of which three partitions of 10 can be taken
        ({"offsetResetPolicy": "earliest", "allowIdleConsumers": "true"}, 50),
        ({"scaleToZeroOnInvalidOffset": "true"}, 10),
    ],
)
def test_the_trigger_counts_as_keda_does(broker: Broker, more: dict[str, str], value: int) -> None:
    assert fetch_value(_trigger(f"127.0.0.1:{broker.port}", **more)).number == value


def _trigger(servers: str, **more: str) -> Trigger:
    metadata = {
        "bootstrapServers": servers,
        "consumerGroup": "workers",
        "topic": "jobs",
        "lagThreshold": "10",
    }
    return Trigger(kind="kafka", name="lag", target=10, metadata=metadata | more)


def test_what_is_wrong_is_told(broker: Broker) -> None:
    broker.error = 3
    with pytest.raises(TriggerError, match="topic `jobs`: there is no such topic"):
        fetch_value(_trigger(f"127.0.0.1:{broker.port}"))
    broker.error, broker.names = 0, "169.254.169.254"
    with pytest.raises(TriggerError, match=r"`169\.254\.169\.254` is an address of the network itself"):
        fetch_value(_trigger(f"127.0.0.1:{broker.port}"))
    with pytest.raises(TriggerError, match="`b` is no server: write `HOST:9092`"):
        fetch_value(_trigger("b"))


def test_what_is_no_broker_is_told() -> None:
    class Web(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        place: Any = server.server_address
        with pytest.raises(KafkaError, match="what answers there is no broker of Kafka"):
            lags([place], "workers", "jobs")
