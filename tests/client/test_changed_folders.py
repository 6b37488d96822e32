"""After a change only the folders that differ are scanned, and the server hears only what is new: by a model,
what it has then is what a scan of everything finds."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from argosy.client import sending
from argosy.client.client import Client
from argosy.client.files import scan
from argosy.model.task import Task
from argosy.testing.fake_server import FakeServer

STEPS = 50
NAMES = ("a.py", "b.log", "lib/c.py", "lib/deep/d.py", "lib/deep/e.log", "out/f", "é/g", "lib/h")


def until_times_differ(probe: Path) -> None:
    """File systems tell times in steps: what is written from now on has another one than what is there."""
    probe.touch()
    before_ns = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == before_ns:
        probe.touch()


def disturb(root: Path, dice: random.Random) -> None:
    """Somebody works in the folder."""
    until_times_differ(root.parent / "probe")
    path = root / dice.choice(NAMES)
    what = dice.choice(
        ("write", "write", "same", "mode", "link", "remove", "folder", "rules", "rename", "drop")
    )
    if what == "rules":
        place = root / dice.choice(("", "lib"))
        if place.is_dir():
            (place / ".gitignore").write_text(dice.choice(("*.log\n", "out/\n", "", "d.py\n")))
        return
    if what == "drop":
        shutil.rmtree(root / dice.choice(("lib", "lib/deep", "out")), ignore_errors=True)
        return
    if what in ("write", "link", "folder"):
        for above in path.relative_to(root).parents:
            if (root / above).is_symlink() or (root / above).is_file():
                return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or path.exists():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
    is_file = path.is_file() and not path.is_symlink()
    if what == "write":
        path.write_bytes(dice.randbytes(3))
    elif what == "link":
        path.symlink_to(dice.choice(("a.py", "../../outside")))
    elif what == "folder":
        path.mkdir()
    elif what == "same" and is_file:  # other bytes of the same size and time
        before = path.stat()
        path.write_bytes(dice.randbytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif what == "mode" and is_file:
        path.chmod(dice.choice((0o600, 0o755)))
    elif what == "remove" and is_file:
        path.unlink()
    elif what == "rename" and is_file:
        path.rename(path.with_name("renamed"))


@pytest.mark.parametrize("seed", [1, 2])
def test_by_a_model_a_change_makes_the_tree_that_a_scan_finds(
    server: FakeServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice, root = random.Random(seed), tmp_path / "w"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    ahead_ns = 0
    scans: list[Path] = []
    monkeypatch.setattr(
        sending, "scan", lambda path, **options: (scans.append(path), scan(path, **options))[1]
    )
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + ahead_ns)
    for step in range(STEPS):
        for _ in range(dice.randrange(3)):
            disturb(root, dice)
        ahead_ns = dice.choice((0, 10_000_000_000))  # what was just written is not trusted, or is
        sent = client.send_files(Task(workdir="w", run="x"), cwd=tmp_path)
        found = scan(root, now_ns=time.time_ns())
        assert sent.task.workdir_tree == found.tree.digest(), step
        assert sent.task.workdir_tree in server.trees
        assert sent.files == len(found.tree.entries)
        assert sorted(sent.warnings) == sorted(f"workdir: {each}" for each in found.warnings), step
    whole, changes = len(scans), len([each for each in server.requests if each.endpoint == "change_tree"])
    assert changes > whole


def test_one_change_is_told_in_short_requests(
    server: FakeServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 10_000_000_000)
    root = tmp_path / "w"
    for number in range(300):
        (root / f"{number % 9}").mkdir(parents=True, exist_ok=True)
        (root / f"{number % 9}/{number}").write_text(f"{number}")
    client.send_files(Task(workdir="w", run="x"), cwd=tmp_path)
    until_times_differ(tmp_path / "probe")
    (root / "3/3").write_text("other")
    begun = len(server.requests)
    sent = client.send_files(Task(workdir="w", run="x"), cwd=tmp_path)
    assert sent.sent_bytes == len("other")
    made = server.requests[begun:]
    assert [each.endpoint for each in made] == [
        "missing_chunks",
        "missing_chunks",
        "put_chunks",
        "change_tree",
    ]
    assert sent.files == 309


def test_where_the_server_lost_the_tree_all_of_it_is_sent(
    server: FakeServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 10_000_000_000)
    (tmp_path / "w").mkdir()
    (tmp_path / "w/a").write_text("1")
    first = client.send_files(Task(workdir="w", run="x"), cwd=tmp_path)
    (tmp_path / "w/a").write_text("2")
    del server.trees[first.task.workdir_tree or ""]
    second = client.send_files(Task(workdir="w", run="x"), cwd=tmp_path)
    assert second.task.workdir_tree in server.trees
