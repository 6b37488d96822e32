"""A git repository as a workdir: fetched here, with the user's own keys, and sent like any folder.

So nodes need neither git, nor a network, nor credentials of the repository.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from argosy.model.errors import ArgosyError
from argosy.model.task import GitSource

_ALL_REFS: Final = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")


def checkout(source: GitSource, folder: Path, env: Mapping[str, str]) -> Path:
    """The files of `source` at its ref, in a folder below `folder` that is kept for the next time.

    Only what is needed is fetched, where the other side allows it. Errors: "workdir-missing".
    """
    name = hashlib.sha256(source.url.encode()).hexdigest()[:16]
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two launches of one repository come one after the other
        git = _Git(source, target, env)
        if not (target / ".git").is_dir():
            git.run("init", "--quiet")
        wanted = source.ref or "HEAD"
        if git.tried("fetch", "--quiet", "--depth=1", "origin", wanted):
            git.run("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
        else:  # an abbreviated commit, or a server that gives branches and tags only
            shallow = ["--unshallow"] if (target / ".git" / "shallow").exists() else []
            git.run("fetch", "--quiet", *shallow, "origin", *_ALL_REFS)
            git.run("checkout", "--quiet", "--force", "--detach", wanted)
        git.run("clean", "--quiet", "-ffdx")
        if (target / ".gitmodules").exists():
            git.run("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    return target


def without_credentials(source: GitSource) -> GitSource:
    """The source as others may see it.

    >>> without_credentials(GitSource(url="https://user:t0ken@example.com/x.git")).url
    'https://example.com/x.git'
    """
    return GitSource(url=re.sub(r"(?<=://)[^/@]*@", "", source.url), ref=source.ref)


class _Git:
    """Runs git in one folder. The address may hold a token: the environment carries it, no argument does."""

    def __init__(self, source: GitSource, folder: Path, env: Mapping[str, str]) -> None:
        self._source, self._folder = source, folder
        self._env = {
            **env,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "remote.origin.url",
            "GIT_CONFIG_VALUE_0": os.path.expanduser(source.url),  # noqa: PTH111  an address, not a path
        }

    def tried(self, *words: str) -> bool:
        return self._call(*words).returncode == 0

    def run(self, *words: str) -> None:
        done = self._call(*words)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            why = (said[-1] if said else f"git ended with {done.returncode}").replace(
                self._source.url, "the repository"
            )
            ref = f" at `{self._source.ref}`" if self._source.ref else ""
            raise ArgosyError(
                "workdir-missing",
                f"the git repository of `workdir`{ref} cannot be fetched: {why}",
                hint="check the address and the ref; `git ls-remote ADDRESS` must work in this shell",
            )

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["git", "-C", str(self._folder), *words],
                env=self._env,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise ArgosyError(
                "workdir-missing",
                "`workdir` is a git repository, and there is no `git` here to fetch it",
                hint="install git, or clone the repository and write `workdir: FOLDER`",
            ) from None
