"""Targets outside of a node's home: absolute paths of `file_mounts`, which all nodes of a machine share.

One file remembers them for the machine. A path belongs to the nodes that want the same files there; it may be
taken over when they are gone. Intent first: who uses a path is written before anything appears there.
"""

from __future__ import annotations

import fcntl
import json
import os
import posixpath
from contextlib import contextmanager

from argosy.agent.orders import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol, TypedDict

    class Entry(Protocol):
        path: str
        kind: str
        mode: int
        chunks: list[str]
        target: str

    class Claim(TypedDict):
        top: str  # the topmost folder that was made for it
        content: str
        users: dict[str, str]  # a node's root -> which folder that was


class Outside:
    """The machine's book of such paths, as the node at `root` sees it."""

    def __init__(self, root: str) -> None:
        self._root = root
        home = os.environ.get("HOME") or "/"
        self.folder = os.environ.get("ARGOSY_PLACED_DIR") or home + "/.local/state/argosy/placed"
        self._book = self.folder + "/book"

    def records(self) -> list[str]:
        """Files that say what lies at each path."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        return [self.folder + "/" + name for name in names if name.endswith(".json")]

    @contextmanager
    def claimed(self, path: str, content: str, top_to_make: Callable[[], str]) -> Iterator[None]:
        """Nobody else changes such paths meanwhile, and `path` is ours to fill with this content, which other
        nodes of the machine have to want, too. Raises Refused."""
        with self._locked() as claims:
            claim = claims.get(path)
            others = [user for user in claim["users"] if user != self._root] if claim else []
            if claim is not None and others and claim["content"] != content:
                raise Refused(
                    "target",
                    "`%s` holds other files for another node of this machine (%s); choose a target below `~`"
                    % (path, others[0]),
                )
            if claim is None:
                tops = [other["top"] for other in claims.values() if is_below(path, other["top"])]
                claim = claims[path] = {"top": tops[0] if tops else top_to_make(), "content": "", "users": {}}
            claim["content"] = content
            claim["users"][self._root] = _identity(self._root)
            self._save(claims)
            yield

    @contextmanager
    def given_up(self) -> Iterator[list[str]]:
        """The paths that nobody uses when this node is gone, for the caller to empty. What remains there is
        remembered as ours to fill again."""
        if not os.path.isdir(self.folder):
            yield []
            return
        with self._locked() as claims:
            for claim in claims.values():
                claim["users"].pop(self._root, None)
            unused = [path for path, claim in claims.items() if not claim["users"]]
            yield unused
            for path in unused:
                _remove_empty(path, claims[path]["top"])
                if not os.path.lexists(path):
                    del claims[path]
            self._save(claims)

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Claim]]:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        lock = os.open(self.folder + "/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                with open(self._book, encoding="utf-8") as file:
                    claims: dict[str, Claim] = json.load(file)
            except (OSError, ValueError):
                claims = {}
            for claim in claims.values():  # whose folder is gone uses nothing any more
                claim["users"] = {
                    root: which for root, which in claim["users"].items() if _identity(root) == which
                }
            yield claims
        finally:
            os.close(lock)

    def _save(self, claims: dict[str, Claim]) -> None:
        write_json(self._book, claims)


def _remove_empty(place: str, top: str) -> None:
    """The folder and those above it up to `top`, as far as they are empty."""
    while is_below(place, top):
        try:
            os.rmdir(place)
        except FileNotFoundError:
            pass
        except OSError:
            return
        place = posixpath.dirname(place)


def _identity(root: str) -> str:
    try:
        info = os.stat(root)
    except OSError:
        return ""
    return "%x-%x" % (info.st_dev, info.st_ino)


def content_of(entries: Sequence[Entry]) -> str:
    """A digest of a tree."""
    import hashlib

    text = json.dumps([[one.path, one.kind, one.mode, one.chunks, one.target] for one in entries])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def write_json(path: str, value: object) -> None:
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(value))  # `dump` is many times slower
    os.replace(temporary, path)
