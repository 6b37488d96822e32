"""What callers reach: Lambda's `Invoke`, its streaming twin, the function's URL, and health."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

from argosy.functions.environments import Json, Outcome
from argosy.functions.pool import Busy, Pool
from argosy.functions.settings import ASYNC_BYTES, SYNC_BYTES, TAIL_BYTES, Settings
from argosy.functions.urls import answer_of, event_of
from argosy.functions.wire import Answer, Fields, Request

INVOKE = "2015-03-31"
STREAM = "2021-11-15"
QUEUE = 10_000  # events that wait


class Front:
    """Answers requests for one function."""

    def __init__(self, pool: Pool, now_s: Callable[[], float], new_id: Callable[[], str]) -> None:
        self.pool = pool
        self.settings: Settings = pool.settings
        self._now_s = now_s
        self._new_id = new_id
        self._waiting = 0  # asynchronous events that are not done
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request) -> Answer:
        parts = request.parts
        if len(parts) >= 4 and parts[1] == "functions" and parts[0] in (INVOKE, STREAM):
            return await self._invoke(request, parts)
        if request.path == "/health":
            return Answer(200, b"ok\n", [("content-type", "text/plain")])
        return await self._url(request)

    # --- Invoke ----------------------------------------------------------------------------------------

    async def _invoke(self, request: Request, parts: list[str]) -> Answer:
        name, qualifier = _name_of(parts[2])
        qualifier = _query(request, "Qualifier") or qualifier
        if name != self.settings.name or not self.settings.knows(qualifier):
            arn = self.settings.arn.rpartition(":")[0] + ":" + name + (":" + qualifier if qualifier else "")
            return _error(404, "ResourceNotFoundException", "Function not found: " + arn)
        what = parts[3]
        if request.method != "POST" or what not in ("invocations", "response-streaming-invocations"):
            return _error(404, "UnknownOperationException", "there is no such operation")
        kind = request.get("x-amz-invocation-type") or "RequestResponse"
        limit = ASYNC_BYTES if kind == "Event" else SYNC_BYTES
        if len(request.body) > limit:
            text = "Request must be smaller than %d bytes for the InvokeFunction operation" % limit
            return _error(413, "RequestTooLargeException", text)
        try:
            json.loads(request.body or b"{}")
        except ValueError as error:
            text = f"Could not parse request body into json: {error}"
            return _error(400, "InvalidRequestContentException", text)
        if kind == "DryRun":
            return Answer(204)
        about = self._about(request)
        if kind == "Event":
            return self._later(about, request.body)
        if kind != "RequestResponse":
            return _error(400, "InvalidParameterValueException", "unknown invocation type " + kind)
        try:
            outcome, environment = await self.pool.invoke(about, request.body)
        except Busy:
            return self._busy()
        fields: Fields = [
            ("content-type", "application/json"),
            ("x-amzn-RequestId", about["id"]),
            ("X-Amz-Executed-Version", self.settings.version),
        ]
        if what == "response-streaming-invocations":
            return _event_stream(outcome, fields)
        if outcome.error:
            fields.append(("X-Amz-Function-Error", outcome.error))
        if request.get("x-amz-log-type") == "Tail":
            environment.drain_log()
            fields.append(("X-Amz-Log-Result", base64.b64encode(environment.tail[-TAIL_BYTES:]).decode()))
        return Answer(200, await _whole(outcome), fields)

    def _about(self, request: Request) -> Json:
        about: Json = {
            "id": self._new_id(),
            "deadline_ms": int((self._now_s() + self.settings.timeout_s) * 1000),
            "arn": self.settings.arn,
        }
        for key, field in (("trace", "x-amzn-trace-id"), ("tenant_id", "x-amz-tenant-id")):
            if request.get(field):
                about[key] = request.get(field)
        context = request.get("x-amz-client-context")
        if context:
            try:
                about["client_context"] = json.loads(base64.b64decode(context))
            except ValueError:
                about["client_context"] = None
        return about

    def _busy(self) -> Answer:
        reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
        fields: Fields = [("Retry-After", "1")]
        return _error(429, "TooManyRequestsException", "Rate Exceeded.", fields, Reason=reason)

    # --- events without a caller that waits ------------------------------------------------------------

    def _later(self, about: Json, body: bytes) -> Answer:
        if self._waiting >= QUEUE:
            return self._busy()
        self._waiting += 1
        task = asyncio.ensure_future(self._try_later(about, body, self._now_s()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Answer(202, b"", [("x-amzn-RequestId", about["id"])])

    async def _try_later(self, about: Json, body: bytes, since_s: float) -> None:
        """Until it succeeds, was tried three times, or is too old. Being busy is no try."""
        tries, pause_s = 0, 0.1
        outcome = Outcome()
        while self._now_s() - since_s < self.settings.max_age_s:
            about["deadline_ms"] = int((self._now_s() + self.settings.timeout_s) * 1000)
            try:
                outcome, _ = await self.pool.invoke(dict(about), body)
            except Busy:
                await asyncio.sleep(pause_s)
                pause_s = min(5.0, 2 * pause_s)
                continue
            await _whole(outcome)
            if not outcome.error or tries >= len(self.settings.retries_s):
                break
            await asyncio.sleep(self.settings.retries_s[tries])
            tries += 1
        self._waiting -= 1
        if outcome.error or (not tries and self._now_s() - since_s >= self.settings.max_age_s):
            self._give_up(about, body, outcome, tries + 1)

    def _give_up(self, about: Json, body: bytes, outcome: Outcome, tries: int) -> None:
        """The event goes to the file for failures, in the form that Lambda's destinations have."""
        record = {
            "version": "1.0",
            "requestContext": {
                "requestId": about["id"],
                "functionArn": f"{self.settings.arn}:{self.settings.version}",
                "condition": "RetriesExhausted" if outcome.error else "EventAgeExceeded",
                "approximateInvokeCount": tries,
            },
            "requestPayload": json.loads(body or b"{}"),
            "responseContext": {"statusCode": 200, "functionError": outcome.error},
            "responsePayload": json.loads(outcome.body or b"null"),
        }
        if self.settings.failures:
            line = json.dumps(record).encode() + b"\n"
            place = os.open(self.settings.failures, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(place, line)
            finally:
                os.close(place)
        print("event %s failed %d times" % (about["id"], tries), flush=True)

    async def settled(self) -> None:
        """All events that were accepted are done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # --- the URL ---------------------------------------------------------------------------------------

    async def _url(self, request: Request) -> Answer:
        if len(request.body) > SYNC_BYTES:
            return Answer(413, b'{"Message":"Request Too Long"}', [("content-type", "application/json")])
        about = self._about(request)
        body = event_of(request, self.settings, about["id"], self._now_s())
        try:
            outcome, _ = await self.pool.invoke(about, body)
        except Busy:
            return Answer(429, b'{"Message":"Rate Exceeded."}', [("retry-after", "1")])
        if outcome.pieces is not None and not self.settings.stream:
            outcome = Outcome(await _whole(outcome), content_type=outcome.content_type)
        return answer_of(outcome)


async def _whole(outcome: Outcome) -> bytes:
    """The body, also of a streamed outcome."""
    if outcome.pieces is None:
        return outcome.body
    data = b""
    while True:
        piece = await outcome.pieces.get()
        if piece is None:
            return data
        data += piece


def _name_of(text: str) -> tuple[str, str]:
    """(name, qualifier) of a name, a partial or a whole ARN."""
    words = text.split(":")
    if "function" in words:
        words = words[words.index("function") + 1 :]
    return words[0], ":".join(words[1:])


def _query(request: Request, name: str) -> str:
    from urllib.parse import parse_qs

    return parse_qs(request.query).get(name, [""])[0]


def _error(status: int, kind: str, text: str, more: Fields | None = None, **extra: Any) -> Answer:
    body: dict[str, Any] = {"Type": "User", "Message": text, "message": text, **extra}
    fields: Fields = [("content-type", "application/json"), ("x-amzn-ErrorType", kind), *(more or [])]
    return Answer(status, json.dumps(body).encode(), fields)


# --- event streams -----------------------------------------------------------------------------------


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of AWS's event stream: lengths, their checksum, headers, payload, checksum."""
    packed = b""
    for name, value in headers.items():
        key, text = name.encode(), value.encode()
        packed += bytes([len(key)]) + key + b"\x07" + struct.pack("!H", len(text)) + text
    prelude = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + packed + payload
    return message + struct.pack("!I", zlib.crc32(message))


def _event_stream(outcome: Outcome, fields: Fields) -> Answer:
    """`PayloadChunk` for each piece, then `InvokeComplete`."""
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put(kind: str, payload: bytes, content_type: str) -> None:
        headers = {":event-type": kind, ":content-type": content_type, ":message-type": "event"}
        pieces.put_nowait(frame(headers, payload))

    async def pump() -> None:
        complete: dict[str, str] = {}
        if outcome.pieces is not None:
            while True:
                piece = await outcome.pieces.get()
                if piece is None:
                    break
                put("PayloadChunk", piece, "application/octet-stream")
        elif outcome.error:
            complete = {"ErrorCode": outcome.error, "ErrorDetails": outcome.body.decode("utf-8", "replace")}
        else:
            put("PayloadChunk", outcome.body, "application/octet-stream")
        put("InvokeComplete", json.dumps(complete).encode(), "application/json")
        pieces.put_nowait(None)

    asyncio.ensure_future(pump())
    kept = [(name, value) for name, value in fields if name != "content-type"]
    kept.append(("content-type", "application/vnd.amazon.eventstream"))
    return Answer(200, fields=kept, pieces=pieces)
