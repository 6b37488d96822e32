"""A git repository as a workdir: real repositories, fetched by the client and sent as a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from argosy.api.location import Location
from argosy.client.client import Client
from argosy.client.repository import checkout
from argosy.model.errors import ArgosyError
from argosy.model.task import GitSource, Task
from argosy.testing.fake_server import FakeServer

ENV = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"} | {
    "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *words], env=ENV, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits on `main`; the first has the tag v1."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "-b", "main")
    for name in ("first", "second"):
        (folder / name).write_text(name)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", name)
        if name == "first":
            git(folder, "tag", "v1")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".git")


def test_a_ref_is_a_branch_a_tag_or_a_commit(repository: Path, tmp_path: Path) -> None:
    cache, url = tmp_path / "cache", f"file://{repository}"
    first = git(repository, "rev-parse", "v1")
    assert files(checkout(GitSource(url=url), cache, ENV)) == ["first", "second"]
    assert files(checkout(GitSource(url=url, ref="v1"), cache, ENV)) == ["first"]
    assert files(checkout(GitSource(url=url, ref="main"), cache, ENV)) == ["first", "second"]
    assert files(checkout(GitSource(url=url, ref=first), cache, ENV)) == ["first"]
    assert files(checkout(GitSource(url=url, ref=first[:9]), cache, ENV)) == ["first"]


def test_what_is_new_there_is_fetched_and_what_is_gone_goes(repository: Path, tmp_path: Path) -> None:
    cache, source = tmp_path / "cache", GitSource(url=f"file://{repository}", ref="main")
    (checkout(source, cache, ENV) / "left-over").write_text("x")
    git(repository, "mv", "second", "third")
    git(repository, "commit", "--quiet", "-m", "moved")
    assert files(checkout(source, cache, ENV)) == ["first", "third"]


@pytest.mark.parametrize(("url", "ref"), [("file:///nowhere/at/all", None), ("", "no-such-branch")])
def test_what_cannot_be_fetched_is_told_without_the_address(
    repository: Path, tmp_path: Path, url: str, ref: str | None
) -> None:
    with pytest.raises(ArgosyError) as caught:
        checkout(GitSource(url=url or f"file://{repository}", ref=ref), tmp_path / "cache", ENV)
    assert caught.value.code == "workdir-missing"
    assert str(repository) not in str(caught.value) and "nowhere" not in caught.value.what


def test_the_files_of_the_ref_are_sent_and_no_token_is(
    repository: Path, tmp_path: Path, server: FakeServer, short_dir: Path
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "file://{repository}"]\n  insteadOf = https://u:t0ken@git.test/x\n')
    env = {**ENV, "GIT_CONFIG_GLOBAL": str(config), "HOME": str(short_dir)}
    with Client(Location(server.socket, home=short_dir / "home"), env=env) as client:
        task = Task(workdir_git=GitSource(url="https://u:t0ken@git.test/x", ref="v1"), run="ls")
        sent = client.send_files(task, cwd=tmp_path)
    assert sent.files == 1
    assert sent.task.workdir_tree
    assert sent.task.workdir_git == GitSource(url="https://git.test/x", ref="v1")
