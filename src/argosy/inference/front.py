"""The HTTP API: the Open Inference Protocol, and the contracts of SageMaker, Vertex AI, TF Serving."""

from __future__ import annotations

import json
import zlib
from typing import Any

from argosy.functions.wire import Answer, Fields, Request
from argosy.inference import contracts
from argosy.inference.figures import render
from argosy.inference.models import Model, Models
from argosy.inference.tensors import BadRequest, read_tensor, write_tensor

VERSION = "1"
HEADER = "inference-header-content-length"
_JSON = ("content-type", "application/json")


class Front:
    """Answers requests for the models of one server."""

    def __init__(
        self, models: Models, routes: contracts.Routes | None = None, body_limit: int = 64 << 20
    ) -> None:
        self.models, self.body_limit = models, body_limit
        self.routes = routes or contracts.Routes()
        self.ready = True

    async def answer(self, request: Request) -> Answer:
        try:
            self._unpack(request)
            return await self._route(request)
        except BadRequest as error:
            fields: Fields = [("retry-after", "1")] if error.status == 503 else []
            return told({"error": str(error)}, error.status, fields)

    async def _route(self, request: Request) -> Answer:
        path = request.path.rstrip("/") or "/"
        if path in (self.routes.health, "/ping", "/health", "/v2/health/live", "/v2/health/ready"):
            _only(request, "GET")
            return told(
                {"live": True} if path.endswith("live") else {"ready": self.ready}, self._health(path)
            )
        if path in (self.routes.predict, "/invocations"):
            _only(request, "POST")
            return await contracts.invocations(request, self.models)
        if path == "/metrics":
            text = render(each.figures for each in self.models.all())
            return Answer(200, text.encode(), [("content-type", "text/plain; version=0.0.4")])
        parts = request.parts
        if parts[0] == "v2":
            return await self._v2(request, parts[1:])
        if parts[:2] == ["v1", "models"] and len(parts) == 3:
            return await self._v1(request, parts[2])
        raise BadRequest(f"there is no {request.path}; the protocol is at /v2", 404)

    def _unpack(self, request: Request) -> None:
        """A body that was packed, as it was, and no larger than others may be."""
        coding = request.get("content-encoding").strip().lower()
        if coding in ("", "identity"):
            return
        if coding not in ("gzip", "deflate"):
            raise BadRequest(f"`{coding}` is not unpacked here; send gzip, deflate or plain bytes", 415)
        unpacking = zlib.decompressobj(47 if coding == "gzip" else 15)
        try:
            request.body = unpacking.decompress(request.body, self.body_limit + 1)
        except zlib.error as error:
            raise BadRequest(f"the body is no {coding}: {error}") from None
        if len(request.body) > self.body_limit:
            raise BadRequest(f"the body is larger than {self.body_limit} bytes", 413)

    def _health(self, path: str) -> int:
        return 200 if self.ready or path == "/v2/health/live" else 503

    async def _v1(self, request: Request, word: str) -> Answer:
        """TensorFlow Serving's and KServe's older protocol."""
        name, _, verb = word.partition(":")
        model = self.models.get(name)
        if verb == "predict":
            _only(request, "POST")
            return told(await contracts.predict(request.body, model))
        if verb:
            raise BadRequest(f"there is no verb `{verb}`; there is `predict`", 404)
        state = {"version": model.version, "state": "AVAILABLE"}
        return told({"name": name, "ready": True, "model_version_status": [state]})

    async def _v2(self, request: Request, parts: list[str]) -> Answer:
        if not parts:
            _only(request, "GET")
            extensions = ["binary_tensor_data", "model_repository"]
            return told({"name": "argosy-inference", "version": VERSION, "extensions": extensions})
        if parts[0] == "models" and len(parts) > 1:
            return await self._of_model(request, parts[1], parts[2:])
        if parts == ["repository", "index"]:
            _only(request, "POST")
            rows = [
                {"name": each.name, "version": each.version, "state": "READY", "reason": ""}
                for each in self.models.all()
            ]
            return told(rows)
        raise BadRequest(f"there is no {request.path}", 404)

    async def _of_model(self, request: Request, name: str, rest: list[str]) -> Answer:
        version = ""
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = rest[1], rest[2:]
        model = self.models.get(name, version)
        if not rest:
            _only(request, "GET")
            return told(model.told(sorted(self.models.known[name], key=int)))
        if rest == ["ready"]:
            _only(request, "GET")
            return told({"name": name, "ready": True})
        if rest == ["infer"]:
            _only(request, "POST")
            return await infer(request, model)
        raise BadRequest(f"there is no {request.path}", 404)


def _only(request: Request, method: str) -> None:
    if request.method != method and not (method == "GET" and request.method == "HEAD"):
        raise BadRequest(f"{request.path} takes {method}", 405)


def told(value: Any, status: int = 200, more: Fields | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), [_JSON, *(more or [])])


# --- infer -----------------------------------------------------------------------------------------------


async def infer(request: Request, model: Model) -> Answer:
    """One inference of the Open Inference Protocol, tensors as JSON or as bytes behind it."""
    asked, raw = _split(request)
    inputs, datatypes = _inputs(asked, raw)
    outputs = _outputs(asked)
    found = await model.infer(inputs, datatypes, [name for name, _ in outputs])
    binary = dict(outputs) if outputs else {}
    everything = bool(_parameters(asked).get("binary_data_output"))
    told_outputs, blobs = [], []
    for name, array in found.items():
        is_binary = binary.get(name)
        one, blob = write_tensor(name, array, everything if is_binary is None else is_binary)
        told_outputs.append(one)
        blobs.append(blob)
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if isinstance(asked.get("id"), str):
        answer["id"] = asked["id"]
    answer["outputs"] = told_outputs
    head = json.dumps(answer).encode()
    if not any(blobs):
        return Answer(200, head, [_JSON])
    fields = [
        ("content-type", "application/octet-stream"),
        ("Inference-Header-Content-Length", str(len(head))),
    ]
    return Answer(200, head + b"".join(blobs), fields)


def _split(request: Request) -> tuple[dict[str, Any], memoryview]:
    """The JSON of a request, and the bytes behind it."""
    body = memoryview(request.body)
    length = request.get(HEADER)
    if length and not (length.isascii() and length.isdigit() and int(length) <= len(body)):
        raise BadRequest(f"`{HEADER}: {length}` is no length within the body of {len(body)} bytes")
    end = int(length) if length else len(body)
    try:
        asked = json.loads(bytes(body[:end]))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is no JSON: {error}") from None
    if not isinstance(asked, dict):
        raise BadRequest("the request is no JSON object")
    return asked, body[end:]


def _parameters(given: dict[str, Any]) -> dict[str, Any]:
    found = given.get("parameters")
    return found if isinstance(found, dict) else {}


def _inputs(asked: dict[str, Any], raw: memoryview) -> tuple[dict[str, Any], dict[str, str]]:
    given = asked.get("inputs")
    if not isinstance(given, list) or not given:
        raise BadRequest("the request has no list `inputs`")
    arrays: dict[str, Any] = {}
    datatypes: dict[str, str] = {}
    for each in given:
        mine = None
        if isinstance(each, dict) and "binary_data_size" in _parameters(each):
            size = _parameters(each)["binary_data_size"]
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(raw):
                raise BadRequest(f"`binary_data_size` of an input is {size}, and {len(raw)} bytes are left")
            mine, raw = raw[:size], raw[size:]
        name, datatype, array = read_tensor(each, mine)
        if name in arrays:
            raise BadRequest(f"input `{name}` is there twice")
        arrays[name], datatypes[name] = array, datatype
    if len(raw):
        raise BadRequest(f"{len(raw)} bytes behind the inputs belong to none")
    return arrays, datatypes


def _outputs(asked: dict[str, Any]) -> list[tuple[str, bool | None]]:
    """(name, as bytes or not; None: as the request says) of the outputs that are asked for."""
    given = asked.get("outputs") or []
    if not isinstance(given, list) or not all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in given
    ):
        raise BadRequest("`outputs` is no list of objects with a `name`")
    return [
        (each["name"], bool(_parameters(each)["binary_data"]) if "binary_data" in _parameters(each) else None)
        for each in given
    ]
