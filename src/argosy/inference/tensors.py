"""Tensors of the Open Inference Protocol: JSON or raw bytes on the wire, numpy arrays here."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray of any type
TYPES: dict[str, Any] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}
MOST_AXES = 16


class BadRequest(Exception):
    """What the client sent cannot be served; the text says why and is its answer."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class TensorSpec:
    """Name, data type and shape of one input or output of a model; -1 is a length that is free."""

    __slots__ = ("datatype", "name", "shape")

    def __init__(self, name: str, datatype: str, shape: list[int]) -> None:
        self.name, self.datatype, self.shape = name, datatype, shape

    def told(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}

    def check(self, array: Array, datatype: str) -> None:
        """Raises BadRequest when an array is not what the model takes here."""
        if self.datatype and datatype != self.datatype:
            raise BadRequest(f"input `{self.name}` is {datatype}, the model takes {self.datatype}")
        fits = len(array.shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, array.shape)
        )
        if not fits:
            raise BadRequest(
                f"input `{self.name}` has the shape {list(array.shape)}, the model takes {self.shape}"
            )


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's type. Raises TypeError where it has none."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    name = _NAMES.get(array.dtype)
    if name is None:
        raise TypeError(f"the protocol has no name for {array.dtype}")
    return name


def read_tensor(given: Any, raw: memoryview | None) -> tuple[str, str, Array]:
    """(name, data type, array) of an input: `raw` are its bytes where they do not stand in the JSON."""
    if not isinstance(given, dict):
        raise BadRequest("an input is no object")
    name = given.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest("an input has no `name`")
    datatype, shape = given.get("datatype"), given.get("shape")
    if datatype not in TYPES:
        raise BadRequest(f"input `{name}` has no known `datatype`; there are {', '.join(TYPES)}")
    if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(_is_length(each) for each in shape):
        raise BadRequest(f"the `shape` of input `{name}` is no list of lengths")
    if raw is None and "data" not in given:
        raise BadRequest(f"input `{name}` has no `data`")
    flat = _from_json(name, datatype, given["data"]) if raw is None else _from_raw(name, datatype, raw)
    count = 1
    for length in shape:
        count *= length
    if flat.size != count:
        raise BadRequest(f"input `{name}` has {flat.size} values; its shape {shape} asks for {count}")
    return name, datatype, flat.reshape(shape)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _from_json(name: str, datatype: str, data: Any) -> Array:
    if not isinstance(data, list):
        raise BadRequest(f"the `data` of input `{name}` is no list")
    try:
        if datatype == "BYTES":
            return np.array(_flattened(data), dtype=object)
        found = np.array(data)
        if datatype == "UINT64" and found.dtype.kind == "f":  # numbers from 2^63 on beside small ones
            return _large(np.array(data, dtype=object).reshape(-1))
        if found.dtype == object or found.dtype.kind not in "biuf":
            raise ValueError("it holds what are no numbers, or rows of different lengths")
        return _as_type(found.reshape(-1), datatype)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"the `data` of input `{name}` is not {datatype}: {error}") from None


def _as_type(found: Array, datatype: str) -> Array:
    """The values as the data type; whole numbers that do not fit are refused instead of wrapped."""
    kind = np.dtype(TYPES[datatype])
    if kind.kind in "iu" and found.size:
        if found.dtype.kind == "f" and not (found == np.floor(found)).all():
            raise ValueError("it holds fractions")
        limits = np.iinfo(kind)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise ValueError(f"{int(found.min())} to {int(found.max())} does not fit")
    return found.astype(kind)


def _large(found: Array) -> Array:
    """Whole numbers of Python, which floats would round, as UINT64."""
    if not all(isinstance(each, int) and 0 <= each < 1 << 64 for each in found):
        raise ValueError("it holds fractions, or what does not fit")
    return found.astype(np.uint64)


def _flattened(data: list[Any]) -> list[str]:
    found: list[str] = []
    for each in data:
        if isinstance(each, list):
            found += _flattened(each)
        elif isinstance(each, str):
            found.append(each)
        else:
            raise ValueError("it holds what is no text")
    return found


def _from_raw(name: str, datatype: str, raw: memoryview) -> Array:
    if datatype == "BYTES":
        return _texts(name, raw)
    kind = np.dtype(TYPES[datatype])
    if len(raw) % kind.itemsize:
        raise BadRequest(f"input `{name}` has {len(raw)} bytes, no multiple of {kind.itemsize}")
    return np.frombuffer(raw, dtype=kind.newbyteorder("<")).astype(kind, copy=False)


def _texts(name: str, raw: memoryview) -> Array:
    """Texts with their lengths in front, four bytes each, little endian."""
    found: list[str | bytes] = []
    at = 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise BadRequest(f"input `{name}` ends within a length")
        (length,) = struct.unpack_from("<I", raw, at)
        data = bytes(raw[at + 4 : at + 4 + length])
        if len(data) < length:
            raise BadRequest(f"input `{name}` ends within a text")
        at += 4 + length
        try:
            found.append(data.decode())
        except UnicodeDecodeError:
            found.append(data)
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array


def write_tensor(name: str, array: Array, is_binary: bool) -> tuple[dict[str, Any], bytes]:
    """An output as the protocol has it, and its bytes where they stand behind the JSON."""
    datatype = datatype_of(array)
    told: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    if not is_binary:
        told["data"] = plain(array.reshape(-1))
        return told, b""
    if datatype == "BYTES":
        data = b"".join(struct.pack("<I", len(each)) + each for each in map(_bytes, array.reshape(-1)))
    else:
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    told["parameters"] = {"binary_data_size": len(data)}
    return told, data


def plain(array: Array) -> Any:
    """An array as lists for JSON. Raises BadRequest where it holds what JSON cannot say."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest("an output is not finite, which JSON cannot say: ask for `binary_data`", 500)
    if array.dtype.kind in "OSU":
        return _decoded(array.tolist())
    return array.tolist()


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
