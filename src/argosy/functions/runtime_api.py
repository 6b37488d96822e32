"""The runtime API of Lambda for programs that speak it themselves: each environment has a port of its own.

`next` is a long poll. Who polls is bound to the process of the environment: when that ends, so do its polls,
and no event can get lost in them. Several polls at once give the environment as many events.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections import OrderedDict, deque

from argosy.functions.environments import Environment, Json, Outcome, new_pipe
from argosy.functions.settings import STREAM_BYTES, SYNC_BYTES, Settings
from argosy.functions.wire import Answer, Connection, Fields, Request

REMEMBERED = 1000  # events, to tell a second answer from one to an unknown event
PREFIX = "/2018-06-01/runtime/"


class Spoken(Environment):
    """A process that asks for its events."""

    def __init__(self, settings: Settings, number: int, tenant: str = "") -> None:
        super().__init__(settings, number, tenant)
        self._polls: deque[asyncio.Future[Json | None]] = deque()
        self._given: OrderedDict[str, bool] = OrderedDict()  # the last events: id -> answered
        self._body: dict[str, bytes] = {}
        self.turn = asyncio.Event()  # it asks for an event, or is gone
        self._server: asyncio.AbstractServer | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._answer, STREAM_BYTES), "127.0.0.1", 0
        )
        port = self._server.sockets[0].getsockname()[1]
        reading, writing = new_pipe()
        self.watch_log(reading)
        environment = {
            **self.settings.environment(self.number),
            "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:%d" % port,
        }
        try:
            self._process = subprocess.Popen(
                self.settings.command,
                env=environment,
                cwd=self.settings.root,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        except OSError as error:
            self.failed = Outcome.failed("Runtime.InvalidEntrypoint", f"RequestId:  Error: {error.strerror}")
            self.has_ended(1 << 8)
            return
        finally:
            os.close(writing)
        self.pid = self._process.pid
        loop.run_in_executor(None, self._process.wait).add_done_callback(self._exited)
        self._start_timer()

    def _exited(self, waited: asyncio.Future[int]) -> None:
        code = waited.result()
        self.has_ended(-code if code < 0 else code << 8)

    def has_ended(self, status: int) -> None:
        for poll in self._polls:
            if not poll.done():
                poll.set_result(None)
        self._polls.clear()
        self.turn.set()
        if self._server is not None:
            self._server.close()
        super().has_ended(status)

    def give(self, about: Json, body: bytes) -> None:
        self._body[about["id"]] = body
        self.turn.clear()
        while self._polls:
            poll = self._polls.popleft()
            if not poll.done():
                poll.set_result(about)
                return
        raise AssertionError("an environment without a poll was given an event")

    # --- what the program asks -------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Answer:
        path = request.path[len(PREFIX) :] if request.path.startswith(PREFIX) else ""
        if request.method == "GET" and path == "invocation/next":
            return await self._next(request)
        if request.method == "POST" and path == "init/error":
            self.failed = Outcome(request.body, error="Unhandled")
            return Answer(202, b'{"status":"OK"}', JSON)
        words = path.split("/")
        if request.method == "POST" and len(words) == 3 and words[0] == "invocation":
            return self._done(request, words[1], words[2])
        return _wrong(404, "NotFound", "there is nothing at " + request.path)

    async def _next(self, request: Request) -> Answer:
        poll: asyncio.Future[Json | None] = asyncio.get_running_loop().create_future()
        self._polls.append(poll)
        self.turn.set()

        def leave() -> None:
            if not poll.done():
                self._polls.remove(poll)
                poll.set_result(None)

        request.gone.append(leave)
        if not self.ready.done():
            self.ready.set_result(None)
        about = await poll
        if about is None:
            return _wrong(503, "Gone", "the environment has ended")
        self._given[about["id"]] = False
        while len(self._given) > REMEMBERED:
            self._given.popitem(last=False)
        fields: Fields = [
            ("content-type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", about["id"]),
            ("Lambda-Runtime-Deadline-Ms", str(about["deadline_ms"])),
            ("Lambda-Runtime-Invoked-Function-Arn", about["arn"]),
            ("Lambda-Runtime-Trace-Id", about.get("trace", "")),
        ]
        for name, key in (("Client-Context", "client_context"), ("Cognito-Identity", "identity")):
            if about.get(key):
                fields.append(("Lambda-Runtime-" + name, json.dumps(about[key])))
        if about.get("tenant_id"):
            fields.append(("Lambda-Runtime-Aws-Tenant-Id", about["tenant_id"]))
        return Answer(200, self._body.pop(about["id"]), fields)

    def _done(self, request: Request, event: str, how: str) -> Answer:
        if event not in self._given or how not in ("response", "error"):
            return _wrong(400, "InvalidRequestID", f"no event {event} was given to this environment")
        if self._given[event]:
            return _wrong(400, "InvalidStateTransition", f"event {event} was answered before")
        streams = request.get("lambda-runtime-function-response-mode") == "streaming"
        self._given[event] = True
        kind = request.trailers.get("lambda-runtime-function-error-type", "")
        if len(request.body) > SYNC_BYTES and not streams:
            text = "Exceeded maximum allowed payload size (%d bytes)." % SYNC_BYTES
            self.settle(event, Outcome.failed("Function.ResponseSizeTooLarge", text))
            return _wrong(413, "RequestEntityTooLarge", text)
        if how == "error":
            outcome = Outcome(request.body, error="Unhandled")
        elif kind:
            outcome = Outcome.failed(kind, request.trailers.get("lambda-runtime-function-error-body", ""))
        else:
            content_type = request.get("content-type") or "application/json"
            if streams:
                self.piece(event, request.body, content_type)
            outcome = Outcome(b"" if streams else request.body, content_type=content_type)
        self.settle(event, outcome)
        return Answer(202, b'{"status":"OK"}', JSON)

    @property
    def is_between(self) -> bool:
        """It has answered, and will ask for its next event in a moment."""
        return self.ready.done() and not (self.killed or self.gone.is_set() or self.events)

    @property
    def is_free(self) -> bool:
        """It asks for one."""
        return not self.killed and any(not poll.done() for poll in self._polls)


JSON: Fields = [("content-type", "application/json")]


def _wrong(status: int, kind: str, text: str) -> Answer:
    return Answer(status, json.dumps({"errorType": kind, "errorMessage": text}).encode(), JSON)
