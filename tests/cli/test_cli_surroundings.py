"""What is wrong around a command is no bug: full or closed output, a home that takes nothing, ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine

from argosy.testing.fake_server import FakeServer


def shell(argosy: CommandLine, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`line` in a shell, with `argosy` as the command."""
    text = line.replace("argosy", f"{sys.executable} -m argosy.cli")
    given = {**os.environ, **argosy.env, **env}
    return subprocess.run(["sh", "-c", text], capture_output=True, text=True, env=given, check=False)


@pytest.mark.parametrize("command", ["status", "gpus", "status --json", "--help", "--version"])
def test_a_full_output_is_said(argosy: CommandLine, command: str) -> None:
    done = shell(argosy, f"argosy {command} > /dev/full")
    assert (done.returncode, done.stdout) == (8, "")
    assert (
        done.stderr.strip().endswith("free some space on the named disk, then repeat") or "--json" in command
    )
    assert "cannot write the output: No space left on device" in done.stderr
    assert "bug" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["status", "queue --json", "--help"])
def test_a_closed_output_is_nobodys_error(argosy: CommandLine, command: str) -> None:
    for end in (">&-", "<&-", ">&- <&-"):
        done = shell(argosy, f"argosy {command} {end}")
        assert (done.returncode, done.stderr) == (0, ""), end
    assert shell(argosy, f"argosy {command} 2>&- >&- <&-").returncode == 0


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null/x"])
def test_a_home_that_takes_nothing_is_named(argosy: CommandLine, home: str) -> None:
    for command in ("status", "server start", "server start --foreground", "server token"):
        done = shell(argosy, f"unset ARGOSY_SERVER; argosy {command}", HOME=home)
        assert done.returncode in (7, 8), done
        assert home in done.stderr and "bug" not in done.stderr and "hint: " in done.stderr, command


@pytest.mark.parametrize("amount", ["nan", "inf", "1e400", "1e300"])
def test_a_budget_is_an_amount(argosy: CommandLine, amount: str) -> None:
    done = argosy("budget", "set", "default", amount)
    assert done.status == 2 and f"`{amount}` is not an amount: write for example 500" in done.err
    assert argosy("quota", "set", "acme", "--weight", amount).status == 2


def test_a_port_that_is_taken_is_said(argosy: CommandLine, short_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home = short_dir / "home"
        line = f"unset ARGOSY_SERVER; argosy server start --listen 127.0.0.1:{port}"
        done = shell(argosy, line, HOME=str(home))
    assert done.returncode == 5
    assert done.stderr == (
        f"error: the local server did not start: port {port} of `127.0.0.1` is in use\n"
        "hint: choose another with `--listen HOST:PORT`, or stop what uses it\n"
    )


def test_prune_says_what_goes(argosy: CommandLine) -> None:
    assert argosy.good("server", "prune", "--days", "30") == (
        "Forgot 3 finished workloads, 40 events, the logs of 2 attempts (5 MB) and 1 uploaded file.\n"
        "The database gave back 1 MB.\n"
    )
    assert argosy.good("server", "prune", "--dry-run").startswith("Would forget 3 finished workloads, ")
    assert '"log_bytes": 5242880' in argosy.good("server", "prune", "--json")
    assert argosy("server", "prune", "--days", "0").status == 2


def test_a_place_for_files_that_is_none_is_told(argosy: CommandLine, server: FakeServer) -> None:
    server.folders.add("train", {"model": b"weights"})
    (argosy.folder / "got").write_text("mine")
    place = argosy.folder / "got"
    for words in (("train", "got", "-r"), ("train/model", "got/x")):
        done = argosy("folder", "download", *words)
        assert done.status == 2 and done.err.startswith(f"error: `{place}"), done
    assert place.read_text() == "mine"
