"""A session from the command line: OpenSSH into its sandbox with right bytes and exit codes, rest, and its
files again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e_house import PATIENCE_S, House

from argosy.agent import sandbox
from argosy.testing.listening import beyond_loopback

GOOD, GAPS = sandbox.levels()
needs_sandbox = pytest.mark.skipif("sandbox" not in GOOD, reason=GAPS.get("sandbox", ""))
needs_sshd = pytest.mark.skipif(
    not Path("/usr/sbin/sshd").exists() or not shutil.which("scp"),
    reason="OpenSSH's sshd or scp is not installed",
)


@needs_sandbox
@needs_sshd
def test_openssh_opens_a_session_and_its_files_stay(house: House, tmp_path: Path) -> None:
    person = tmp_path / "person"
    person.mkdir()
    name = house.name("ses")
    house.run("session", "start", "ssh", "--name", name)
    house.run("ssh-config", "--yes", env={"HOME": str(person)})
    host, options = f"{name}.argosy", ("-F", str(person / ".ssh" / "config"), "-o", "BatchMode=yes")

    def openssh(program: str, *words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *options, *words], env=house.env, input=stdin, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    everything = house.processes("")
    assert len(everything) > 1 and not beyond_loopback(everything), (
        "server, agent, app: none of them asked for"
    )
    try:
        done = openssh("ssh", host, "id -un; pwd; exit 3")
        assert (done.returncode, done.stdout.split()) == (3, ["work", "/home/work"]), done.stderr
        assert openssh("ssh", host, "bash", "-s", stdin="echo in; exit 5").returncode == 5
        blob = tmp_path / "blob"
        blob.write_bytes(os.urandom(1 << 20))
        for flags in ((), ("-O",)):
            assert openssh("scp", *flags, "-q", blob, f"{host}:blob{len(flags)}").returncode == 0
        assert openssh("scp", "-q", f"{host}:blob1", tmp_path / "back").returncode == 0
        assert (tmp_path / "back").read_bytes() == blob.read_bytes()
    finally:
        openssh("ssh", "-O", "exit", host)
    house.run("session", "stop", name)
    view = json.loads(house.run("session", "start", name, "--json").stdout)
    assert view["status"] == "running" and view["isolation"] == "sandbox"
    said = house.run("session", "open", name, "--", "cmp blob0 blob1 && ls .argosy")
    assert "ssh" in said.stdout
    house.run("session", "snapshot", name, "--name", f"{name}-s")
    house.run("session", "start", "terminal", "--name", f"{name}-t", "--from", f"{name}-s")
    said = house.run("session", "open", f"{name}-t", "--", "cmp blob0 blob1 && ls -a")
    assert "blob0" in said.stdout
    house.run("session", "end", "-y", name, f"{name}-t")
    kept = json.loads(house.run("session", "snapshots", "--json").stdout)["snapshots"]
    assert [(each["app"], each["session"]) for each in kept if each["name"] == f"{name}-s"] == [("ssh", name)]
    house.run("session", "snapshots", "--remove", f"{name}-s")
    assert f"{name}-s" not in house.run("session", "snapshots").stdout
