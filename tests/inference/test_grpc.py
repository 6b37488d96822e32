"""gRPC of the Open Inference Protocol, at the port of HTTP: asked with grpcio, and messages of the library
of protocol buffers."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_inference import Doubler, Words

from argosy.functions.wire import Connection
from argosy.inference import protobuf
from argosy.inference.batching import Limits
from argosy.inference.engines import Engine
from argosy.inference.front import Front
from argosy.inference.grpc_front import Door, Grpc
from argosy.inference.models import Model, Models, load_all
from argosy.inference.tensors import BadRequest, TensorSpec

grpc = pytest.importorskip("grpc")

#: Message: (name, number, type, repeated) of its fields; a type that is no word of the format is a message.
_SCHEMA: dict[str, list[tuple[str, int, str, bool]]] = {
    "Empty": [],
    "Flag": [("yes", 1, "bool", False)],
    "Named": [("name", 1, "string", False), ("version", 2, "string", False)],
    "Server": [
        ("name", 1, "string", False), ("version", 2, "string", False), ("extensions", 3, "string", True),
    ],
    "Metadata": [
        ("name", 1, "string", False), ("versions", 2, "string", True), ("platform", 3, "string", False),
        ("inputs", 4, "Tensor", True), ("outputs", 5, "Tensor", True),
    ],
    "Contents": [
        ("bools", 1, "bool", True), ("ints", 2, "int32", True), ("int64s", 3, "int64", True),
        ("uints", 4, "uint32", True), ("uint64s", 5, "uint64", True), ("floats", 6, "float", True),
        ("doubles", 7, "double", True), ("texts", 8, "bytes", True),
    ],
    "Tensor": [
        ("name", 1, "string", False), ("datatype", 2, "string", False), ("shape", 3, "int64", True),
        ("contents", 5, "Contents", False),
    ],
    "Infer": [
        ("model_name", 1, "string", False), ("model_version", 2, "string", False), ("id", 3, "string", False),
        ("inputs", 5, "Tensor", True), ("outputs", 6, "Named", True), ("raw", 7, "bytes", True),
    ],
    "Inferred": [
        ("model_name", 1, "string", False), ("model_version", 2, "string", False), ("id", 3, "string", False),
        ("outputs", 5, "Tensor", True), ("raw", 6, "bytes", True),
    ],
    "Streamed": [("error", 1, "string", False), ("answer", 2, "Inferred", False)],
    "Row": [("name", 1, "string", False), ("version", 2, "string", False), ("state", 3, "string", False)],
    "Index": [("models", 1, "Row", True)],
}  # fmt: skip
_KINDS = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}


def _messages() -> dict[str, Any]:
    """Classes of the library for the schema."""
    descriptor = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor.FileDescriptorProto(name="oip.proto", package="t", syntax="proto3")
    for name, told in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in told:
            one = message.field.add(name=field, number=number, label=3 if repeated else 1)
            one.type = _KINDS.get(kind, 11)
            if kind not in _KINDS:
                one.type_name = f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}")) for name in _SCHEMA
    }


class Client:
    """Asks by gRPC, in a thread."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.known = _messages()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def ask(self, method: str, given: str, answer: str, *, service: str = "", **fields: Any) -> Any:
        path = f"/{service or 'inference.GRPCInferenceService'}/{method}"
        call = self._channel.unary_unary(path, response_deserializer=self.known[answer].FromString)
        return call(self.known[given](**fields).SerializeToString(), timeout=90)

    def stream(self, *requests: Any) -> list[Any]:
        path = "/inference.GRPCInferenceService/ModelStreamInfer"
        call = self._channel.stream_stream(path, response_deserializer=self.known["Streamed"].FromString)
        return list(call(iter([each.SerializeToString() for each in requests]), timeout=90))

    def close(self) -> None:
        self._channel.close()


class Mirror(Engine):
    """Gives back what it gets, with a type for each input."""

    platform = "mirror"

    def __init__(self, *datatypes: str) -> None:
        self.inputs = [TensorSpec(each.lower(), each, [-1]) for each in datatypes]
        self.outputs = self.inputs

    def run(self, inputs: dict[str, Any], wanted: Any) -> dict[str, Any]:
        return {name: inputs[name] for name in (wanted or inputs)}


def served(scenario: Callable[[Client], None], *engines: tuple[str, Engine]) -> None:
    async def main() -> None:
        models = Models()
        for name, engine in engines:
            models.add(Model(name, "1", engine, Limits()))
        front = Front(models, body_limit=100_000)
        server_of_grpc = Grpc(front)
        server = await asyncio.get_running_loop().create_server(
            lambda: Door(lambda: Connection(front.answer, 100_000), server_of_grpc), "127.0.0.1", 0
        )
        client = Client(server.sockets[0].getsockname()[1])
        try:
            await asyncio.to_thread(scenario, client)
        finally:
            client.close()
            server.close()
            await server_of_grpc.close(0)
            await models.close()

    asyncio.run(main())


ROW = {"name": "x", "datatype": "FP32", "shape": [1, 3], "contents": {"floats": [1, 2, 3]}}


def test_health_and_metadata_by_grpc_and_http_at_one_port() -> None:
    def scenario(client: Client) -> None:
        assert (
            client.ask("ServerLive", "Empty", "Flag").yes and client.ask("ServerReady", "Empty", "Flag").yes
        )
        assert client.ask("Check", "Empty", "Flag", service="grpc.health.v1.Health").yes
        assert client.ask("ModelReady", "Named", "Flag", name="double").yes
        assert client.ask("ServerMetadata", "Empty", "Server").name == "argosy-inference"
        told = client.ask("ModelMetadata", "Named", "Metadata", name="double", version="1")
        assert told.platform == "arithmetic" and list(told.versions) == ["1"]
        assert [(each.name, each.datatype, list(each.shape)) for each in (*told.inputs, *told.outputs)] == [
            ("x", "FP32", [-1, 3]), ("y", "FP32", [-1, 3]), ("total", "FP32", [-1]),
        ]  # fmt: skip
        [row] = client.ask("RepositoryIndex", "Empty", "Index").models
        assert (row.name, row.version, row.state) == ("double", "1", "READY")
        http = HTTPConnection("127.0.0.1", client.port, timeout=90)
        http.request("GET", "/v2")
        assert json.loads(http.getresponse().read())["name"] == "argosy-inference"
        http.close()

    served(scenario, ("double", Doubler()))


def test_tensors_go_in_the_message_or_beside_it() -> None:
    def scenario(client: Client) -> None:
        found = client.ask(
            "ModelInfer",
            "Infer",
            "Inferred",
            model_name="double",
            id="7",
            inputs=[ROW],
            outputs=[{"name": "y"}],
        )
        [y] = found.outputs
        assert (found.model_name, found.model_version, found.id) == ("double", "1", "7")
        assert list(y.shape) == [1, 3] and list(y.contents.floats) == [2, 4, 6] and not found.raw
        beside = {"name": "x", "datatype": "FP32", "shape": [2, 3]}
        raw = np.arange(6, dtype="<f4").tobytes()
        found = client.ask("ModelInfer", "Infer", "Inferred", model_name="double", inputs=[beside], raw=[raw])
        assert [each.name for each in found.outputs] == ["y", "total"]
        assert np.frombuffer(found.raw[0], "<f4").tolist() == [0, 2, 4, 6, 8, 10]
        assert np.frombuffer(found.raw[1], "<f4").tolist() == [3, 12]
        text = {
            "name": "text",
            "datatype": "BYTES",
            "shape": [2],
            "contents": {"texts": [b"hi", "ü".encode()]},
        }
        found = client.ask("ModelInfer", "Infer", "Inferred", model_name="words", inputs=[text])
        assert list(found.outputs[0].contents.texts) == [b"HI", "Ü".encode()]
        assert list(found.outputs[1].contents.int64s) == [2, 1]

    served(scenario, ("double", Doubler()), ("words", Words()))


def test_every_type_comes_back_as_it_went() -> None:
    values: dict[str, tuple[str, list[Any]]] = {
        "BOOL": ("bools", [True, False]), "INT8": ("ints", [-128, 127]), "INT16": ("ints", [-32768, 1]),
        "INT32": ("ints", [-(1 << 31), 5]), "INT64": ("int64s", [-(1 << 63), 7]),
        "UINT8": ("uints", [255, 0]),
        "UINT16": ("uints", [65535, 3]), "UINT32": ("uints", [(1 << 32) - 1, 9]),
        "UINT64": ("uint64s", [(1 << 64) - 1, 2]), "FP32": ("floats", [1.5, -2.0]),
        "FP64": ("doubles", [0.1, 2.0]),
    }  # fmt: skip

    def scenario(client: Client) -> None:
        inputs = [
            {"name": kind.lower(), "datatype": kind, "shape": [2], "contents": {field: held}}
            for kind, (field, held) in values.items()
        ]
        found = client.ask("ModelInfer", "Infer", "Inferred", model_name="mirror", inputs=inputs)
        told = {
            each.datatype: list(getattr(each.contents, values[each.datatype][0])) for each in found.outputs
        }
        assert told == {kind: held for kind, (_, held) in values.items()}
        half = {"name": "fp16", "datatype": "FP16", "shape": [2]}
        raw = np.array([1, 0.5], "<f2").tobytes()
        found = client.ask("ModelInfer", "Infer", "Inferred", model_name="half", inputs=[half], raw=[raw])
        assert found.raw[0] == raw

    served(scenario, ("mirror", Mirror(*values)), ("half", Mirror("FP16")))


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"model_name": "duble", "inputs": [ROW]}, "NOT_FOUND", "did you mean `double`?"),
        ({"model_name": "double"}, "INVALID_ARGUMENT", "the request has no inputs"),
        ({"model_name": "double", "inputs": [ROW, ROW]}, "INVALID_ARGUMENT", "input `x` is there twice"),
        ({"model_name": "double", "inputs": [{**ROW, "shape": [2, 3]}]}, "INVALID_ARGUMENT", "has 3 values"),
        (
            {"model_name": "double", "inputs": [{**ROW, "contents": {"ints": [1, 2, 3]}}]},
            "INVALID_ARGUMENT",
            "input `x` is FP32, its contents are of another type",
        ),
        (
            {"model_name": "double", "inputs": [ROW], "raw": [b"", b""]},
            "INVALID_ARGUMENT",
            "1 inputs have 2 entries of `raw_input_contents`",
        ),
        (
            {"model_name": "double", "inputs": [{**ROW, "contents": {"floats": [13, 1, 1]}}]},
            "INTERNAL",
            "13 cannot be doubled",
        ),
        ({"model_name": "double", "raw": [b"x" * 200_000]}, "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_what_cannot_be_served_is_told_with_its_code(fields: dict[str, Any], code: str, text: str) -> None:
    def scenario(client: Client) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            client.ask("ModelInfer", "Infer", "Inferred", **fields)
        assert caught.value.code().name == code and text in caught.value.details()
        assert client.ask("ModelInfer", "Infer", "Inferred", model_name="double", inputs=[ROW]).outputs

    served(scenario, ("double", Doubler()))


def test_a_stream_of_requests_goes_on_after_one_that_fails() -> None:
    def scenario(client: Client) -> None:
        infer = client.known["Infer"]
        good = infer(model_name="double", inputs=[ROW])
        found = client.stream(good, infer(model_name="other", inputs=[ROW]), good)
        assert [bool(each.answer.outputs) for each in found] == [True, False, True]
        assert "there is no model `other`" in found[1].error

    served(scenario, ("double", Doubler()))


def test_a_client_that_leaves_in_the_middle_of_a_call_ends_nothing() -> None:
    def scenario(client: Client) -> None:
        for first in (
            b"PRI * HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nx",
        ):
            with socket.create_connection(("127.0.0.1", client.port)) as raw:
                raw.sendall(first)
        assert client.ask("ServerLive", "Empty", "Flag").yes

    served(scenario, ("double", Doubler()))


@pytest.mark.parametrize(
    "broken", [b"\x80", b"\x0a\x05ab", b"\x0b", b"\xff" * 11, b"\x08\x01\x0a\x02\xff\xff"]
)
def test_bytes_that_are_no_message_are_told(broken: bytes) -> None:
    from argosy.inference.grpc_messages import read_infer

    with pytest.raises(BadRequest):
        read_infer(broken)


def test_numbers_of_the_wire() -> None:
    for value in (0, 1, 127, 128, 300, (1 << 64) - 1):
        assert list(protobuf.fields(b"\x08" + protobuf.varint(value))) == [(1, 0, value)]
    assert protobuf.signed(protobuf.varint(-5)[0] and next(protobuf.fields(protobuf.number(1, -5)))[2]) == -5
    packed = next(protobuf.fields(protobuf.data(1, struct.pack("<2f", 1, 2))))[2]
    assert protobuf.read_floats(packed, "<f4") == [1.0, 2.0]
    with pytest.raises(BadRequest, match="within a number"):
        protobuf.read_floats(packed[:5], "<f4")


# --- Triton's own client, with models of every kind -------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["onnx", "openvino", "sklearn", "torch"])
def test_tritons_own_client_asks_models_of_every_kind_by_grpc(kind: str, tmp_path: Path) -> None:
    """`y` is `x` times 2 plus 1; for scikit-learn a line that learned it."""
    from test_engines import save_scaler

    triton = pytest.importorskip("tritonclient.grpc")
    path = save_scaler(kind, tmp_path)

    def ask(port: int) -> None:
        client = triton.InferenceServerClient(f"127.0.0.1:{port}")
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("scaler")
        told = client.get_model_metadata("scaler")
        given, wanted = told.inputs[0], told.outputs[0]
        datatype = given.datatype
        one = triton.InferInput(given.name, [3, 1 if kind == "sklearn" else 2], datatype)
        rows = np.ones(
            (3, 1) if kind == "sklearn" else (3, 2), np.float64 if datatype == "FP64" else np.float32
        )
        one.set_data_from_numpy(rows)
        output = triton.InferRequestedOutput(wanted.name)
        found = client.infer("scaler", [one], outputs=[output], request_id="7")
        assert found.as_numpy(wanted.name).round(5).reshape(3, -1)[:, 0].tolist() == [3.0] * 3
        assert found.get_response().id == "7"
        with pytest.raises(Exception, match="there is no model `scalar`; did you mean `scaler`"):
            client.infer("scalar", [one])
        client.close()

    async def main() -> None:
        models = load_all([f"scaler={path}"], Limits(), engine=kind, threads=1, say=lambda text: None)
        front = Front(models)
        server_of_grpc = Grpc(front)
        server = await asyncio.get_running_loop().create_server(
            lambda: Door(lambda: Connection(front.answer, 1 << 20), server_of_grpc), "127.0.0.1", 0
        )
        await asyncio.to_thread(ask, server.sockets[0].getsockname()[1])
        server.close()
        await server_of_grpc.close(0)
        await models.close()

    asyncio.run(main())
