"""AWS's own runtime for Python runs against our runtime API: `pip install "argosy[nightly]"`."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_functions import Function

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.process,
    pytest.mark.skipif(
        importlib.util.find_spec("awslambdaric") is None, reason="awslambdaric is not installed here"
    ),
]
HANDLER = """
import json, os, time

COUNT = [0]

def lambda_handler(event, context):
    COUNT[0] += 1
    do = event.get("do")
    if do == "raise":
        raise ValueError("no such thing")
    if do == "exit":
        os._exit(3)
    if do == "sleep":
        time.sleep(5)
    return {
        "count": COUNT[0],
        "id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "left": context.get_remaining_time_in_millis() > 0,
        "client": context.client_context.custom if context.client_context else None,
        "name": context.function_name,
    }
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Function]:
    (tmp_path / "theirs.py").write_text(HANDLER)
    command = (*shlex.split(f"{sys.executable} -m awslambdaric"), "theirs.lambda_handler")
    function = Function("theirs.lambda_handler", command=command, timeout_s=2.0, concurrency=2)
    function.settings.root = str(tmp_path)
    yield function
    function.close()


def test_their_runtime_serves_events(theirs: Function) -> None:
    for count in (1, 2):
        status, fields, body = theirs.ask(body=b'{"do": "about"}')
        told = json.loads(body)
        assert status == 200 and told["count"] == count, "one process serves both"
        assert told["id"] == fields["x-amzn-requestid"] and told["name"] == "f" and told["left"]
        assert told["arn"].endswith(":function:f")
    context = "eyJjdXN0b20iOiB7ImEiOiAxfX0="  # {"custom": {"a": 1}}
    told = json.loads(theirs.ask(fields={"X-Amz-Client-Context": context})[2])
    assert told["client"] == {"a": 1}


def test_their_errors_are_told(theirs: Function) -> None:
    status, fields, body = theirs.ask(body=b'{"do": "raise"}')
    assert (status, fields["x-amz-function-error"]) == (200, "Unhandled")
    told = json.loads(body)
    assert told["errorType"] == "ValueError" and told["errorMessage"] == "no such thing"
    assert any("lambda_handler" in line for line in told["stackTrace"])
    body = theirs.ask(body=b'{"do": "exit"}')[2]
    assert json.loads(body)["errorType"] == "Runtime.ExitError"
    assert json.loads(theirs.ask()[2])["count"] == 1, "a fresh process is there"
    body = theirs.ask(body=b'{"do": "sleep"}')[2]
    assert json.loads(body)["errorType"] == "Sandbox.Timedout"


def test_a_handler_that_is_not_there(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "awslambdaric", "nothing.here")
    function = Function("nothing.here", command=command)
    try:
        told = json.loads(function.ask()[2])
        assert told["errorType"] == "Runtime.ImportModuleError" and "nothing" in told["errorMessage"]
    finally:
        function.close()
