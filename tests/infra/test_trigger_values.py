"""Numbers that services follow, from small servers that speak like the real ones."""

from __future__ import annotations

import asyncio
import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar

import pytest

from argosy.controllers.triggers import EVERY_MS, TriggerValues
from argosy.infra.trigger_values import TriggerError, Value, fetch_value
from argosy.model.scaling import Trigger


class _Http(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, object]] = {}

    def do_GET(self) -> None:
        found = self.answers.get(self.path)
        self.send_response(302 if found == "elsewhere" else 200 if found is not None else 404)
        self.send_header("Location", "/somewhere")
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Sqs(http.server.BaseHTTPRequestHandler):
    """A queue with 7 messages that wait, 4 in flight, 2 that come later."""

    COUNTS: ClassVar[dict[str, str]] = {
        "ApproximateNumberOfMessages": "7",
        "ApproximateNumberOfMessagesNotVisible": "4",
        "ApproximateNumberOfMessagesDelayed": "2",
    }

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["X-Amz-Target"] == "AmazonSQS.GetQueueAttributes"
        is_there = asked["QueueUrl"].endswith("/jobs")
        self.send_response(200 if is_there else 400)
        self.end_headers()
        told = {"Attributes": {name: self.COUNTS[name] for name in asked["AttributeNames"]}}
        wrong = {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no such queue"}
        self.wfile.write(json.dumps(told if is_there else wrong).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Redis(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                self.rfile.readline()
                words.append(self.rfile.readline().strip())
            if words[0] == b"SELECT":
                self.wfile.write(b"+OK\r\n")
            elif words[1] == b"jobs":
                self.wfile.write(b":17\r\n")
            else:
                self.wfile.write(b"-WRONGTYPE no list\r\n")


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[Callable[[type[Any]], str]]:
    servers = []

    def serve(handler: type[Any]) -> str:
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def _value(kind: str, **metadata: str) -> float:
    return fetch_value(Trigger(kind=kind, name="t", target=1, metadata=metadata)).number


def _refused(kind: str, **metadata: str) -> str:
    with pytest.raises(TriggerError) as raised:
        _value(kind, **metadata)
    return str(raised.value)


def test_prometheus_and_other_addresses(served: Callable[[type[Any]], str]) -> None:
    base = "http://" + served(_Http)

    def result(*values: str) -> object:
        return {"data": {"resultType": "vector", "result": [{"value": [1, value]} for value in values]}}

    _Http.answers = {
        "/api/v1/query?query=one": result("4.5"),
        "/api/v1/query?query=none": result(),
        "/api/v1/query?query=two": result("1", "2"),
        "/api/v1/query?query=scalar": {"data": {"resultType": "scalar", "result": [1, "9"]}},
        "/queue": {"queues": [{"length": "12"}]},
        "/moved": "elsewhere",
    }
    assert _value("prometheus", serverAddress=base + "/", query="one") == 4.5
    nothing = {"serverAddress": base, "query": "none"}
    assert fetch_value(Trigger(kind="prometheus", name="t", target=1, metadata=nothing)) == (
        0.0,
        "its query finds nothing, which counts as 0: is there such a metric?",
    )
    assert _value("prometheus", serverAddress=base, query="scalar") == 9
    assert _refused("prometheus", serverAddress=base, query="two").startswith("the query gives 2 series")
    assert "404" in _refused("prometheus", serverAddress=base, query="other")
    assert _value("metrics-api", url=base + "/queue", valueLocation="queues.0.length") == 12
    assert "KeyError" in _refused("metrics-api", url=base + "/queue", valueLocation="nothing")
    assert "302" in _refused("metrics-api", url=base + "/moved", valueLocation="x")


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://[fd00:ec2::254]/x"]
)
def test_addresses_of_the_network_itself_are_refused(url: str) -> None:
    assert _refused("metrics-api", url=url, valueLocation="a").endswith("is an address of the network itself")
    assert _refused("metrics-api", url="file:///etc/passwd", valueLocation="a").endswith("is no http address")


def test_redis(served: Callable[[type[Any]], str]) -> None:
    address = served(_Redis)
    assert _value("redis", address=address, listName="jobs") == 17
    assert _refused("redis", address=address, listName="other") == "redis says: -WRONGTYPE no list"


def test_a_queue_of_sqs(served: Callable[[type[Any]], str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    place = {
        "queueURL": "https://sqs.eu-west-1.amazonaws.com/1/jobs",
        "awsEndpoint": "http://" + served(_Sqs),
    }
    assert _value("aws-sqs-queue", **place) == 11, "what is in flight counts"
    assert _value("aws-sqs-queue", **place, scaleOnInFlight="false") == 7
    assert _value("aws-sqs-queue", **place, scaleOnDelayed="true") == 13
    gone = {**place, "queueURL": place["queueURL"] + "-old"}
    assert "no such queue" in _refused("aws-sqs-queue", **gone)


def test_values_are_fetched_in_the_background_and_forgotten_after_failures() -> None:
    now, answers = 1_000_000, [5.0, None, None, None, 6.0]

    def fetch(trigger: Trigger) -> Value:
        found = answers.pop(0)
        if found is None:
            raise TriggerError("away")
        return Value(found, "odd" if found == 7 else "")

    async def story() -> list[list[float]]:
        nonlocal now
        tasks: list[asyncio.Task[None]] = []

        def spawn(work: Coroutine[Any, Any, None]) -> None:
            tasks.append(asyncio.ensure_future(work))

        values = TriggerValues(spawn, fetch)
        triggers = [Trigger(kind="redis", name="jobs", target=1)]
        seen = []
        for _ in range(6):
            found = values.signals("svc", triggers, now)
            assert values.signals("svc", triggers, now).keys() == found.keys(), "not asked twice at once"
            await asyncio.gather(*tasks)
            seen.append(list(values.signals("svc", triggers, now).get("jobs", []))[-1:])
            told.append(values.troubles("svc"))
            now += EVERY_MS
        values.forget("svc")
        assert values.troubles("svc") == ()
        return seen

    told: list[tuple[str, ...]] = []
    answers.append(7.0)
    assert asyncio.run(story()) == [[5.0], [5.0], [5.0], [], [6.0], [7.0]]
    away = ("its trigger `jobs` has no value: away",)
    assert told == [(), away, away, away, (), ("its trigger `jobs` is 7: odd",)]
