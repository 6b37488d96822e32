"""The server of models: the Open Inference Protocol by a client of our own, contracts, batching, limits."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from argosy.functions.wire import Connection
from argosy.inference.batching import Limits
from argosy.inference.contracts import Routes, port_of
from argosy.inference.engines import Engine, LoadError, engine_of, load
from argosy.inference.front import Front
from argosy.inference.models import Model, Models, found_files, load_all
from argosy.inference.tensors import BadRequest, TensorSpec


class Doubler(Engine):
    """`y` is twice `x`; three columns. 13 cannot be doubled. `gate` holds runs back."""

    platform = "arithmetic"

    def __init__(self) -> None:
        self.inputs = [TensorSpec("x", "FP32", [-1, 3])]
        self.outputs = [TensorSpec("y", "FP32", [-1, 3]), TensorSpec("total", "FP32", [-1])]
        self.rows: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, inputs: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
        self.gate.wait(10)
        x = inputs["x"]
        self.rows.append(len(x))
        if (x == 13).any():
            raise ValueError("13 cannot be doubled")
        found = {"y": x * 2, "total": x.sum(axis=1)}
        return {name: each for name, each in found.items() if not wanted or name in wanted}


class Guess:
    """Predicts one, whatever it gets."""

    def predict(self, rows: Any) -> Any:
        return np.ones(len(rows))


class Words(Engine):
    """Texts in capitals, and their lengths."""

    platform = "words"

    def __init__(self) -> None:
        self.inputs = [TensorSpec("text", "BYTES", [-1])]
        self.outputs = [TensorSpec("loud", "BYTES", [-1]), TensorSpec("length", "INT64", [-1])]

    def run(self, inputs: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
        texts = inputs["text"]
        return {
            "loud": np.array([each.upper() for each in texts], dtype=object),
            "length": np.array([len(each) for each in texts]),
        }


Answer = tuple[int, dict[str, str], bytes]


class Client:
    """A client of our own: HTTP/1.1 over one connection, in a thread."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=90)

    async def ask(self, method: str, path: str, body: Any = None, **fields: str) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        return await asyncio.to_thread(self._ask, method, path, data, fields)

    def _ask(self, method: str, path: str, body: bytes | None, fields: dict[str, str]) -> Answer:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, told, answer.read()


Scenario = Callable[[Client, Models], Coroutine[Any, Any, None]]


def served(
    scenario: Scenario,
    *engines: tuple[str, Engine],
    limits: Limits | None = None,
    routes: Routes | None = None,
    body_limit: int = 100_000,
) -> None:
    async def main() -> None:
        models = Models()
        for name, engine in engines:
            models.add(Model(name, "1", engine, limits or Limits()))
        front = Front(models, routes, body_limit)
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(front.answer, body_limit), "127.0.0.1", 0
        )
        try:
            await scenario(Client(server.sockets[0].getsockname()[1]), models)
        finally:
            server.close()
            await models.close()

    asyncio.run(main())


def tensor(rows: list[list[float]], **more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": rows, **more}


ONE = [[1.0, 2.0, 3.0]]


# --- the Open Inference Protocol ---------------------------------------------------------------------


def test_health_and_metadata_are_as_the_protocol_says() -> None:
    async def scenario(client: Client, models: Models) -> None:
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/double/ready", "/ping", "/health"):
            assert (await client.ask("GET", path))[0] == 200, path
        server = json.loads((await client.ask("GET", "/v2"))[2])
        assert server["name"] == "argosy-inference" and "binary_tensor_data" in server["extensions"]
        told = json.loads((await client.ask("GET", "/v2/models/double/versions/1"))[2])
        assert told == {
            "name": "double",
            "versions": ["1"],
            "platform": "arithmetic",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "total", "datatype": "FP32", "shape": [-1]},
            ],
        }
        [row] = json.loads((await client.ask("POST", "/v2/repository/index", {}))[2])
        assert row["name"] == "double" and row["state"] == "READY"

    served(scenario, ("double", Doubler()))


def test_tensors_go_as_json() -> None:
    async def scenario(client: Client, models: Models) -> None:
        asked = {"id": "seven", "inputs": [tensor([*ONE, [4, 5, 6]])], "outputs": [{"name": "y"}]}
        status, _, body = await client.ask("POST", "/v2/models/double/infer", asked)
        assert status == 200 and json.loads(body) == {
            "model_name": "double",
            "model_version": "1",
            "id": "seven",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [2, 4, 6, 8, 10, 12]}],
        }
        texts = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "żółw"]}
        status, _, body = await client.ask("POST", "/v2/models/words/infer", {"inputs": [texts]})
        assert [each["data"] for each in json.loads(body)["outputs"]] == [["A", "ŻÓŁW"], [1, 4]]

    served(scenario, ("double", Doubler()), ("words", Words()))


def test_tensors_go_as_bytes_behind_the_json() -> None:
    async def scenario(client: Client, models: Models) -> None:
        raw = np.array(ONE, dtype="<f4").tobytes()
        given = {
            "name": "x",
            "datatype": "FP32",
            "shape": [1, 3],
            "parameters": {"binary_data_size": len(raw)},
        }
        outputs = [{"name": "y", "parameters": {"binary_data": True}}, {"name": "total"}]
        head = json.dumps({"inputs": [given], "outputs": outputs}).encode()
        status, fields, body = await client.ask(
            "POST",
            "/v2/models/double/infer",
            gzip.compress(head + raw),
            Inference_Header_Content_Length=str(len(head)),
            Content_Encoding="gzip",
        )
        assert status == 200 and fields["content-type"] == "application/octet-stream"
        length = int(fields["inference-header-content-length"])
        y, total = json.loads(body[:length])["outputs"]
        assert y["parameters"] == {"binary_data_size": 12} and total["data"] == [6.0]
        assert np.frombuffer(body[length:], "<f4").tolist() == [2, 4, 6]

        raw = b"".join(struct.pack("<I", len(each)) + each for each in (b"hi", "ü".encode()))
        given = {
            "name": "text",
            "datatype": "BYTES",
            "shape": [2],
            "parameters": {"binary_data_size": len(raw)},
        }
        head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
        status, fields, body = await client.ask(
            "POST", "/v2/models/words/infer", head + raw, Inference_Header_Content_Length=str(len(head))
        )
        blob = body[int(fields["inference-header-content-length"]) :]
        assert blob == struct.pack("<I", 2) + b"HI" + struct.pack("<I", 2) + "Ü".encode() + struct.pack(
            "<qq", 2, 1
        )

    served(scenario, ("double", Doubler()), ("words", Words()))


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v2/models/duble/infer", {}, 404, "there is no model `duble`; did you mean `double`?"),
        ("/v2/models/double/versions/7/infer", {}, 404, "has no version `7`; there are 1"),
        ("/v2/models/double/infer", b"{", 400, "the request is no JSON"),
        ("/v2/models/double/infer", [], 400, "the request is no JSON object"),
        ("/v2/models/double/infer", {}, 400, "the request has no list `inputs`"),
        (
            "/v2/models/double/infer",
            {"inputs": [tensor([[1, 2]])]},
            400,
            "shape [1, 2], the model takes [-1, 3]",
        ),
        (
            "/v2/models/double/infer",
            {"inputs": [tensor(ONE, shape=[2, 3])]},
            400,
            "has 3 values; its shape [2, 3]",
        ),
        ("/v2/models/double/infer", {"inputs": [tensor(ONE, shape=[-1, 3])]}, 400, "no list of lengths"),
        (
            "/v2/models/double/infer",
            {"inputs": [tensor(ONE, name="z")]},
            400,
            "there is no input `z`; there are x",
        ),
        (
            "/v2/models/double/infer",
            {"inputs": [tensor(ONE, datatype="FP16")]},
            400,
            "is FP16, the model takes FP32",
        ),
        ("/v2/models/double/infer", {"inputs": [tensor(ONE, datatype="F")]}, 400, "has no known `datatype`"),
        ("/v2/models/double/infer", {"inputs": [tensor(ONE), tensor(ONE)]}, 400, "input `x` is there twice"),
        (
            "/v2/models/double/infer",
            {"inputs": [tensor([["a", "b", "c"]])]},
            400,
            "holds what are no numbers",
        ),
        (
            "/v2/models/double/infer",
            {"inputs": [tensor(ONE)], "outputs": [{"name": "q"}]},
            400,
            "no output `q`",
        ),
        (
            "/v2/models/double/infer",
            {"inputs": [tensor([[13, 1, 1]])]},
            500,
            "model `double` failed: 13 cannot",
        ),
        ("/v2/models/double", {}, 405, "takes GET"),
        ("/nothing", {}, 404, "the protocol is at /v2"),
    ],
)
def test_what_cannot_be_served_is_told(path: str, body: Any, status: int, text: str) -> None:
    async def scenario(client: Client, models: Models) -> None:
        found = await client.ask("POST", path, body)
        assert found[0] == status and text in json.loads(found[2])["error"]
        assert (await client.ask("POST", "/v2/models/double/infer", {"inputs": [tensor(ONE)]}))[0] == 200

    served(scenario, ("double", Doubler()))


def test_whole_numbers_that_do_not_fit_are_refused() -> None:
    from argosy.inference.tensors import read_tensor

    given = {"name": "n", "datatype": "INT8", "shape": [1], "data": [300]}
    with pytest.raises(BadRequest, match="not INT8: 300 to 300 does not fit"):
        read_tensor(given, None)
    with pytest.raises(BadRequest, match="it holds fractions"):
        read_tensor({**given, "data": [1.5]}, None)
    large = {"name": "n", "datatype": "UINT64", "shape": [2], "data": [2, (1 << 64) - 1]}
    assert read_tensor(large, None)[2].tolist() == [2, (1 << 64) - 1], "not rounded"
    for wrong in ([0.5, 1], [2, 1 << 64], [-1.0, 1 << 63]):
        with pytest.raises(BadRequest, match="not UINT64"):
            read_tensor({**large, "data": wrong}, None)


def test_bodies_have_a_limit_also_when_they_are_packed() -> None:
    async def scenario(client: Client, models: Models) -> None:
        status, _, body = await client.ask("POST", "/v2/models/double/infer", b"x" * 2000)
        assert status == 413 and json.loads(body)["error"] == "the body is larger than 1000 bytes"
        packed = gzip.compress(b" " * 100_000)
        status, _, body = await client.ask("POST", "/invocations", packed, Content_Encoding="gzip")
        assert status == 413 and "larger than 1000 bytes" in json.loads(body)["error"]
        status, _, body = await client.ask("POST", "/invocations", b"x", Content_Encoding="br")
        assert status == 415 and "`br` is not unpacked here" in json.loads(body)["error"]

    served(scenario, ("double", Doubler()), body_limit=1000)


# --- batching ----------------------------------------------------------------------------------------


def test_requests_that_wait_become_one_run_and_only_who_is_to_blame_fails() -> None:
    async def scenario(client: Client, models: Models) -> None:
        model, engine = models.get("double"), models.get("double").engine
        assert isinstance(engine, Doubler)
        engine.gate.clear()
        rows = [[float(n)] * 3 for n in (1, 2, 13, 4)]
        first = asyncio.ensure_future(model.infer({"x": np.ones((1, 3), np.float32)}, {"x": "FP32"}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked = [
            asyncio.ensure_future(model.infer({"x": np.array([row], np.float32)}, {"x": "FP32"}))
            for row in rows
        ]
        for _ in range(3):
            await asyncio.sleep(0)
        engine.gate.set()
        await first
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert engine.rows[:2] == [1, 4] and engine.rows[2:] == [1, 1, 1, 1], "one run, then each alone"
        assert [each["y"].tolist() for each in found if isinstance(each, dict)] == [
            [[2.0] * 3],
            [[4.0] * 3],
            [[8.0] * 3],
        ]
        assert isinstance(found[2], BadRequest) and found[2].status == 500
        assert model.figures.answers == {200: 4, 500: 1}

    served(scenario, ("double", Doubler()))


def test_a_run_has_so_many_rows_and_a_free_model_waits_for_more() -> None:
    async def scenario(client: Client, models: Models) -> None:
        model, engine = models.get("double"), models.get("double").engine
        assert isinstance(engine, Doubler)
        inputs = [{"x": np.full((2, 3), n, np.float32)} for n in range(3)]
        found = await asyncio.gather(*(model.infer(each, {"x": "FP32"}) for each in inputs))
        assert engine.rows == [4, 2], "two requests of two rows are a full run"
        assert [each["y"][0, 0] for each in found] == [0, 2, 4]

    served(scenario, ("double", Doubler()), limits=Limits(rows=4, delay_s=0.05))


def test_a_line_that_is_full_says_so() -> None:
    async def scenario(client: Client, models: Models) -> None:
        model, engine = models.get("double"), models.get("double").engine
        assert isinstance(engine, Doubler)
        engine.gate.clear()
        one = {"x": np.ones((1, 3), np.float32)}
        asked = [asyncio.ensure_future(model.infer(one, {"x": "FP32"}))]
        await client.ask("GET", "/ping")  # meanwhile the first one has begun
        asked += [asyncio.ensure_future(model.infer(one, {"x": "FP32"})) for _ in range(2)]
        await asyncio.sleep(0)
        status, fields, body = await client.ask("POST", "/v2/models/double/infer", {"inputs": [tensor(ONE)]})
        assert status == 503 and fields["retry-after"] == "1"
        assert "2 requests wait already" in json.loads(body)["error"]
        engine.gate.set()
        await asyncio.gather(*asked)

    served(scenario, ("double", Doubler()), limits=Limits(queue=2))


def test_figures_for_prometheus() -> None:
    async def scenario(client: Client, models: Models) -> None:
        await client.ask("POST", "/v2/models/double/infer", {"inputs": [tensor(ONE)]})
        await client.ask("POST", "/v2/models/double/infer", {"inputs": [tensor(ONE, name="q")]})
        text = (await client.ask("GET", "/metrics"))[2].decode()
        assert 'inference_requests_total{model="double",version="1",status="200"} 1' in text
        assert 'inference_requests_total{model="double",version="1",status="400"} 1' in text
        assert 'inference_batch_rows_bucket{model="double",version="1",le="1.0"} 1' in text
        assert 'inference_run_seconds_count{model="double",version="1"} 1' in text

    served(scenario, ("double", Doubler()))


# --- contracts of container platforms ----------------------------------------------------------------


def test_sagemaker_and_vertex_send_rows_and_get_predictions() -> None:
    async def scenario(client: Client, models: Models) -> None:
        rows = {"instances": [[1, 2, 3]], "parameters": {"outputs": ["y"]}}
        for path in ("/invocations", "/at/predict", "/v1/models/double:predict"):
            kind = "application/x-www-form-urlencoded" if path == "/invocations" else "application/json"
            status, _, body = await client.ask("POST", path, rows, Content_Type=kind)
            assert status == 200 and json.loads(body) == {"predictions": [[2, 4, 6]]}, path
        assert (await client.ask("GET", "/at/health"))[0] == 200
        status, _, body = await client.ask("POST", "/invocations", {"instances": [{"x": [1, 2, 3]}]})
        assert json.loads(body) == {"predictions": [{"y": [2, 4, 6], "total": 6}]}
        status, fields, body = await client.ask(
            "POST", "/invocations", b"1,2,3\n4,5,6\n", Content_Type="text/csv", Accept="text/csv"
        )
        assert status == 200 and body == b"2.0,4.0,6.0\n8.0,10.0,12.0\n" and "csv" in fields["content-type"]
        for wrong, text, code in (
            (b"1,b,3", "no table of numbers", 400),
            (b"{}", "the request has no rows", 400),
            (b'{"instances": [[1], [1, 2]]}', "rows have different lengths", 400),
        ):
            kind = "text/csv" if wrong[:1] == b"1" else "application/json"
            status, _, body = await client.ask("POST", "/invocations", wrong, Content_Type=kind)
            assert status == code and text in json.loads(body)["error"]
        status, _, body = await client.ask("POST", "/invocations", b"x", Content_Type="image/png")
        assert status == 415 and "send application/json" in json.loads(body)["error"]

    served(scenario, ("double", Doubler()), routes=Routes("/at/health", "/at/predict"))


def test_of_several_models_one_is_named() -> None:
    async def scenario(client: Client, models: Models) -> None:
        rows = {"instances": [[1, 2, 3]]}
        status, _, body = await client.ask("POST", "/invocations", rows)
        assert (
            status == 400 and "several models are here, name one: double, words" in json.loads(body)["error"]
        )
        fields = {"X_Amzn_SageMaker_Target_Model": "double"}
        assert (await client.ask("POST", "/invocations", rows, **fields))[0] == 200

    served(scenario, ("double", Doubler()), ("words", Words()))


def test_ports_and_routes_come_from_the_platform() -> None:
    assert port_of({"AIP_HTTP_PORT": "8501"}) == 8501 and port_of({"SAGEMAKER_BIND_TO_PORT": "8081"}) == 8081
    assert port_of({"AIP_HTTP_PORT": "1", "ARGOSY_SERVICE_PORT": "2"}) == 2 and port_of({}) == 8080
    assert Routes.of({"AIP_HEALTH_ROUTE": "/h", "AIP_PREDICT_ROUTE": "/p"}).predict == "/p"


# --- files -------------------------------------------------------------------------------------------


def test_a_model_of_scikit_learn_is_served_from_its_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import joblib
    from sklearn.linear_model import LogisticRegression

    x = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [4.0, 4.0]])
    joblib.dump(LogisticRegression().fit(x, ["low", "low", "low", "high"]), tmp_path / "size.joblib")

    async def main() -> None:
        models = load_all([str(tmp_path / "size.joblib")], Limits(), say=lambda text: None)
        model = models.get("size")
        told = model.told(["1"])
        assert told["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}]
        assert told["outputs"][0] == {"name": "predict", "datatype": "BYTES", "shape": [-1]}
        found = await model.infer({"input": x[-1:]}, {"input": "FP64"})
        assert found["predict"].tolist() == ["high"]
        found = await model.infer({"input": x}, {"input": "FP64"}, ["predict_proba"])
        assert found["predict_proba"].shape == (4, 2)
        with pytest.raises(BadRequest, match="failed: X has 1 features") as caught:
            await model.infer({"input": x[:, :1]}, {"input": "FP64"})
        assert caught.value.status == 500
        await models.close()

    asyncio.run(main())
    assert "is a pickle: loading it runs whatever code its maker put into it" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.safetensors", "holds weights without a program; export the model"),
        ("a.bin", "holds weights without a program"),
        ("a.txt", r"is no model that is known here; there are \.onnx"),
    ],
)
def test_a_file_that_is_no_model(name: str, text: str) -> None:
    with pytest.raises(LoadError, match=text):
        engine_of(Path(name))


def test_a_file_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "broken.joblib").write_bytes(b"nothing")
    with pytest.raises(LoadError, match=r"broken\.joblib cannot be loaded"):
        load(tmp_path / "broken.joblib")
    with pytest.raises(LoadError, match="there is no file"):
        load(tmp_path / "none.onnx")
    with pytest.raises(LoadError, match="there is no model at"):
        found_files(str(tmp_path / "none.onnx"))


def test_a_folder_holds_models_and_versions(tmp_path: Path) -> None:
    for place in ("double/1", "double/10", "double/2", "words/1", "words/notes"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model.onnx").touch()
    found = [(name, version) for name, version, _ in found_files(str(tmp_path))]
    assert found == [("double", "1"), ("double", "2"), ("double", "10"), ("words", "1")]
    assert [name for name, _, _ in found_files(f"other={tmp_path / 'words'}")] == ["other"]
    models = Models()
    models.known["m"] = dict.fromkeys(("1", "2", "10"))  # type: ignore[arg-type]
    assert max(models.known["m"], key=int) == "10"


def test_a_port_that_is_taken_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from argosy.inference.__main__ import main

    (tmp_path / "none.txt").touch()
    assert main([str(tmp_path / "none.txt")]) == 1
    assert "error: " in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        joblib = pytest.importorskip("joblib")
        joblib.dump(Guess(), tmp_path / "one.joblib")
        assert main([str(tmp_path / "one.joblib"), "--port", str(taken.getsockname()[1])]) == 1
    assert "cannot be listened on" in capsys.readouterr().err
