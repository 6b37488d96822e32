"""Checkpoints of the fake server: one job's copy of two files, in memory."""

from __future__ import annotations

import hashlib
from typing import Final

from argosy.api.checkpoints import CheckpointFiles, CheckpointList, CheckpointView
from argosy.api.endpoint import Done
from argosy.model.errors import ArgosyError
from argosy.model.tree import Entry, Tree
from argosy.testing.shared_answers import STARTED_MS

_DATA: Final = (b"weights", b"7")
_CHUNKS: Final = {hashlib.sha256(data).hexdigest(): data for data in _DATA}
TREE: Final = Tree(
    entries=(
        Entry(path="latest", kind="l", target="model"),
        Entry(path="model", kind="d", mode=0o755),
        *(
            Entry(path=f"model/{name}", kind="f", size=len(data), chunks=(digest,))
            for name, (digest, data) in zip(("state", "step"), _CHUNKS.items(), strict=True)
        ),
        Entry(path="out", kind="l", target="/etc/passwd"),
    )
)


class FakeCheckpoints:
    def __init__(self) -> None:
        self.ids = ["9f2c1a000000", "77aa00000000"]

    def answer(self, endpoint: str, path: dict[str, str]) -> object:
        """None: no endpoint of these."""
        match endpoint:
            case "checkpoints":
                rows = tuple(
                    CheckpointView(id=id, at_ms=STARTED_MS, files=2, size_bytes=8, newest=not index)
                    for index, id in enumerate(self.ids)
                )
                return CheckpointList(job=path["job"], checkpoints=rows, keep_last=2, keep_every_s=0)
            case "checkpoint_files":
                return CheckpointFiles(tree=TREE)
            case "remove_checkpoint":
                name = path["checkpoint"]
                gone = [id for id in self.ids if name == "all" or id.startswith(name)]
                if not gone:
                    raise ArgosyError("not-found", f"job 1 has no checkpoint `{name}`")
                self.ids = [id for id in self.ids if id not in gone]
                return Done(names=tuple(gone))
        return None

    @staticmethod
    def chunk(digest: str) -> bytes:
        return _CHUNKS[digest]
