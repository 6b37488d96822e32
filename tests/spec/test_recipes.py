"""Recipes: models without a task file."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from argosy.controllers.service.replicas import _PORTS
from argosy.model.errors import ArgosyError
from argosy.spec import task_from_mapping
from argosy.spec.recipes import recipe_for, recipes, task_of_recipe
from argosy.testing.ports import free_ports


@pytest.mark.parametrize("runtime", recipes())
def test_every_recipe_is_a_task_that_serves(runtime: str) -> None:
    [task] = task_from_mapping(task_of_recipe("acme/Some-Model", runtime), where="recipe").tasks
    assert task.service is not None and task.service.probe.path.startswith("/")
    assert '"$ARGOSY_SERVICE_PORT"' in task.run and "acme/Some-Model" in task.run
    assert "MODEL" not in task.run.replace("MLSERVER_MODEL", "") and task.name == "some-model"


@pytest.mark.parametrize(
    ("model", "runtime"),
    [
        ("Qwen/Qwen3-8B", "vllm"),
        ("./a/b.onnx", "argosy"),
        ("m.joblib", "argosy"),
        ("m.skops", "argosy"),
        ("m.xml", "argosy"),
        ("m.pt2", "argosy"),
        ("x.mar", "torchserve"),
    ],
)
def test_a_model_finds_its_runtime(model: str, runtime: str) -> None:
    assert recipe_for(model)[0] == runtime


def test_a_name_with_spaces_stays_one_word() -> None:
    assert "'./my model.onnx'" in str(task_of_recipe("./my model.onnx")["run"])


@pytest.mark.parametrize(
    ("model", "runtime", "text", "hint"),
    [
        ("a/b", "vlm", "there is no runtime `vlm`", "did you mean `vllm`?"),
        ("model.bin", "", "nothing says which runtime serves `model.bin`", "--runtime NAME"),
        ("model.onx", "", "nothing says which runtime", "did you mean a `.onnx` file? `--runtime argosy`"),
    ],
)
def test_what_is_not_known_is_told_with_the_nearest(model: str, runtime: str, text: str, hint: str) -> None:
    with pytest.raises(ArgosyError, match=text) as caught:
        recipe_for(model, runtime)
    assert hint in caught.value.hint


def test_a_file_of_this_machine_goes_along() -> None:
    task = task_of_recipe("/data/my model.onnx", is_here=True)
    assert task["file_mounts"] == {"~/model/my model.onnx": "/data/my model.onnx"}
    assert str(task["run"]).endswith(""" "$HOME"/model/'my model.onnx'""")
    ir = task_of_recipe("/data/net.xml", is_here=True)["file_mounts"]
    assert ir == {"~/model/net.xml": "/data/net.xml", "~/model/net.bin": "/data/net.bin"}


def test_no_port_of_a_replica_is_one_that_kernels_give_to_connections() -> None:
    """Figures on a port so far above the service's were found taken by somebody's connection."""
    first_of_the_kernel = 32_768  # Linux: net.ipv4.ip_local_port_range
    for name, recipe in recipes().items():
        added = re.findall(r"PORT \+ (\d+)", recipe.run) + re.findall(r":\+(\d+)", recipe.metrics)
        assert all(_PORTS.stop + int(more) <= first_of_the_kernel for more in added), name
        assert all(_PORTS.start + int(more) >= _PORTS.stop for more in added), f"{name}: another replica's"


#: Where requests to a model go, by protocol.
PATHS = {
    "openai": "/v1/chat/completions",
    "open-inference": "/v2/models/model/infer",
    "tf-serving": "/v1/models/model:predict",
    "torchserve": "/predictions/model",
    "sagemaker": "/invocations",
    "vertex": "/predict",
}
STUB = Path(__file__).with_name("stub_runtimes.py")
PROGRAMS = ("vllm", "tritonserver", "tensorflow_model_server", "ovms", "torchserve", "mlserver", "pip")


@pytest.mark.process
@pytest.mark.parametrize("runtime", [each for each in recipes() if each not in ("argosy", "onnxruntime")])
def test_a_recipe_starts_its_runtime_where_it_is_probed(runtime: str, tmp_path: Path) -> None:
    """Each stub takes the flags and variables that the runtime documents, no others, and answers where that
    one would: the probe and the figures of the recipe are found there."""
    recipe, port = recipes()[runtime], free_ports(3)[0]
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in (*PROGRAMS, "python3"):
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {STUB} {name} "$@"\n')
        (tools / name).chmod(0o755)
    model = tmp_path / "model" / "a model"
    model.parent.mkdir()
    if runtime in ("sagemaker", "vertex"):
        start = f'exec {shlex.quote(sys.executable)} {STUB} {runtime} "$@"'
        model.write_text(f'#!/bin/sh\nexport STUB_MODEL="$0"\n{start}\n')
        model.chmod(0o755)
    else:
        model.touch()
    task = task_of_recipe(str(model), runtime)
    env = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path), "ARGOSY_SERVICE_PORT": str(port)}
    if task.get("setup"):
        done = subprocess.run(["bash", "-ec", str(task["setup"])], env=env, cwd=tmp_path, capture_output=True)
        assert done.returncode == 0 and b"pip" not in done.stdout, "what is installed is not installed again"
    process = subprocess.Popen(
        ["bash", "-c", str(task["run"])], env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == f"model {model}\n", said
        assert _get(port, recipe.probe) == 200
        if recipe.metrics:
            more, path = re.fullmatch(r"(?::\+(\d+))?(/.*)", recipe.metrics).groups()  # type: ignore[union-attr]
            assert _get(port + int(more or 0), path) == 200
        assert _get(port, PATHS[recipe.protocol], b"{}") == 200, "it speaks what the recipe says"
        assert _get(port, "/elsewhere", b"{}") == 404
    finally:
        process.kill()
        process.wait()


def _get(port: int, path: str, body: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=90) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
