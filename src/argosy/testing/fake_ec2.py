"""Amazon's EC2 on this machine: moto's server with what moto leaves out, and knobs for what goes wrong.

    with FakeEc2() as cloud:
        os.environ |= cloud.environ()      # what boto3 reads: endpoints and credentials
        cloud.capacity[("p4d.24xlarge", "us-east-1a")] = 1

Over moto (whose XML and checks are kept) this adds: one order for one `ClientToken` and
`IdempotentParameterMismatch`; a finite number of machines for each (type, zone) and
`InsufficientInstanceCapacity`; vCPU quotas; states that take time; spot machines that are taken back with
their `StateReason`; listings that lag; replies that are lost; throttling; expired credentials; regions that
are not enabled; images by SSM parameter; Service Quotas. `machines` boots a real host for each instance.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Final

from argosy.testing import fake_ec2_answers as answers
from argosy.testing.fake_ec2_cloud import Call, Ec2Cloud, Refusal, set_state

KEY_ID: Final = "AKIAFAKEFAKEFAKEFAKE"
SECRET: Final = "fake-secret-of-the-fake-cloud"

Answer = Iterable[bytes]
StartResponse = Callable[..., Any]

_PAGE: Final = b"<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>"


def why_no_fake_ec2() -> str:
    """Empty where one can be made. Found without importing moto, which takes a second."""
    return "" if all(map(find_spec, ("moto", "boto3"))) else "moto and boto3 are not installed"


class FakeEc2(Ec2Cloud):
    """The cloud behind an address. Fields are those of `Ec2Cloud`."""

    url = ""
    _app: Any = None
    _server: Any = None

    def __init__(self, **fields: Any) -> None:  # Any: the fields of `Ec2Cloud`, which checks them
        super().__init__(**fields)
        self._closed = threading.Event()

    # -- life -----------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeEc2:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> FakeEc2:
        import logging

        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.reset()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self._serve, threaded=True, request_handler=MotoRequestHandler
        )
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        if self.machines is not None:  # they boot and go also while nobody asks
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def close(self) -> None:
        self._closed.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.reset()

    def environ(self, region: str = "us-east-1") -> dict[str, str]:
        """Environment variables with which boto3 speaks to this cloud and to no other."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "2",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def _tick(self) -> None:
        while not self._closed.wait(0.02):
            with self.lock:
                self.settle()

    # -- the wire -------------------------------------------------------------------------------------------

    def _serve(self, environ: dict[str, Any], start: StartResponse) -> Answer:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        region, service = scope.groups() if scope else ("us-east-1", "")
        target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        text = body.decode("utf-8", "replace")
        params = json.loads(text or "{}") if target else dict(urllib.parse.parse_qsl(text))
        action = target or params.get("Action", "")
        if self.pages > 0:
            self.pages -= 1
            start("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(_PAGE)))])
            return [_PAGE]
        with self.lock:
            self.calls.append(Call(service=service, region=region, action=action, params=params))
            self.settle()
            refused = self._refusal(service, region, action)
            if refused is not None:
                status, reply = refused.status, answers.error(service, refused.code, refused.text)
            elif (own := answers.answer(self, service, region, action, params)) is not None:
                status, reply = own
            else:
                status, reply = self._ec2(environ, body, region, action, params)
            is_lost = action in self.lost and refused is None
            if is_lost:
                self.lost.remove(action)
        if is_lost:  # the line breaks before the answer: boto3 asks again, or gives up
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError("the reply is lost")
        kind = "application/x-amz-json-1.1" if target else "text/xml"
        start(f"{status} OK", [("Content-Type", kind), ("Content-Length", str(len(reply)))])
        return [reply]

    def _refusal(self, service: str, region: str, action: str) -> Refusal | None:
        if self.expired:
            code = "RequestExpired" if service == "ec2" else "ExpiredToken"
            return Refusal(
                action=action, code=code, text="The security token is expired", times=1, status=403
            )
        if region in self.disabled:
            text = "AWS was not able to validate the provided access credentials"
            return Refusal(action=action, code="AuthFailure", text=text, times=1, status=401)
        for each in self.refusals:
            if each.action == action and each.times > 0:
                each.times -= 1
                return each
        return None

    def _ec2(
        self, environ: dict[str, Any], body: bytes, region: str, action: str, params: Mapping[str, str]
    ) -> tuple[int, bytes]:
        token = params.get("ClientToken", "") if action in ("RunInstances", "CreateFleet") else ""
        said = json.dumps({name: value for name, value in sorted(params.items()) if name != "DryRun"})
        key = (region, action, token)
        if token and key in self.tokens and params.get("DryRun") != "true":
            known, reply = self.tokens[key]
            if known == said:
                return 200, reply
            text = "The request uses the same client token as a previous, but non-identical request."
            return 400, answers.error("ec2", "IdempotentParameterMismatch", text)
        if action == "RunInstances" and params.get("DryRun") != "true":
            wrong = answers.wrong_order(self, region, params)
            if wrong is not None:
                return 400, answers.error("ec2", *wrong)
        hidden = self._hide(region) if action.startswith("Describe") else {}
        try:
            status, reply = self._moto(environ, body)
        finally:
            self.backend(region).reservations.update(hidden)
        if status == 200:
            self._follow(region, action, params, reply)
            if token:
                self.tokens[key] = (said, reply)
        return status, reply

    def _moto(self, environ: dict[str, Any], body: bytes) -> tuple[int, bytes]:
        import io

        said: list[str] = []

        def start(status: str, headers: object, error: object = None) -> Callable[[bytes], object]:
            said.append(status)
            return lambda data: None

        made = self._app({**environ, "wsgi.input": io.BytesIO(body)}, start)
        with contextlib.closing(made) if hasattr(made, "close") else contextlib.nullcontext():
            reply = b"".join(made)
        return int(said[0].split()[0]), reply

    def _follow(self, region: str, action: str, params: Mapping[str, str], reply: bytes) -> None:
        """What moto did at once takes its time here, and happens to the machines, too."""
        found = [self.find(id) for id in re.findall(r"<instanceId>(i-[0-9a-f]+)<", reply.decode())]
        for instance in filter(None, found):
            match action:
                case "RunInstances":
                    instance.placement.group_name = params.get("Placement.GroupName", "")
                    self._begin(instance)
                case "StartInstances":
                    set_state(instance, "pending")
                    self.due[instance.id] = (self.now() + self.boot_s, "running")
                    if self.machines is not None:
                        self.machines.power_on(instance.id)
                case "StopInstances":
                    set_state(instance, "stopping" if self.end_s else "stopped")
                    self.due[instance.id] = (self.now() + self.end_s, "stopped")
                    if self.machines is not None:
                        self.machines.power_off(instance.id)
                case "TerminateInstances":
                    if instance.id not in self.ended_s:
                        self.ended(instance)

    def _begin(self, instance: Any) -> None:
        import base64

        self.seen_s[instance.id] = self.now()
        set_state(instance, "pending")
        self.due[instance.id] = (self.now() + self.boot_s, "running")
        if self.machines is not None:
            card = instance.nics[0]
            if card.public_ip is not None:  # the host has one address for both
                card.public_ip, card.public_ip_auto_assign = instance.private_ip, False
            data = base64.b64decode(str(instance.user_data)) if instance.user_data else b""
            self.machines.boot(instance.id, instance.private_ip, data)

    def _hide(self, region: str) -> dict[str, Any]:
        """Takes what a listing does not show yet out of the books; they are put back after it."""
        late = {id for id, at_s in self.seen_s.items() if at_s + self.lag_s > self.now()}
        if not self.lag_s or not late:
            return {}
        books = self.backend(region).reservations
        young = {id: each for id, each in books.items() if any(one.id in late for one in each.instances)}
        for id in young:
            del books[id]
        return young
