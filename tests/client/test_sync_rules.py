"""`sync: {include, exclude}`: what of local mounts is sent."""

from __future__ import annotations

from pathlib import Path

from argosy.client.client import Client
from argosy.model.task import FileMount, SyncRules, Task
from argosy.testing.fake_server import FakeServer


def test_only_what_the_rules_let_through_is_sent(server: FakeServer, client: Client, tmp_path: Path) -> None:
    for name in ("m/a.pt", "m/deep/b.pt", "m/deep/c.log", "m/empty/d.log", "m/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    rules = SyncRules(include=("*.pt", "*.log"), exclude=("*.log",))
    task = Task(run="ls", file_mounts=(FileMount(target="~/m", source="m"),), sync=rules)
    sent = client.send_files(task, cwd=tmp_path)
    digest = sent.task.file_mounts[0].tree
    assert digest is not None
    assert [entry.path for entry in server.trees[digest].entries] == ["a.pt", "deep", "deep/b.pt"]
    whole = client.send_files(Task(run="ls", file_mounts=task.file_mounts), cwd=tmp_path)
    assert whole.task.file_mounts[0].tree != digest
