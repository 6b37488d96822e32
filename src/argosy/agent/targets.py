"""Where files of tasks appear on a node: which paths are allowed, and what was placed at each."""

from __future__ import annotations

import json
import os
import posixpath
import zlib

from argosy.agent.orders import Refused
from argosy.agent.outside import Outside, is_below


class Known:
    """What was placed at one target. `files`: path -> [size, mtime_ns, inode, chunks], which tells the files
    that are as we left them; `links`: path -> where it leads; `folders`: those that we may have made."""

    def __init__(self, path: str = "") -> None:
        data: dict[str, object] = {}
        try:
            if path:
                with open(path, encoding="utf-8") as file:
                    data = json.load(file)
        except (OSError, ValueError):
            pass
        self.base = str(data.get("base", ""))
        self.digest = str(data.get("digest", ""))
        self.token = str(data.get("token", ""))  # of this very state (`looks`)
        self.files: dict[str, list[object]] = data.get("files", {})  # type: ignore[assignment]
        self.links: dict[str, str] = data.get("links", {})  # type: ignore[assignment]
        self.folders: list[str] = data.get("folders", [])  # type: ignore[assignment]

    def is_intact(self) -> bool:
        """Nobody has changed or removed a file since."""
        prefix = self.base + "/"
        return all(
            is_as_recorded(prefix + path if path else self.base, record)
            for path, record in self.files.items()
        )


class Targets:
    """The paths of one node. `home`: where relative ones are; `placed`: where it is written down what lies
    at them."""

    def __init__(self, root: str, home: str, node_name: str) -> None:
        self.root = os.path.realpath(root)
        self.home = os.path.realpath(home)
        self._node_name = node_name
        self.placed = self.root + "/placed"
        self.outside = Outside(self.root)

    def resolve(self, target: str, is_link: bool = False) -> str:
        """The target's absolute path. Raises Refused for what may not be touched. `is_link`: what is placed
        is a link, so that one of an earlier time may be there."""
        if "\0" in target:
            raise Refused("target", "a target must not hold NUL")
        if ".." in target.split("/"):
            raise Refused("target", "`%s`: a target must not hold `..`; write the path without it" % target)
        if target == "~" or target.startswith("~/"):
            target = target[2:]
        elif target.startswith("~"):
            raise Refused("target", "`%s`: the homes of other users are not available; use `~/...`" % target)
        if not target.startswith("/"):
            path = posixpath.normpath(posixpath.join(self.home, target))
            self._refuse_links(posixpath.dirname(path) if is_link else path, target)
            return path
        path = posixpath.normpath("/" + target.lstrip("/"))
        path = posixpath.join(os.path.realpath(posixpath.dirname(path)), posixpath.basename(path))
        if is_below(path, self.home):
            self._refuse_links(posixpath.dirname(path) if is_link else path, target)
            return path
        if is_below(path, self.root) or is_below(self.root, path):
            raise Refused("target", "`%s` belongs to Argosy itself; choose a target below `~`" % target)
        return path

    def top_to_make(self, path: str, target: str) -> str:
        """The topmost folder that is missing for a path outside of the home. Raises Refused."""
        if os.path.lexists(path):
            raise Refused(
                "target",
                "`%s` exists on %s and was not made by Argosy; choose a new path, or one below `~`"
                % (target, self._node_name),
            )
        top = path
        while not os.path.lexists(posixpath.dirname(top)):
            top = posixpath.dirname(top)
        if not os.access(posixpath.dirname(top), os.W_OK | os.X_OK):
            raise Refused(
                "target",
                "`%s`: may not write in %s on %s; choose a target below `~`"
                % (target, posixpath.dirname(top), self._node_name),
            )
        return top

    def _refuse_links(self, path: str, target: str) -> None:
        """A link on the way from home to the target could lead anywhere."""
        place = self.home
        for part in posixpath.relpath(path, self.home).split("/"):
            place = posixpath.join(place, part)
            if os.path.islink(place):
                raise Refused(
                    "target",
                    "`%s`: %s is a symbolic link; choose a target that is not behind one" % (target, place),
                )

    def record_path(self, path: str) -> str:
        """Where it is written down what lies there."""
        folder = self.placed if is_below(path, self.home) else self.outside.folder
        return "%s/%08x-%d.json" % (folder, zlib.crc32(path.encode("utf-8", "replace")), len(path))


def stamp_of(info: os.stat_result) -> list[object]:
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def is_as_recorded(path: str, record: list[object]) -> bool:
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return stamp_of(info) == record[:3]
