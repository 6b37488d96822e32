"""Contracts of container platforms: rows in, predictions out. SageMaker's `/ping` and `/invocations`, Vertex
AI's routes from the environment, and `{"instances": [...]}` as TensorFlow Serving began it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from argosy.functions.wire import Answer, Request
from argosy.inference.models import Model, Models
from argosy.inference.tensors import TYPES, Array, BadRequest, datatype_of, plain

TARGET = "x-amzn-sagemaker-target-model"


class Routes:
    """Where Vertex AI asks: it says so in the environment of a container."""

    def __init__(self, health: str = "", predict: str = "") -> None:
        self.health, self.predict = health, predict

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Routes:
        return cls(environment.get("AIP_HEALTH_ROUTE", ""), environment.get("AIP_PREDICT_ROUTE", ""))


def port_of(environment: Mapping[str, str]) -> int:
    """The port that the platform gives a container; 8080 where none does."""
    for name in ("ARGOSY_SERVICE_PORT", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "PORT"):
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 8080


async def invocations(request: Request, models: Models) -> Answer:
    """One request of SageMaker or Vertex AI: JSON, CSV, or an array of numpy."""
    model = models.only(request.get(TARGET))
    kind = request.get("content-type").partition(";")[0].strip().lower() or "application/json"
    wants = request.get("accept").partition(";")[0].strip().lower()
    if kind in ("application/json", "application/x-www-form-urlencoded"):  # what `curl -d` says of JSON
        found = await predict(request.body, model)
    elif kind in ("text/csv", "application/x-npy"):
        rows = _csv(request.body) if kind == "text/csv" else _npy(request.body)
        found = {"predictions": plain(_first(await _infer(model, {"": rows})))}
    else:
        text = f"`{kind}` is not read here; send application/json, text/csv or application/x-npy"
        raise BadRequest(text, 415)
    if wants == "text/csv":
        return Answer(200, _as_csv(found["predictions"]), [("content-type", "text/csv; charset=utf-8")])
    return Answer(200, json.dumps(found).encode(), [("content-type", "application/json")])


async def predict(body: bytes, model: Model) -> dict[str, Any]:
    """`{"instances": [...]}` or `{"inputs": ...}` to `{"predictions": [...]}`. With several outputs each row
    is an object of them. Raises BadRequest."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is no JSON: {error}") from None
    rows = asked.get("instances", asked.get("inputs")) if isinstance(asked, dict) else asked
    if not isinstance(rows, list) or not rows:
        raise BadRequest('the request has no rows: write {"instances": [[1.0, 2.0], ...]}')
    parameters = asked.get("parameters") if isinstance(asked, dict) else None
    method = parameters.get("outputs") if isinstance(parameters, dict) else None
    wanted = [str(each) for each in method] if isinstance(method, list) else []
    found = await _infer(model, _columns(rows), wanted)
    outputs = {name: plain(array) for name, array in found.items()}
    if len(outputs) == 1:
        return {"predictions": next(iter(outputs.values()))}
    if all(isinstance(each, list) and len(each) == len(rows) for each in outputs.values()):
        each_row = zip(*outputs.values())
        return {"predictions": [dict(zip(outputs, values)) for values in each_row]}
    return {"predictions": outputs}


def _columns(rows: list[Any]) -> dict[str, Array]:
    """Rows as one array, or as one for each name where rows are objects."""
    if all(isinstance(each, dict) for each in rows):
        names = list(rows[0])
        if any(list(each) != names for each in rows):
            raise BadRequest("the rows have different fields")
        return {name: _array([each[name] for each in rows]) for name in names}
    return {"": _array(rows)}


def _array(values: list[Any]) -> Array:
    try:
        found = np.array(values)
    except ValueError:
        raise BadRequest("the rows have different lengths") from None
    if found.dtype.kind not in "biufU":
        raise BadRequest("the rows hold what is neither numbers nor texts")
    return found.astype(object) if found.dtype.kind == "U" else found


async def _infer(model: Model, arrays: dict[str, Array], wanted: list[str] | None = None) -> dict[str, Array]:
    """With the types that the model takes; rows without a name are its only input."""
    specs = {each.name: each for each in model.engine.inputs}
    if list(arrays) == [""]:
        if len(specs) != 1:
            raise BadRequest(f"the model takes several inputs: rows are objects with {', '.join(specs)}")
        arrays = {next(iter(specs)): arrays[""]}
    for name, spec in specs.items():
        array = arrays.get(name)
        if array is not None and spec.datatype in TYPES and array.dtype.kind in "biuf":
            arrays[name] = array.astype(TYPES[spec.datatype])
    return await model.infer(arrays, {name: datatype_of(each) for name, each in arrays.items()}, wanted or ())


def _first(found: dict[str, Array]) -> Array:
    return next(iter(found.values()))


def _csv(body: bytes) -> Array:
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode())) if row]
        found = np.array(rows, dtype=np.float64)
    except (ValueError, csv.Error) as error:
        raise BadRequest(f"the request is no table of numbers: {error}") from None
    if not found.size:
        raise BadRequest("the request has no rows")
    return found


def _npy(body: bytes) -> Array:
    try:
        return np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BadRequest(f"the request is no array of numpy: {error}") from None


def _as_csv(rows: Any) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows if isinstance(rows, list) else [rows]:
        writer.writerow(
            row if isinstance(row, list) else list(row.values()) if isinstance(row, dict) else [row]
        )
    return text.getvalue().encode()
