"""The handler of the tests: it does what its event says."""

import json
import os
import sys
import time
import uuid

LIFE = str(uuid.uuid4())  # of this environment
SEEN = []


def lambda_handler(event, context):
    SEEN.append(1)
    if not isinstance(event, dict) or ("do" not in event and "rawPath" not in event):
        return event
    if "rawPath" in event:
        return url(event)
    return DEEDS[event["do"]](event, context)


def url(event):
    path = event["rawPath"]
    if path == "/seed":  # the handler of a textbook: body in, JSON out
        data = json.loads(event["body"])["input"]
        return {"statusCode": 200, "body": json.dumps({"prediction": data})}
    if path == "/shaped":
        return {
            "statusCode": 201,
            "headers": {"X-One": "1", "content-length": "999", "x-bad\r\nx": "y"},
            "multiValueHeaders": {"X-Many": ["a", "b"]},
            "cookies": ["a=1", "b=2"],
            "isBase64Encoded": True,
            "body": "AAEC",
        }
    if path == "/bad":
        return {"statusCode": "many", "body": "x"}
    if path == "/raise":
        raise ValueError("no")
    if path == "/text":
        return "just text"
    return event


def _raise(event, context):
    raise KeyError("missing")


def _sleep(event, context):
    time.sleep(event["s"])
    return "slept"


def _about(event, context):
    return {
        "life": LIFE,
        "seen": len(SEEN),
        "pid": os.getpid(),
        "id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "left": context.get_remaining_time_in_millis(),
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        "name": os.environ.get("AWS_LAMBDA_FUNCTION_NAME"),
        "handler": os.environ.get("_HANDLER"),
        "client": context.client_context,
        "tenant": context.tenant_id,
        "version": context.function_version,
    }


def _log(event, context):
    for number in range(300):
        print(f"line {number} of the log")
    sys.stderr.write("the end\n")


def _fail_twice(event, context):
    with open(event["file"], "a") as file:
        file.write("x")
    if os.path.getsize(event["file"]) < event["until"]:
        raise RuntimeError("not yet")


def _stream(event, context):
    yield "one"
    yield b"two"


DEEDS = {
    "raise": _raise,
    "sleep": _sleep,
    "about": _about,
    "log": _log,
    "exit": lambda event, context: os._exit(3),
    "large": lambda event, context: "x" * event["size"],
    "object": lambda event, context: object(),
    "fail": _fail_twice,
    "stream": _stream,
    "random": lambda event, context: __import__("random").random(),
}
