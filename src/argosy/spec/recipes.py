"""Recipes: which runtime serves a model, and how it is started, probed and spoken to. The list is
`recipes.toml`."""

from __future__ import annotations

import re
import shlex
import tomllib
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files

import msgspec

from argosy.model.errors import ArgosyError

_PLACE = re.compile(r"(?<![A-Z_])(MODEL|PORT)(?![A-Z_])")
_PORT = '"$ARGOSY_SERVICE_PORT"'


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime."""

    title: str
    kinds: tuple[str, ...]  # patterns of names of models that it takes first
    setup: str
    run: str  # with MODEL and PORT
    probe: str
    metrics: str  # path for Prometheus; "": it has none
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
        near = get_close_matches(runtime.lower(), known, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
        raise ArgosyError("usage", f"there is no runtime `{runtime}`", hint=hint)
    for name, recipe in known.items():
        if any(fnmatch(model, kind) for kind in recipe.kinds if kind != "*/*"):
            return name, recipe
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return "vllm", known["vllm"]
    raise ArgosyError(
        "usage",
        f"nothing says which runtime serves `{model}`",
        hint=f"name one: `--runtime {next(iter(known))}`; there are {', '.join(known)}",
    )


def task_of_recipe(model: str, runtime: str = "") -> dict[str, object]:
    """A task as a file would say it. Errors: "usage"."""
    name, recipe = recipe_for(model, runtime)
    quoted = shlex.quote(model)
    filled = _PLACE.sub(lambda place: quoted if place[0] == "MODEL" else _PORT, recipe.run)
    stem = model.rstrip("/").rpartition("/")[2].partition(".")[0].lower()
    label = "".join(letter if letter.isalnum() else "-" for letter in stem).strip("-") or name
    task: dict[str, object] = {
        "name": label,
        "run": filled,
        "service": {
            "readiness_probe": {"path": recipe.probe, "initial_delay_seconds": recipe.start_s},
            "replicas": 1,
        },
    }
    return {**task, "setup": recipe.setup} if recipe.setup else task
