"""Recipes: models without a task file."""

from __future__ import annotations

import pytest

from argosy.model.errors import ArgosyError
from argosy.spec import task_from_mapping
from argosy.spec.recipes import recipe_for, recipes, task_of_recipe


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
        ("./a/b.onnx", "onnxruntime"),
        ("m.joblib", "mlserver"),
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
        ("model.bin", "", "nothing says which runtime serves `model.bin`", "--runtime vllm"),
    ],
)
def test_what_is_not_known_is_told_with_the_nearest(model: str, runtime: str, text: str, hint: str) -> None:
    with pytest.raises(ArgosyError, match=text) as caught:
        recipe_for(model, runtime)
    assert hint in caught.value.hint
