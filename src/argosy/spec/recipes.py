"""Recipes: which runtime serves a model, and how it is started, probed and spoken to. The list is
`recipes.toml`."""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files

import msgspec

from argosy.model.errors import ArgosyError, near

_PLACE = re.compile(r"(?<![A-Z_])(MODEL|PORT)(?![A-Z_])")
_PORT = '"$ARGOSY_SERVICE_PORT"'


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime."""

    title: str
    kinds: tuple[str, ...]  # patterns of names of models that it takes first
    setup: str
    run: str  # with MODEL and PORT
    probe: str
    metrics: str  # path for Prometheus, `:+N` in front on a port so far above the service's; "": it has none
    protocol: str
    start_s: int  # so long it may take until it is ready
    accelerators: bool  # it is of no use without


@cache
def recipes() -> dict[str, Recipe]:
    """By name, in the order in which they are tried."""
    text = (files("argosy.spec") / "recipes.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Recipe])


def recipe_for(model: str, runtime: str = "") -> tuple[str, Recipe]:
    """The runtime of this name, else the first that takes such a model. Errors: "usage", with nearest
    names."""
    known = recipes()
    if runtime:
        if runtime in known:
            return runtime, known[runtime]
        found = near(runtime, known, cutoff=0.4)
        hint = f"did you mean `{found}`?" if found else f"there are {', '.join(known)}"
        raise ArgosyError("usage", f"there is no runtime `{runtime}`", hint=hint)
    for name, recipe in known.items():
        if any(fnmatch(model, kind) for kind in recipe.kinds if kind != "*/*"):
            return name, recipe
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return "vllm", known["vllm"]
    raise ArgosyError("usage", f"nothing says which runtime serves `{model}`", hint=_hint(model))


def _hint(model: str) -> str:
    """The nearest ending of a file, else all runtimes."""
    known = recipes()
    endings = {kind[1:]: name for name, each in known.items() for kind in each.kinds if kind.startswith("*.")}
    ending = "." + model.rpartition(".")[2]
    if found := near(ending, endings):
        return f"did you mean a `{found}` file? `--runtime {endings[found]}` serves those"
    return f"name one: `--runtime NAME`; there are {', '.join(known)}"


def task_of_recipe(model: str, runtime: str = "", *, is_here: bool = False) -> dict[str, object]:
    """A task as a file would say it. `is_here`: the model is a file or folder of this machine and goes
    along. Errors: "usage"."""
    name, recipe = recipe_for(model, runtime)
    file = model.rstrip("/").rpartition("/")[2]
    place = f'"$HOME"/model/{shlex.quote(file)}' if is_here else shlex.quote(model)
    stem = model.rstrip("/").rpartition("/")[2].partition(".")[0].lower()
    label = "".join(letter if letter.isalnum() else "-" for letter in stem).strip("-") or name
    task: dict[str, object] = {
        "name": label,
        "run": _filled(recipe.run, place),
        "service": {
            "readiness_probe": {"path": recipe.probe, "initial_delay_seconds": recipe.start_s},
            "replicas": 1,
            **({"model": model} if recipe.protocol == "openai" else {}),
        },
    }
    if is_here:
        task["file_mounts"] = {f"~/model/{file}": model}
        if file.endswith(".xml"):  # its weights are beside it
            task["file_mounts"] = {
                f"~/model/{file[:-4]}{end}": f"{model[:-4]}{end}" for end in (".xml", ".bin")
            }
    return {**task, "setup": _filled(recipe.setup, place)} if recipe.setup else task


def _filled(command: str, model: str) -> str:
    """With a word for the model, and the port, in their places. Within a sum the port has no quotes."""

    def fill(place: re.Match[str]) -> str:
        if place[0] == "MODEL":
            return model
        is_sum = place.string[max(0, place.start() - 3) : place.start()].endswith("((")
        return "ARGOSY_SERVICE_PORT" if is_sum else _PORT

    return _PLACE.sub(fill, command)
