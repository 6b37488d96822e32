"""Engines: what runs a model file. Each imports its library only when a file of its kind is served."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from argosy.inference.tensors import TYPES, Array, TensorSpec, datatype_of

#: What each engine is called, the package that it needs, and the files that it takes.
KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "onnx": ("onnxruntime_onnx", "onnxruntime", (".onnx",)),
    "openvino": ("openvino", "openvino", (".xml",)),
    "sklearn": ("sklearn", "scikit-learn", (".joblib", ".pkl", ".pickle", ".skops")),
    "torch": ("pytorch_torchscript", "torch", (".pt", ".ts", ".torchscript", ".pt2")),
}
_WEIGHTS = (".safetensors", ".pth", ".bin", ".ckpt")


class LoadError(Exception):
    """A model cannot be served; the text says why, and what to do."""


class Engine:
    """One loaded model file. `run` may be called from any thread."""

    platform = ""
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    batches = True  # rows of several requests may be put together along the first axis
    strict = True  # names, types and shapes of inputs are known and checked

    def run(self, inputs: dict[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """Outputs by name: those that are wanted, or the usual ones."""
        raise NotImplementedError

    def warm(self) -> None:
        """Run it once on zeros where its shapes are known, so that the first request is as quick as any."""
        if not self.strict or any(spec.datatype == "BYTES" for spec in self.inputs):
            return
        zeros = {
            each.name: np.zeros([max(1, length) for length in each.shape], dtype=TYPES[each.datatype])
            for each in self.inputs
        }
        self.run(zeros, ())


def engine_of(path: Path) -> str:
    """The engine for a file. Raises LoadError."""
    for name, (_, _, endings) in KINDS.items():
        if path.suffix.lower() in endings:
            return name
    if path.suffix.lower() in _WEIGHTS:
        raise LoadError(
            f"{path} holds weights without a program; export the model: "
            "`torch.export.save(torch.export.export(model, inputs), 'model.pt2')`"
        )
    known = ", ".join(ending for _, _, endings in KINDS.values() for ending in endings)
    raise LoadError(f"{path} is no model that is known here; there are {known}")


def load(path: Path, engine: str = "", threads: int = 0, trusted: Sequence[str] = ()) -> Engine:
    """The model in a file. `threads` for one run; 0: as many as there are CPUs. Raises LoadError."""
    name = engine or engine_of(path)
    if name not in KINDS:
        raise LoadError(f"there is no engine `{name}`; there are {', '.join(KINDS)}")
    if not path.exists():
        raise LoadError(f"there is no file {path}")
    package = KINDS[name][1]
    try:
        if name == "onnx":
            return OnnxEngine(path, threads)
        if name == "openvino":
            return OpenVinoEngine(path, threads)
        if name == "sklearn":
            return SklearnEngine(path, trusted)
        return TorchEngine(path, threads)
    except ImportError as error:
        missing = error.name or package
        package = {"skops": "skops", "sklearn": "scikit-learn"}.get(missing, package)
        raise LoadError(f"{path} needs `{missing}`: pip install {package}") from None
    except LoadError:
        raise
    except Exception as error:  # each library has its own
        text = str(error).strip().splitlines()
        raise LoadError(f"{path} cannot be loaded: {text[0] if text else type(error).__name__}") from error


# --- ONNX --------------------------------------------------------------------------------------------

_ONNX = {
    "float": "FP32", "double": "FP64", "float16": "FP16", "int8": "INT8", "int16": "INT16", "int32": "INT32",
    "int64": "INT64", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "bool": "BOOL", "string": "BYTES",
}  # fmt: skip


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU."""

    platform = "onnxruntime_onnx"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [self._spec(each) for each in self._session.get_inputs()]
        self.outputs = [self._spec(each) for each in self._session.get_outputs()]
        self.batches = all(spec.shape[:1] == [-1] for spec in self.inputs)

    @staticmethod
    def _spec(told: Any) -> TensorSpec:
        kind = told.type.partition("(")[2].rstrip(")")
        if told.type.startswith("seq"):  # of maps from classes to probabilities: a matrix here
            return TensorSpec(told.name, "FP32", [-1, -1])
        shape = [each if isinstance(each, int) and each > 0 else -1 for each in told.shape]
        return TensorSpec(told.name, _ONNX.get(kind, ""), shape)

    def run(self, inputs: dict[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        names = list(wanted) or [each.name for each in self.outputs]
        found = self._session.run(names, inputs)
        return {name: _matrix(each) for name, each in zip(names, found)}


def _matrix(found: Any) -> Array:
    """What some converters give instead of a matrix: a dictionary for each row."""
    if isinstance(found, list) and found and isinstance(found[0], dict):
        keys = list(found[0])
        return np.array([[row[key] for key in keys] for row in found], dtype=np.float32)
    return np.asarray(found)


# --- OpenVINO ----------------------------------------------------------------------------------------


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU: its own files, and ONNX."""

    platform = "openvino"

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        self._model = core.compile_model(core.read_model(str(path)), "CPU", settings)
        self.inputs = [self._spec(each, at, "input") for at, each in enumerate(self._model.inputs)]
        self.outputs = [self._spec(each, at, "output") for at, each in enumerate(self._model.outputs)]
        self.batches = all(spec.shape[:1] == [-1] for spec in self.inputs)

    @staticmethod
    def _spec(port: Any, at: int, fallback: str) -> TensorSpec:
        name = port.get_any_name() if port.get_names() else f"{fallback}__{at}"
        shape = [-1 if each.is_dynamic else each.get_length() for each in port.get_partial_shape()]
        return TensorSpec(name, datatype_of(np.empty(0, dtype=port.get_element_type().to_dtype())), shape)

    def run(self, inputs: dict[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        request = self._model.create_infer_request()
        found = request.infer([inputs[each.name] for each in self.inputs])
        names = wanted or [each.name for each in self.outputs]
        return {each.name: found[at] for at, each in enumerate(self.outputs) if each.name in names}


# --- scikit-learn -----------------------------------------------------------------------------------


class SklearnEngine(Engine):
    """An estimator or a pipeline of scikit-learn: `predict`, and on demand what else it can say of rows."""

    platform = "sklearn"
    strict = False
    _METHODS = ("predict", "predict_proba", "decision_function", "transform")

    def __init__(self, path: Path, trusted: Sequence[str]) -> None:
        self._estimator = _unpickled(path) if path.suffix.lower() != ".skops" else _from_skops(path, trusted)
        self._methods = [name for name in self._METHODS if hasattr(self._estimator, name)]
        if not self._methods:
            kind = type(self._estimator).__name__
            raise LoadError(f"{path} holds a {kind}, which has none of {', '.join(self._METHODS)}")
        width = getattr(self._estimator, "n_features_in_", -1)
        self.inputs = [TensorSpec("input", "FP64", [-1, int(width)])]
        self.outputs = [self._output(name) for name in self._methods]

    def _output(self, name: str) -> TensorSpec:
        classes = getattr(self._estimator, "classes_", None)
        if name == "predict":
            kind = getattr(classes, "dtype", np.dtype(np.float64))
            return TensorSpec(
                name, "BYTES" if kind.kind in "OSU" else "INT64" if kind.kind in "iu" else "FP64", [-1]
            )
        count = len(classes) if name == "predict_proba" and classes is not None else -1
        return TensorSpec(name, "FP64", [-1, count])

    def run(self, inputs: dict[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        rows = next(iter(inputs.values()))
        names = list(wanted) or self._methods[:1]
        return {name: _dense(getattr(self._estimator, name)(rows)) for name in names}


def _dense(found: Any) -> Array:
    return found.toarray() if hasattr(found, "toarray") else np.asarray(found)


def _unpickled(path: Path) -> Any:
    sys.stderr.write(
        f"warning: {path} is a pickle: loading it runs whatever code its maker put into it. "
        "Serve only files that you trust; `skops.io.dump` writes one without code\n"
    )
    import joblib

    return joblib.load(path)


def _from_skops(path: Path, trusted: Sequence[str]) -> Any:
    import skops.io

    unknown = set(skops.io.get_untrusted_types(file=path)) - set(trusted)
    if unknown:
        words = " ".join(f"--trust {each}" for each in sorted(unknown))
        raise LoadError(f"{path} holds types that are not trusted; when you trust them: {words}")
    return skops.io.load(path, trusted=sorted(trusted))


# --- PyTorch -----------------------------------------------------------------------------------------


class TorchEngine(Engine):
    """A program of PyTorch: TorchScript, or what `torch.export.save` wrote."""

    platform = "pytorch_torchscript"

    def __init__(self, path: Path, threads: int) -> None:
        import torch

        self._torch: Any = torch  # typed only where it is installed
        if threads:
            self._torch.set_num_threads(threads)
        if path.suffix.lower() == ".pt2":
            self.platform = "pytorch_export"
            self._read_exported(path)
        else:
            self.strict = False
            self._read_script(path)
        self.outputs = [TensorSpec("output__0", "FP32", [-1])]

    def _read_script(self, path: Path) -> None:
        try:
            self._module = self._torch.jit.load(str(path), map_location="cpu").eval()
        except RuntimeError as error:
            raise LoadError(
                f"{path} is no TorchScript: {str(error).strip().splitlines()[0]}; a file of `torch.save` "
                "holds weights or pickled code: export the model with `torch.export.save` (`.pt2`)"
            ) from None
        arguments = self._module.forward.schema.arguments[1:]
        self.inputs = [
            TensorSpec(each.name, "FP32", [-1]) for each in arguments if not each.has_default_value()
        ]

    def _read_exported(self, path: Path) -> None:
        program: Any = self._torch.export.load(str(path))
        self._module = program.module()
        names = list(program.graph_signature.user_inputs)
        values = {each.name: each.meta["val"] for each in program.graph.nodes if each.op == "placeholder"}
        self.inputs = []
        for name in names:
            shape = [each if isinstance(each, int) else -1 for each in values[name].shape]
            kind = str(values[name].dtype).rpartition(".")[2]
            self.inputs.append(TensorSpec(name, _TORCH.get(kind, ""), shape))
        self.batches = all(spec.shape[:1] == [-1] for spec in self.inputs)

    def run(self, inputs: dict[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        names = [each.name for each in self.inputs]
        if set(names) != set(inputs):
            names = list(inputs)  # names that say nothing: in their order
        tensors = [self._torch.from_numpy(np.array(inputs[name])) for name in names]
        with self._torch.inference_mode():
            found = self._module(*tensors)
        if isinstance(found, dict):
            named = found
        else:
            named = {f"output__{at}": each for at, each in enumerate(_several(found))}
        return {name: each.numpy() for name, each in named.items() if not wanted or name in wanted}


def _several(found: Any) -> Sequence[Any]:
    return found if isinstance(found, (list, tuple)) else (found,)


_TORCH = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip
