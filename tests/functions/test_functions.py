"""Functions keep Lambda's contract: one test for each of its edges."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.functions.environments import Environment, Forked
from argosy.functions.front import Front, frame
from argosy.functions.pool import Pool
from argosy.functions.settings import SYNC_BYTES, Settings
from argosy.functions.wire import Connection

HERE = Path(__file__).parent
INVOKE = "/2015-03-31/functions/f/invocations"
pytestmark = pytest.mark.process


class Clock:
    """Time that the test moves; it begins with the real one, which handlers see."""

    def __init__(self) -> None:
        import time

        self.added = 0.0
        self._time = time.time

    def __call__(self) -> float:
        return self._time() + self.added


class Function:
    """A function that serves in a thread."""

    def __init__(self, handler: str = "handlers.lambda_handler", **given: Any) -> None:
        given.setdefault("concurrency", 4)
        self.settings = Settings(handler, root=str(HERE), name="f", **given)
        self.clock = Clock()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.do(self._begin)

    async def _begin(self) -> None:
        self.pool = Pool(self.settings, self.clock)
        self.front = Front(self.pool, self.clock, lambda: str(uuid.uuid4()))
        await self.pool.begin()
        server = await self.loop.create_server(
            lambda: Connection(self.front.answer, SYNC_BYTES + 65536), "127.0.0.1", 0
        )
        self.port = server.sockets[0].getsockname()[1]

    def do(self, what: Callable[[], Awaitable[Any]]) -> Any:
        async def done() -> Any:
            return await what()

        return asyncio.run_coroutine_threadsafe(done(), self.loop).result(20)

    def ask(
        self,
        path: str = INVOKE,
        body: bytes = b"{}",
        fields: dict[str, str] | None = None,
        method: str = "POST",
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        connection.request(method, path, body, fields or {})
        answer = connection.getresponse()
        found = (answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def invoke(self, **event: Any) -> Any:
        status, fields, body = self.ask(body=json.dumps(event).encode())
        assert (status, fields.get("x-amz-function-error")) == (200, None), body
        return json.loads(body)

    def fails(self, **event: Any) -> dict[str, Any]:
        status, fields, body = self.ask(body=json.dumps(event).encode())
        assert (status, fields.get("x-amz-function-error")) == (200, "Unhandled"), body
        found: dict[str, Any] = json.loads(body)
        return found

    def until(self, good: Callable[[Environment], bool]) -> None:
        """Wait until this is true of an environment."""

        async def wait() -> None:
            while not any(good(each) for each in self.pool.environments):
                await asyncio.sleep(0.005)

        self.do(wait)

    def close(self) -> None:
        self.do(self.pool.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


@pytest.fixture(scope="module")
def function() -> Iterator[Function]:
    found = Function(timeout_s=3.0, aliases=("live",), version="7")
    yield found
    found.close()


@contextlib.contextmanager
def _made(**given: Any) -> Iterator[Function]:
    found = Function(**given)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def spoken() -> Iterator[Function]:
    with _made(command=(sys.executable, str(HERE / "bootstrap.py"))) as made:
        yield made


# --- Invoke ------------------------------------------------------------------------------------------


def test_sizes(function: Function) -> None:
    status, fields, body = function.ask(body=b'"' + b"x" * SYNC_BYTES + b'"')
    assert (status, fields["x-amzn-errortype"]) == (413, "RequestTooLargeException")
    assert json.loads(body)["message"].startswith("Request must be smaller than 6291456 bytes")
    status, fields, _ = function.ask(
        body=b'"' + b"x" * 1024 * 1024 + b'"', fields={"X-Amz-Invocation-Type": "Event"}
    )
    assert (status, fields["x-amzn-errortype"]) == (413, "RequestTooLargeException")
    assert len(function.invoke(do="large", size=5_000_000)) == 5_000_000
    assert function.fails(do="large", size=SYNC_BYTES)["errorType"] == "Function.ResponseSizeTooLarge"


def test_what_is_no_json_is_refused(function: Function) -> None:
    status, fields, _ = function.ask(body=b"{nothing")
    assert (status, fields["x-amzn-errortype"]) == (400, "InvalidRequestContentException")


def test_dry_run_and_events_are_accepted_without_an_answer(function: Function, tmp_path: Path) -> None:
    assert function.ask(fields={"X-Amz-Invocation-Type": "DryRun"})[0] == 204
    file = tmp_path / "tries"
    body = json.dumps({"do": "fail", "file": str(file), "until": 1}).encode()
    status, fields, answer = function.ask(body=body, fields={"X-Amz-Invocation-Type": "Event"})
    assert (status, answer) == (202, b"")
    assert fields["x-amzn-requestid"]
    function.do(function.front.settled)
    assert file.read_text() == "x"


def test_events_are_tried_three_times_and_then_go_to_the_failures(tmp_path: Path) -> None:
    failures = tmp_path / "failures"
    with _made(retries_s=(0.0, 0.0), failures=str(failures)) as made:
        for until in (3, 99):
            body = json.dumps({"do": "fail", "file": str(tmp_path / str(until)), "until": until}).encode()
            made.ask(body=body, fields={"X-Amz-Invocation-Type": "Event"})
        made.do(made.front.settled)
    assert (tmp_path / "3").read_text() == (tmp_path / "99").read_text() == "xxx"
    record = json.loads(failures.read_text())
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["requestPayload"]["until"] == 99
    assert record["responsePayload"]["errorMessage"] == "not yet"


def test_the_end_of_the_log_comes_back_when_asked_for(function: Function) -> None:
    _, fields, _ = function.ask(body=b'{"do": "log"}', fields={"X-Amz-Log-Type": "Tail"})
    log = base64.b64decode(fields["x-amz-log-result"])
    assert len(log) == 4096
    assert log.endswith(b"line 299 of the log\nthe end\n")


def test_a_handler_that_raises(function: Function) -> None:
    status, fields, body = function.ask(body=b'{"do": "raise"}')
    assert (status, fields["x-amz-function-error"], fields["x-amz-executed-version"]) == (
        200,
        "Unhandled",
        "7",
    )
    error = json.loads(body)
    assert (error["errorType"], error["errorMessage"]) == ("KeyError", "'missing'")
    assert 'handlers.py", line' in error["stackTrace"][-1]
    assert function.fails(do="object")["errorType"] == "Runtime.MarshalError"


def test_a_timeout_ends_the_environment_and_others_go_on() -> None:
    with _made(timeout_s=0.3, concurrency=1) as made:
        life = made.invoke(do="about")["life"]
        error = made.fails(do="sleep", s=30)
        assert error["errorType"] == "Sandbox.Timedout"
        assert error["errorMessage"].endswith("Error: Task timed out after 0.30 seconds")
        assert made.invoke(do="about")["life"] != life


def test_over_the_limit_is_429() -> None:
    with _made(concurrency=1, timeout_s=20.0) as made:
        slow = threading.Thread(target=made.invoke, kwargs={"do": "sleep", "s": 0.6})
        slow.start()
        made.until(lambda each: bool(each.events))
        status, fields, body = made.ask(body=b'{"do": "about"}')
        slow.join()
        assert (status, fields["x-amzn-errortype"]) == (429, "TooManyRequestsException")
        assert json.loads(body)["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
        assert fields["retry-after"] == "1"
        assert made.ask("/any", b"", method="GET")[0] == 200
    with _made(concurrency=0) as made:
        assert made.ask()[0] == 429


def test_streams(function: Function) -> None:
    path = "/2021-11-15/functions/f/response-streaming-invocations"
    status, fields, body = function.ask(path, b'{"do": "stream"}')
    assert (status, fields["content-type"]) == (200, "application/vnd.amazon.eventstream")
    piece = {
        ":event-type": "PayloadChunk",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    last = {":event-type": "InvokeComplete", ":content-type": "application/json", ":message-type": "event"}
    assert body == frame(piece, b"one") + frame(piece, b"two") + frame(last, b"{}")
    assert b"ErrorCode" in function.ask(path, b'{"do": "raise"}')[2]
    assert function.ask(body=b'{"do": "stream"}')[2] == b"onetwo"


def test_tenants_do_not_share_environments(function: Function) -> None:
    lives = [
        json.loads(function.ask(body=b'{"do": "about"}', fields={"X-Amz-Tenant-Id": tenant})[2])
        for tenant in ("a", "b", "a")
    ]
    assert [each["tenant"] for each in lives] == ["a", "b", "a"]
    assert lives[0]["life"] == lives[2]["life"] != lives[1]["life"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("f", 200),
        ("f:live", 200),
        ("f:7", 200),
        ("f:$LATEST", 200),
        ("f?Qualifier=live", 200),
        ("arn:aws:lambda:eu-west-1:123456789012:function:f:live", 200),
        ("123456789012:function:f", 200),
        ("f:8", 404),
        ("g", 404),
    ],
)
def test_names_and_qualifiers(function: Function, name: str, status: int) -> None:
    name, _, query = name.partition("?")
    path = f"/2015-03-31/functions/{name}/invocations" + (f"?{query}" if query else "")
    found, fields, _ = function.ask(path, b"{}")
    assert found == status
    assert fields.get("x-amzn-errortype") == ("ResourceNotFoundException" if status == 404 else None)


def test_context(function: Function) -> None:
    client = base64.b64encode(b'{"custom": {"k": "v"}}').decode()
    fields = {"X-Amz-Client-Context": client, "X-Amzn-Trace-Id": "Root=1-2-3"}
    about = json.loads(function.ask(body=b'{"do": "about"}', fields=fields)[2])
    assert about["client"] == {"custom": {"k": "v"}}
    assert about["trace"] == "Root=1-2-3"
    assert about["arn"].endswith(":function:f")
    assert 0 < about["left"] <= 3000
    assert (about["name"], about["handler"], about["version"]) == ("f", "handlers.lambda_handler", "7")


# --- the runtime API -----------------------------------------------------------------------------------


def test_next_response_and_wrong_ids(spoken: Function) -> None:
    fields = {"X-Amzn-Trace-Id": "Root=9", "X-Amz-Log-Type": "Tail"}
    _, _, body = spoken.ask(body=b'{"a": 1}', fields=fields)
    told = json.loads(body)
    for name in ("Aws-Request-Id", "Deadline-Ms", "Invoked-Function-Arn"):
        assert told["fields"]["Lambda-Runtime-" + name]
    assert told["fields"]["Lambda-Runtime-Trace-Id"] == "Root=9"
    assert told["wrong"] == [[400, "InvalidRequestID"], [404, "NotFound"]]
    log = base64.b64decode(spoken.ask(body=b'{"a": 2}', fields=fields)[1]["x-amz-log-result"])
    assert b"first 202 second 400 InvalidStateTransition" in log
    assert spoken.fails(do="error")["errorType"] == "Own.Error"
    assert spoken.fails(do="large")["errorType"] == "Function.ResponseSizeTooLarge"
    assert spoken.ask(body=b'{"do": "stream"}')[2] == b"one two"


def test_exit_in_the_middle(spoken: Function, function: Function) -> None:
    error = spoken.fails(do="exit")
    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("Error: Runtime exited with error: exit status 4")
    assert spoken.invoke(a=1)["fields"], "the next event has a new environment"
    error = function.fails(do="exit")
    assert error["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")


@pytest.mark.parametrize(
    ("handler", "kind"), [("fails.at.init", "Own.Init"), ("exits.at.init", "Runtime.ExitError")]
)
def test_errors_at_init_are_what_events_get(handler: str, kind: str) -> None:
    with _made(handler=handler, command=(sys.executable, str(HERE / "bootstrap.py"))) as made:
        assert made.fails()["errorType"] == kind
        assert made.fails()["errorType"] == kind  # tried again
        assert made.pool.environments == []


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        ("nothing.there", "Runtime.ImportModuleError"),
        ("handlers.nothing", "Runtime.HandlerNotFound"),
        ("handlers", "Runtime.MalformedHandlerName"),
    ],
)
def test_handlers_that_are_not_there(handler: str, kind: str) -> None:
    with _made(handler=handler) as made:
        assert made.fails()["errorType"] == kind


def test_several_polls_of_one_environment_take_as_many_events() -> None:
    program = """
import http.client, json, os, threading
def loop():
    c = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        c.request("GET", "/2018-06-01/runtime/invocation/next")
        a = c.getresponse(); a.read(); name = a.getheader("Lambda-Runtime-Aws-Request-Id")
        barrier.wait()
        c.request("POST", "/2018-06-01/runtime/invocation/%s/response" % name, str(os.getpid()))
        c.getresponse().read()
barrier = threading.Barrier(2)
for _ in range(2): threading.Thread(target=loop).start()
"""
    with _made(command=(sys.executable, "-c", program), concurrency=1) as made:
        answers: list[bytes] = []
        started = threading.Thread(target=lambda: answers.append(made.ask()[2]))
        started.start()
        made.until(lambda each: each.is_free and bool(each.events))
        answers.append(made.ask()[2])
        started.join()
        assert len(answers) == 2
        assert len(set(answers)) == 1, "both events were in one environment at once"


# --- life --------------------------------------------------------------------------------------------


def test_environments_are_used_again_and_idle_ones_end() -> None:
    with _made(idle_s=60.0, concurrency=3) as made:
        first = made.invoke(do="about")
        again = made.invoke(do="about")
        assert (again["life"], again["seen"]) == (first["life"], 2)
        made.clock.added = 59.0

        async def sweep() -> None:
            made.pool.sweep()

        made.do(sweep)
        assert made.invoke(do="about")["life"] == first["life"]
        made.clock.added += 61.0
        made.do(sweep)
        assert made.invoke(do="about")["life"] != first["life"]


def test_provisioned_environments_are_there_before_events_and_come_back() -> None:
    with _made(provisioned=2, idle_s=0.0) as made:
        lives = [each.pid for each in made.pool.environments]
        assert len(lives) == 2
        assert made.pool.colds == 0
        assert made.invoke(do="about")["pid"] in lives
        assert made.pool.colds == 0
        environment = made.pool.environments[0]
        os.kill(environment.pid, signal.SIGKILL)

        async def swept() -> int:
            await environment.gone.wait()
            made.pool.sweep()
            while len(made.pool.environments) < 2:
                await asyncio.sleep(0.01)
            return len(made.pool.environments)

        assert made.do(swept) == 2


def test_a_killed_worker_swallows_no_event() -> None:
    with _made(concurrency=1) as made:
        for _ in range(40):
            pid = made.invoke(do="about")["pid"]
            os.kill(pid, signal.SIGKILL)
            status, fields, body = made.ask(body=b'{"do": "about"}')
            assert status in (200, 429)
            if status == 200 and fields.get("x-amz-function-error"):
                assert json.loads(body)["errorType"] == "Runtime.ExitError"
            elif status == 200:
                assert json.loads(body)["pid"] != pid


def test_workers_have_dice_of_their_own() -> None:
    with _made(concurrency=2, preload=True) as made:
        first = made.invoke(do="random")
        made.fails(do="exit")
        assert made.invoke(do="random") != first


def test_a_fork_server_that_dies_is_started_again() -> None:
    with _made() as made:
        made.invoke(do="about")
        zygote = made.pool._zygote
        assert zygote is not None
        assert zygote._process is not None
        zygote._process.kill()

        async def gone() -> None:
            while made.pool.environments or zygote.is_up:
                await asyncio.sleep(0.01)

        made.do(gone)
        assert made.invoke(do="about")["seen"] == 1


def test_stop_ends_everything() -> None:
    made = Function(concurrency=2)
    pid = made.invoke(do="about")["pid"]
    environment = made.pool.environments[0]
    assert isinstance(environment, Forked)
    made.close()
    assert environment.gone.is_set()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# --- the URL -------------------------------------------------------------------------------------------


def test_the_handlers_of_a_textbook_run_unchanged(function: Function) -> None:
    status, fields, body = function.ask("/seed", b'{"input": [1, 2]}', {"Content-Type": "application/json"})
    assert (status, fields["content-type"], json.loads(body)) == (
        200,
        "application/json",
        {"prediction": [1, 2]},
    )


def test_events_of_requests(function: Function) -> None:
    given = {"Cookie": "a=1; b=2", "X-Twice": "1", "Content-Type": "application/octet-stream"}
    _, _, body = function.ask("/some/path?x=1&x=2&y=", b"\x00\xff", given)
    event = json.loads(body)
    assert (event["version"], event["rawPath"], event["rawQueryString"]) == (
        "2.0",
        "/some/path",
        "x=1&x=2&y=",
    )
    assert event["queryStringParameters"] == {"x": "1,2", "y": ""}
    assert event["cookies"] == ["a=1", "b=2"]
    assert "cookie" not in event["headers"]
    assert (event["isBase64Encoded"], base64.b64decode(event["body"])) == (True, b"\x00\xff")
    assert event["requestContext"]["http"]["method"] == "POST"
    _, _, body = function.ask("/p", '{"ä": 1}'.encode(), {"Content-Type": "application/json"})
    assert json.loads(body)["body"] == '{"ä": 1}'


def test_answers_of_results(function: Function) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", function.port)
    connection.request("GET", "/shaped")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (201, b"\x00\x01\x02")
    assert answer.msg.get_all("set-cookie") == ["a=1", "b=2"]
    assert answer.msg.get_all("x-many") == ["a", "b"]
    assert answer.getheader("content-length") == "3"
    assert function.ask("/bad")[0] == 502
    assert function.ask("/raise")[0] == 502
    assert function.ask("/text")[2] == b"just text"


def test_health(function: Function) -> None:
    assert function.ask("/health", b"", method="GET")[:1] == (200,)


def test_boto3_finds_what_it_knows(function: Function) -> None:
    boto3 = pytest.importorskip("boto3")
    from botocore.config import Config

    client = boto3.client(
        "lambda",
        endpoint_url=f"http://127.0.0.1:{function.port}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"max_attempts": 0}),
    )
    answer = client.invoke(FunctionName="f", Payload=b'{"do": "about"}', LogType="Tail")
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "7")
    assert json.loads(answer["Payload"].read())["name"] == "f"
    answer = client.invoke(FunctionName="f", Payload=b'{"do": "raise"}')
    assert answer["FunctionError"] == "Unhandled"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="unknown")
    events = client.invoke_with_response_stream(FunctionName="f", Payload=b'{"do": "stream"}')["EventStream"]
    assert [event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event] == [
        b"one",
        b"two",
    ]


def test_requests_that_are_none_are_refused(function: Function) -> None:
    import socket

    for text in (
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", function.port)) as sock:
            sock.sendall(text)
            assert sock.recv(100).startswith(b"HTTP/1.1 400")
