"""Messages of the Open Inference Protocol over gRPC (`inference.GRPCInferenceService`), to and from bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from argosy.inference import protobuf
from argosy.inference.tensors import (
    TYPES,
    Array,
    BadRequest,
    TensorSpec,
    datatype_of,
    read_tensor,
    write_tensor,
)

#: The field of `InferTensorContents` for values of a type; FP16 goes as bytes only.
_CONTENTS = {
    "BOOL": 1, "INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4,
    "UINT64": 5, "FP32": 6, "FP64": 7, "BYTES": 8,
}  # fmt: skip
_FLOATS = {6: "<f4", 7: "<f8"}
_SIGNED = (2, 3)
_TEXTS = 8


class InferRequest:
    """One request: inputs by name, and which outputs are wanted."""

    __slots__ = ("datatypes", "id", "inputs", "is_raw", "model", "version", "wanted")

    def __init__(self) -> None:
        self.model = self.version = self.id = ""
        self.inputs: dict[str, Array] = {}
        self.datatypes: dict[str, str] = {}
        self.wanted: list[str] = []
        self.is_raw = True  # tensors are bytes beside the message, in the answer too


def read_named(message: bytes) -> tuple[str, str]:
    """(name, version) of the model that a request is about."""
    found = {field: value for field, _, value in protobuf.fields(message) if field in (1, 2)}
    return protobuf.read_text(found.get(1, b"")), protobuf.read_text(found.get(2, b""))


def read_infer(message: bytes) -> InferRequest:
    """Raises BadRequest."""
    request, tensors, raw = InferRequest(), [], []
    for field, _, value in protobuf.fields(message):
        if field == 1:
            request.model = protobuf.read_text(value)
        elif field == 2:
            request.version = protobuf.read_text(value)
        elif field == 3:
            request.id = protobuf.read_text(value)
        elif field == 5:
            tensors.append(_Tensor(value))
        elif field == 6:
            request.wanted += [protobuf.read_text(each) for at, _, each in protobuf.fields(value) if at == 1]
        elif field == 7:
            raw.append(value)
    if not tensors:
        raise BadRequest("the request has no inputs")
    if raw and len(raw) != len(tensors):
        raise BadRequest(f"{len(tensors)} inputs have {len(raw)} entries of `raw_input_contents`")
    for at, tensor in enumerate(tensors):
        name, datatype, array = tensor.read(raw[at] if raw else None)
        if name in request.inputs:
            raise BadRequest(f"input `{name}` is there twice")
        request.inputs[name], request.datatypes[name] = array, datatype
    request.is_raw = bool(raw)
    return request


class _Tensor:
    """An input as it is told."""

    def __init__(self, message: Any) -> None:
        self.name = self.datatype = ""
        self.shape: list[int] = []
        self.contents: dict[int, list[Any]] = {}
        for field, kind, value in protobuf.fields(message):
            if field == 1:
                self.name = protobuf.read_text(value)
            elif field == 2:
                self.datatype = protobuf.read_text(value)
            elif field == 3:
                self.shape += [protobuf.signed(each) for each in protobuf.read_numbers(kind, value)]
            elif field == 5:
                for at, how, each in protobuf.fields(value):
                    self.contents.setdefault(at, []).extend(_values(at, how, each))

    def read(self, raw: Any) -> tuple[str, str, Array]:
        told = {"name": self.name, "datatype": self.datatype, "shape": self.shape}
        if raw is not None:
            return read_tensor(told, raw)
        field = _CONTENTS.get(self.datatype, 0)
        if set(self.contents) - {field}:
            raise BadRequest(f"input `{self.name}` is {self.datatype}, its contents are of another type")
        values = self.contents.get(field, [])
        if field == _TEXTS:  # any bytes, as they go beside a message
            return read_tensor(
                told, memoryview(b"".join(struct.pack("<I", len(each)) + each for each in values))
            )
        if field == 1:
            values = [int(each) for each in values]
        return read_tensor({**told, "data": values}, None)


def _values(field: int, kind: int, value: Any) -> list[Any]:
    if field == _TEXTS:
        return [bytes(value)]
    if field in _FLOATS:
        return protobuf.read_floats(value, _FLOATS[field])
    found = protobuf.read_numbers(kind, value)
    return [protobuf.signed(each) for each in found] if field in _SIGNED else found


def write_infer(request: InferRequest, name: str, version: str, outputs: dict[str, Array]) -> bytes:
    """The answer: tensors as they came, beside the message or in it."""
    is_raw = request.is_raw or any(datatype_of(each) not in _CONTENTS for each in outputs.values())
    parts = [protobuf.text(1, name), protobuf.text(2, version), protobuf.text(3, request.id)]
    blobs = []
    for key, array in outputs.items():
        told, blob = write_tensor(key, array, True)
        one = _told(key, told["datatype"], told["shape"])
        if is_raw:
            blobs.append(protobuf.data(6, blob))
        else:
            one += protobuf.data(5, _contents(told["datatype"], array.reshape(-1)))
        parts.append(protobuf.data(5, one))
    return b"".join(parts + blobs)


def _contents(datatype: str, flat: Array) -> bytes:
    field = _CONTENTS[datatype]
    if field in _FLOATS:
        return protobuf.data(field, flat.astype(_FLOATS[field]).tobytes())
    if field == _TEXTS:
        return b"".join(
            protobuf.data(field, each if isinstance(each, bytes) else str(each).encode()) for each in flat
        )
    return protobuf.numbers(field, map(int, flat.astype(TYPES[datatype])))


def _told(name: str, datatype: str, shape: Iterable[int]) -> bytes:
    return protobuf.text(1, name) + protobuf.text(2, datatype) + protobuf.numbers(3, shape)


def write_metadata(name: str, versions: Iterable[str], platform: str, specs: list[list[TensorSpec]]) -> bytes:
    """What a model takes (`specs[0]`) and gives (`specs[1]`)."""
    found = protobuf.text(1, name) + b"".join(protobuf.text(2, each) for each in versions)
    found += protobuf.text(3, platform)
    for field, tensors in zip((4, 5), specs):
        found += b"".join(
            protobuf.data(field, _told(each.name, each.datatype, each.shape)) for each in tensors
        )
    return found


def write_server(name: str, version: str, extensions: Iterable[str]) -> bytes:
    return (
        protobuf.text(1, name)
        + protobuf.text(2, version)
        + b"".join(protobuf.text(3, each) for each in extensions)
    )


def write_index(rows: Iterable[tuple[str, str]]) -> bytes:
    """(name, version) of every model that is served."""
    return b"".join(
        protobuf.data(1, protobuf.text(1, name) + protobuf.text(2, version) + protobuf.text(3, "READY"))
        for name, version in rows
    )


def write_stream(answer: bytes = b"", error: str = "") -> bytes:
    """One answer of `ModelStreamInfer`."""
    return protobuf.text(1, error) if error else protobuf.data(2, answer)
