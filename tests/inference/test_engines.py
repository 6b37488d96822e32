"""Engines that are too heavy for every run: ONNX Runtime, OpenVINO, PyTorch, skops, and Triton's client. Each
test needs its library (`pip install "argosy[nightly]"`, and PyTorch)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from argosy.functions.wire import Connection
from argosy.inference.batching import Limits
from argosy.inference.engines import LoadError, load
from argosy.inference.front import Front
from argosy.inference.models import load_all

pytestmark = pytest.mark.nightly


def _scaler(path: Path) -> None:
    """An ONNX file: `y` is `x` times 2 plus 1, two columns."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Mul", ["x", "two"], ["m"]), helper.make_node("Add", ["m", "one"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "scaler",
        [helper.make_tensor_value_info("x", kind, ["rows", 2])],
        [helper.make_tensor_value_info("y", kind, ["rows", 2])],
        [helper.make_tensor("two", kind, [], [2.0]), helper.make_tensor("one", kind, [], [1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def save_scaler(kind: str, folder: Path) -> Path:
    """The same for every engine; with scikit-learn a line that learned it. Skips without its library."""
    path = folder / {"onnx": "s.onnx", "openvino": "s.onnx", "sklearn": "s.joblib", "torch": "s.pt2"}[kind]
    if kind in ("onnx", "openvino"):
        pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[kind])
        _scaler(path)
    elif kind == "sklearn":
        joblib = pytest.importorskip("joblib")
        from sklearn.linear_model import LinearRegression

        joblib.dump(LinearRegression().fit(np.array([[0.0], [1.0]]), np.array([1.0, 3.0])), path)
    else:
        torch = pytest.importorskip("torch")

        class Scaler(torch.nn.Module):  # type: ignore[misc,name-defined]
            def forward(self, x: Any) -> Any:
                return x * 2 + 1

        shapes = {"x": {0: torch.export.Dim("rows", min=1)}}
        torch.export.save(torch.export.export(Scaler(), (torch.ones(3, 2),), dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_an_onnx_file_is_run(engine: str, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[engine])
    _scaler(tmp_path / "scaler.onnx")
    model = load(tmp_path / "scaler.onnx", engine, threads=1)
    assert [each.told() for each in model.inputs] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert model.outputs[0].name == "y" and model.batches
    found = model.run({"x": np.array([[1, 2]], np.float32)}, ["y"])
    assert found["y"].tolist() == [[3.0, 5.0]]
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(LoadError, match=r"broken\.onnx cannot be loaded"):
        load(tmp_path / "broken.onnx", engine)


def test_tritons_own_client_is_served(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    client = pytest.importorskip("tritonclient.http")
    _scaler(tmp_path / "scaler.onnx")

    def ask(port: int) -> None:
        triton = client.InferenceServerClient(f"127.0.0.1:{port}")
        assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("scaler")
        assert triton.get_model_metadata("scaler")["inputs"][0]["shape"] == [-1, 2]
        for binary in (True, False):
            given = client.InferInput("x", [3, 2], "FP32")
            given.set_data_from_numpy(np.ones((3, 2), np.float32), binary_data=binary)
            wanted = client.InferRequestedOutput("y", binary_data=binary)
            for packed in (None, "gzip", "deflate"):
                found: Any = triton.infer(
                    "scaler", [given], outputs=[wanted], request_id="7", request_compression_algorithm=packed
                )
                assert found.as_numpy("y").tolist() == [[3.0, 3.0]] * 3 and found.get_response()["id"] == "7"
        with pytest.raises(Exception, match="there is no model `scalar`; did you mean `scaler`"):
            triton.infer("scalar", [given])
        triton.close()

    async def main() -> None:
        models = load_all([str(tmp_path / "scaler.onnx")], Limits(), threads=1, say=lambda text: None)
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(Front(models).answer, 1 << 20), "127.0.0.1", 0
        )
        await asyncio.to_thread(ask, server.sockets[0].getsockname()[1])
        server.close()
        await models.close()

    asyncio.run(main())


def test_programs_of_pytorch_are_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Scaler(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            return x * 2 + 1, x.sum(dim=1)

    rows = torch.export.Dim("rows", min=1)
    example = torch.ones(3, 2)
    torch.export.save(
        torch.export.export(Scaler(), (example,), dynamic_shapes={"x": {0: rows}}), tmp_path / "scaler.pt2"
    )
    torch.jit.trace(Scaler(), example).save(str(tmp_path / "scaler.pt"))
    torch.save({"weights": example}, tmp_path / "weights.pt")
    for name, strict in (("scaler.pt2", True), ("scaler.pt", False)):
        model = load(tmp_path / name, threads=1)
        assert model.strict is strict and [each.name for each in model.inputs] == ["x"]
        found = model.run({"x": np.ones((2, 2), np.float32)}, ())
        assert found["output__0"].tolist() == [[3.0, 3.0]] * 2 and found["output__1"].tolist() == [2.0, 2.0]
        if strict:
            assert model.inputs[0].told() == {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
            assert model.batches
    with pytest.raises(LoadError, match=r"weights\.pt is no TorchScript"):
        load(tmp_path / "weights.pt")


def test_skops_loads_no_code_that_is_not_trusted(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    x, y = np.array([[0.0], [1.0]]), np.array([1.0, 3.0])
    skops.dump(LinearRegression().fit(x, y), tmp_path / "line.skops")
    found = load(tmp_path / "line.skops").run({"input": np.array([[2.0]])}, ())
    assert found["predict"].round(6).tolist() == [5.0]
    skops.dump(
        make_pipeline(FunctionTransformer(_shift), LinearRegression()).fit(x, y), tmp_path / "own.skops"
    )
    with pytest.raises(
        LoadError, match=r"holds types that are not trusted; when you trust them: --trust \S*_shift"
    ):
        load(tmp_path / "own.skops")


def _shift(x: Any) -> Any:
    return x + 1
