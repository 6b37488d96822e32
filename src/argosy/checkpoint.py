"""Checkpoints of a program: saved whole or not at all, resumed from the newest that is complete.

    from argosy.checkpoint import Checkpoints

    with Checkpoints(every_steps=100) as checkpoints:
        saved = checkpoints.resume()
        step, state = (saved.step, saved.load()) if saved else (0, {"weights": [0.0]})
        while step < 1000 and not checkpoints.stopping:
            step += 1
            ...
            if checkpoints.due(step):
                checkpoints.save(step, state)

They lie in `ARGOSY_CHECKPOINT_DIR`, which Argosy keeps outside of the node for managed jobs; without it in
the folder `checkpoints`. Standard library only: this one file runs alone, on Python 3.8 and later, wherever
it is copied. `torch` and `safetensors` are used when they are asked for, or when `torch` is loaded already.

    step-000000100/rank-00000-of-00001/state.pt      what one rank saved, in place by one rename
                                      /about.json    what it said of it

A step is complete when the folders of all ranks are there. `save` returns when the operating system has all
bytes; bringing them to the disk, the rename and the removal of old steps happen in a thread, which the next
`save`, `wait` and the end of the `with` block wait for.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

    #: From the steps that this rank has to the one that all ranks have; None: there is none.
    Agree = Callable[[Sequence[int]], "int | None"]

__all__ = ["Checkpoints", "Saved"]

_STEP = re.compile(r"step-(\d+)")
_RANK = re.compile(r"rank-(\d+)-of-(\d+)")
_FILES = {
    "torch": "state.pt",
    "safetensors": "state.safetensors",
    "json": "state.json",
    "pickle": "state.pkl",
}


class Saved(NamedTuple):
    """One complete checkpoint."""

    step: int
    folder: Path  # of this rank
    shards: tuple[Path, ...]  # the folders of all ranks that saved it, in their order
    about: Mapping[str, Any]  # what was said at `save`, and `saved_at` in seconds since 1970

    def load(self, **options: Any) -> Any:
        """The state as it was given to `save`; None where a program wrote files of its own. `options` go to
        `torch.load` (such as `map_location="cpu"`) or to safetensors (such as `device="cpu"`).

        A pickled state runs code when it is loaded: load only what you have saved yourself.
        """
        for kind, name in _FILES.items():
            path = self.folder / name
            if path.exists():
                return _read(kind, path, options)
        return None


class Checkpoints:
    """Checkpoints in one folder.

    Args:
        folder: where they lie; None: ARGOSY_CHECKPOINT_DIR, or `checkpoints`.
        keep_last: so many of the newest stay. With several ranks at least two, because a rank may be one step
            ahead of another when the machine goes.
        keep_every: steps that are multiples of it stay for ever; 0: none does.
        every_steps, every_s: when `due` says so; 0: not for this reason.
        sharded: each rank saves its own part. Otherwise rank 0 alone saves, for all.
        rank: which rank this is, and of how many: `(0, 8)`. None: as RANK and WORLD_SIZE say (torchrun sets
            them), else ARGOSY_NODE_RANK and ARGOSY_NUM_NODES.
        format: "torch", "safetensors", "json" or "pickle"; "auto": torch where it is loaded, else pickle.

    In the main thread SIGTERM sets `stopping` while a `with` block runs; a handler that was there is called,
    too.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        keep_last: int = 3,
        keep_every: int = 0,
        every_steps: int = 0,
        every_s: float = 0.0,
        sharded: bool = False,
        rank: tuple[int, int] | None = None,
        format: str = "auto",
    ) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}: at least the newest checkpoint stays")
        if format not in ("auto", *_FILES):
            raise ValueError(f"format is {format!r}: one of auto, {', '.join(_FILES)}")
        self.folder = Path(folder or os.environ.get("ARGOSY_CHECKPOINT_DIR") or "checkpoints").expanduser()
        self.rank, self.world = rank or (
            _number("RANK", "ARGOSY_NODE_RANK", 0),
            _number("WORLD_SIZE", "ARGOSY_NUM_NODES", 1),
        )
        if not 0 <= self.rank < max(1, self.world):
            raise ValueError(f"rank {self.rank} of {self.world}: ranks count from 0")
        self.stopping = False  # SIGTERM came: save, and end
        self._sharded = sharded and self.world > 1
        self._keep_last = max(keep_last, 2) if self._sharded else keep_last
        self._keep_every = keep_every
        self._every_steps, self._every_s = every_steps, every_s
        self._format = format
        self._saved_s = time.monotonic()
        self._working: threading.Thread | None = None
        self._failure: OSError | None = None
        self._before: Any = None  # the handler of SIGTERM that was there

    # ---- the block

    def __enter__(self) -> Checkpoints:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._told)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None
        try:
            self.wait()
        except OSError:
            if error is None:
                raise

    def _told(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        if callable(self._before):
            self._before(number, frame)

    # ---- saving

    def due(self, step: int) -> bool:
        """Whether to save now: as `every_steps` or `every_s` say, or because the program is to end."""
        return (
            self.stopping
            or (self._every_steps > 0 and step % self._every_steps == 0)
            or (self._every_s > 0 and time.monotonic() - self._saved_s >= self._every_s)
        )

    def save(
        self, step: int, state: Any, *, about: Mapping[str, Any] | None = None, wait: bool = False
    ) -> None:
        """Save `state` as this step. It may change again when this returns. `wait`: only when it is on the
        disk, too. Raises OSError, also for the one before that could not be finished, and what the format
        raises for a state that it cannot hold; then nothing of it appears."""
        kind = self._format
        if kind == "auto":
            kind = "torch" if "torch" in sys.modules else "pickle"
        with self.writing(step, about=about) as folder:
            if folder is not None:
                _write(kind, folder / _FILES[kind], state)
        if wait:
            self.wait()

    @contextmanager
    def writing(self, step: int, *, about: Mapping[str, Any] | None = None) -> Iterator[Path | None]:
        """An empty folder for files of your own (`model.save_pretrained(folder)`), which becomes the
        checkpoint of this step when the block ends well. None on ranks that save nothing."""
        self.wait()
        if self.rank > 0 and not self._sharded:
            yield None
            return
        world = self.world if self._sharded else 1
        name = f"rank-{self.rank:05d}-of-{world:05d}"
        place = self.folder / f"step-{step:09d}"
        draft = place / f".{name}.{os.getpid()}.tmp"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            text = json.dumps({**(about or {}), "step": step, "saved_at": time.time()})
            (draft / "about.json").write_text(text, encoding="utf-8")
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            _remove_if_empty(place)
            raise
        self._saved_s = time.monotonic()
        # Not a daemon: a program that ends right now still gets its checkpoint.
        self._working = threading.Thread(target=self._finish, args=(draft, place / name))
        self._working.start()

    def wait(self) -> None:
        """Until the last checkpoint is in its place and on the disk. Raises OSError when it cannot be."""
        working, self._working = self._working, None
        if working is not None:
            working.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _finish(self, draft: Path, target: Path) -> None:
        try:
            _to_disk(draft)
            aside = target.with_name(f".{target.name}.old.tmp")
            if target.exists():  # this step is saved again
                shutil.rmtree(aside, ignore_errors=True)
                target.rename(aside)
            draft.rename(target)
            _sync(target.parent)
            _sync(target.parent.parent)
            shutil.rmtree(aside, ignore_errors=True)
            self._prune()
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            self._failure = error

    def _prune(self) -> None:
        """Remove what this rank saved and is not to stay, and what was never finished before the newest."""
        name = re.compile(rf"\.?rank-{self.rank:05d}-of-\d+.*")
        mine = sorted(step for step, place in self._places() if _shard_of(place, self.rank))
        stay = set(mine[-self._keep_last :])
        for step, place in self._places():
            kept_for_ever = self._keep_every > 0 and step % self._keep_every == 0
            if step in stay or kept_for_ever or step > mine[-1]:
                continue
            for each in place.iterdir():
                if name.fullmatch(each.name) or not self._sharded:
                    shutil.rmtree(each, ignore_errors=True)
            _remove_if_empty(place)

    # ---- resuming

    def steps(self) -> list[int]:
        """Steps that are complete, the newest last."""
        return [step for step, place in self._places() if _complete(place)]

    def resume(self, step: int | None = None, *, agree: Agree | None = None) -> Saved | None:
        """The newest complete checkpoint, or that of `step`; None: there is none, begin from the start.

        Where each rank saves on a disk of its own, and goes on there without having lost its machine, it sees
        only its own part. Then `agree` says which step all ranks have, from those that this one has. With
        torch: gather the lists by `all_gather_object`, and take the largest number that is in all of them.
        """
        places = dict(self._places())
        if agree is not None:
            step = agree([each for each, place in places.items() if _shard_of(place, self.rank)])
            if step is None:
                return None
            own = _shard_of(places[step], self.rank)
            return _saved(step, own, (own,)) if own is not None else None
        wanted = [step] if step is not None else sorted(places, reverse=True)
        for each in wanted:
            shards = _complete(places[each]) if each in places else ()
            if shards:
                own = shards[self.rank] if len(shards) == self.world else shards[0]
                if len(shards) not in (1, self.world):
                    raise ValueError(
                        f"step {each} was saved by {len(shards)} ranks and this is one of {self.world}: "
                        f"read its `shards` (resume with rank=(0, {len(shards)})) and divide them anew"
                    )
                return _saved(each, own, shards)
        return None

    def _places(self) -> list[tuple[int, Path]]:
        try:
            found = [(_STEP.fullmatch(each.name), each) for each in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted((int(match.group(1)), place) for match, place in found if match)


def _number(first: str, second: str, otherwise: int) -> int:
    return int(os.environ.get(first) or os.environ.get(second) or otherwise)


def _shards(place: Path) -> dict[int, dict[int, Path]]:
    """By how many ranks saved: rank -> folder."""
    found: dict[int, dict[int, Path]] = {}
    try:
        names = list(place.iterdir())
    except FileNotFoundError:  # another rank removes it
        return found
    for each in names:
        match = _RANK.fullmatch(each.name)
        if match and (each / "about.json").exists():
            found.setdefault(int(match.group(2)), {})[int(match.group(1))] = each
    return found


def _complete(place: Path) -> tuple[Path, ...]:
    """Folders of all ranks in their order; () when one is missing."""
    for world, ranks in _shards(place).items():
        if len(ranks) == world:
            return tuple(ranks[rank] for rank in range(world))
    return ()


def _shard_of(place: Path, rank: int) -> Path | None:
    """What this rank saved, or rank 0 for all of them."""
    shards = _shards(place)
    if 1 in shards:
        return shards[1][0]
    return next((ranks[rank] for ranks in shards.values() if rank in ranks), None)


def _saved(step: int, folder: Path, shards: tuple[Path, ...]) -> Saved:
    return Saved(step, folder, shards, json.loads((folder / "about.json").read_text(encoding="utf-8")))


def _write(kind: str, path: Path, state: Any) -> None:
    if kind == "torch":
        import torch

        torch.save(state, str(path))
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, str(path))
    elif kind == "json":
        path.write_text(json.dumps(state), encoding="utf-8")
    else:
        with path.open("wb") as file:
            pickle.dump(state, file, protocol=min(5, pickle.HIGHEST_PROTOCOL))


def _read(kind: str, path: Path, options: Mapping[str, Any]) -> Any:
    if kind == "torch":
        import torch

        return torch.load(str(path), **options)
    if kind == "safetensors":
        from safetensors.torch import load_file

        return load_file(str(path), **options)
    if kind == "json":
        return json.loads(path.read_text(encoding="utf-8"))
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301  what this program saved itself


def _to_disk(folder: Path) -> None:
    for above, _, names in os.walk(folder):
        for name in names:
            _sync(Path(above, name))
        _sync(Path(above))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_if_empty(place: Path) -> None:
    try:
        place.rmdir()
    except OSError:
        pass
