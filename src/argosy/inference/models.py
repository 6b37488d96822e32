"""The models of one server: where their files are, their names and versions, and how one is asked."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from argosy.inference.batching import Arrays, Batcher, Limits
from argosy.inference.engines import KINDS, Engine, LoadError, load
from argosy.inference.figures import Figures
from argosy.inference.tensors import BadRequest

_ENDINGS = tuple(ending for _, _, endings in KINDS.values() for ending in endings)


def found_files(word: str) -> list[tuple[str, str, Path]]:
    """(name, version, file) for `[NAME=]PATH`: a file, a folder `VERSION/FILE`, or one of such folders.
    Raises LoadError."""
    name, given, text = word.partition("=")
    path = Path(text if given else word).expanduser()
    if path.is_file():
        return [(name if given else _stem(path), "1", path)]
    if not path.is_dir():
        raise LoadError(f"there is no model at {path}: write a file, or a folder with `NAME/VERSION/FILE`")
    found = _versions(name if given else path.resolve().name, path)
    if not found:
        folders = sorted(each for each in path.iterdir() if each.is_dir())
        found = [one for each in folders for one in _versions(each.name, each)]
    if not found:
        raise LoadError(f"no model is in {path}: files end with {', '.join(_ENDINGS)}")
    return found


def _stem(path: Path) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in path.stem) or "model"


def _versions(name: str, folder: Path) -> list[tuple[str, str, Path]]:
    files = _files(folder)
    if files:
        return [(name, "1", files[0])]
    numbered = [each for each in folder.iterdir() if each.is_dir() and each.name.isdecimal()]
    found = []
    for each in sorted(numbered, key=lambda one: int(one.name)):
        files = _files(each)
        if files:
            found.append((name, each.name, files[0]))
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in _ENDINGS and each.is_file())


class Model:
    """One version of one model, loaded."""

    def __init__(self, name: str, version: str, engine: Engine, limits: Limits) -> None:
        self.name, self.version, self.engine = name, version, engine
        self.figures = Figures(name, version)
        self.batcher = Batcher(engine, limits, self.figures)

    def told(self, versions: Sequence[str]) -> dict[str, Any]:
        """Its metadata as the protocol has it."""
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": self.engine.platform,
            "inputs": [each.told() for each in self.engine.inputs],
            "outputs": [each.told() for each in self.engine.outputs],
        }

    def check(self, inputs: Arrays, datatypes: dict[str, str], wanted: Sequence[str]) -> None:
        """Raises BadRequest when that is not what the model takes and gives."""
        if not inputs:
            raise BadRequest("the request has no inputs")
        if not self.engine.strict:
            count = len(self.engine.inputs)
            if len(inputs) != count:
                raise BadRequest(f"the request has {len(inputs)} inputs, the model takes {count}")
        else:
            specs = {each.name: each for each in self.engine.inputs}
            _same("input", set(inputs), set(specs))
            for name, spec in specs.items():
                spec.check(inputs[name], datatypes[name])
        known = [each.name for each in self.engine.outputs]
        for name in wanted:
            if name not in known and not self.engine.platform.startswith("pytorch"):
                raise BadRequest(f"there is no output `{name}`; there are {', '.join(known)}")

    async def infer(self, inputs: Arrays, datatypes: dict[str, str], wanted: Sequence[str] = ()) -> Arrays:
        """Outputs by name. Raises BadRequest; with status 500 when the model itself fails."""
        try:
            self.check(inputs, datatypes, wanted)
            found = await self.batcher.infer(inputs, wanted)
        except BadRequest as error:
            self.figures.answered(error.status)
            raise
        except Exception as error:  # libraries raise what they like
            self.figures.answered(500)
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise BadRequest(f"model `{self.name}` failed: {text[0][:500]}", 500) from None
        self.figures.answered(200)
        return found


def _same(what: str, given: set[str], known: set[str]) -> None:
    for name in sorted(given - known):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(sorted(known))}"
        raise BadRequest(f"there is no {what} `{name}`; {hint}")
    for name in sorted(known - given):
        raise BadRequest(f"{what} `{name}` is missing")


class Models:
    """All models of a server, by name and version."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Model]] = {}

    def add(self, model: Model) -> None:
        versions = self.known.setdefault(model.name, {})
        if model.version in versions:
            raise LoadError(f"two models are called `{model.name}`: write NAME=PATH for one of them")
        versions[model.version] = model

    def all(self) -> list[Model]:
        return [each for versions in self.known.values() for each in versions.values()]

    def get(self, name: str, version: str = "") -> Model:
        """The newest version unless one is named. Raises BadRequest (404)."""
        versions = self.known.get(name)
        if versions is None:
            near = difflib.get_close_matches(name, self.known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(sorted(self.known))}"
            raise BadRequest(f"there is no model `{name}`; {hint}", 404)
        if version and version not in versions:
            raise BadRequest(
                f"model `{name}` has no version `{version}`; there are {', '.join(versions)}", 404
            )
        return versions[version or max(versions, key=int)]

    def only(self, name: str = "") -> Model:
        """The one for interfaces that name none. Raises BadRequest."""
        if name:
            return self.get(name)
        if len(self.known) != 1:
            raise BadRequest(f"several models are here, name one: {', '.join(sorted(self.known))}")
        return self.get(next(iter(self.known)))

    async def close(self) -> None:
        for model in self.all():
            await model.batcher.close()


def load_all(
    words: Sequence[str],
    limits: Limits,
    *,
    engine: str = "",
    threads: int = 0,
    trusted: Sequence[str] = (),
    say: Callable[[str], object] = sys.stdout.write,
) -> Models:
    """The models that the words of a command line name. Needs a running loop. Raises LoadError."""
    models = Models()
    for word in words:
        for name, version, path in found_files(word):
            loaded = load(path, engine, threads, trusted)
            try:
                loaded.warm()
            except Exception as error:  # a model may refuse zeros, and serve all the same
                say(f"model {name}: not warmed up: {str(error).splitlines()[:1]}\n")
            models.add(Model(name, version, loaded, limits))
            say(f"model {name} version {version}: {loaded.platform}, {path}\n")
    return models
