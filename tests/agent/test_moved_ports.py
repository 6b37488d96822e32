"""Programs with a fixed port, several on one machine: the agent gives each a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from argosy.agent import ports
from argosy.controllers.job.ports import port_of, with_ports
from argosy.model.kinds.job import ReplicaOf
from argosy.model.offer import Placement
from argosy.testing.builders import a_claim
from argosy.testing.ports import free_port

SOURCES = Path(ports.__file__).parents[2]
COMMAND = f"env PYTHONPATH={SOURCES} {sys.executable} -m argosy.agent"
BINDS = """
import socket, sys
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family) as one:
        one.bind((host, int(sys.argv[1])))
        print(one.getsockname()[1])
"""


def moves() -> bool:
    done = subprocess.run(
        [*COMMAND.split(), "ports", "1=2", "--", "true"], capture_output=True, text=True, check=False
    )
    return "moves no ports" not in done.stderr


needs_kernel = pytest.mark.skipif(
    sys.platform != "linux" or not moves(),
    reason="this kernel or container allows no notification of seccomp",
)


@needs_kernel
def test_a_port_is_another_for_the_program_and_all_that_it_starts(tmp_path: Path) -> None:
    own = free_port()
    (tmp_path / "binds.py").write_text(BINDS)
    script = f"{sys.executable} {tmp_path}/binds.py 8123; {sys.executable} {tmp_path}/binds.py 0; exit 7"
    words = [*COMMAND.split(), "ports", f"8123={own}", "--", "/bin/sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    first = done.stdout.split()
    assert done.returncode == 7 and first[:2] == [str(own)] * 2 and str(own) not in first[2:], done


@needs_kernel
def test_a_port_that_is_taken_is_an_error_as_ever() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        own = taken.getsockname()[1]
        program = "import socket; socket.socket().bind(('127.0.0.1', 8123))"
        words = [*COMMAND.split(), "ports", f"8123={own}", "--", sys.executable, "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Address already in use" in done.stderr


@pytest.mark.parametrize("agent", [COMMAND, ""], ids=["agent", "older agent"])
def test_the_text_of_a_replica_keeps_what_was_written(agent: str, tmp_path: Path) -> None:
    run = "echo \"it's $WHO\"\nprintf '%s\\n' 'a  b' >&2; exit 3"
    text = tmp_path / "run.sh"
    text.write_text(with_ports(run, ReplicaOf(service="a", revision=1, port=24007, written_port=8000), None))
    env = {"PATH": os.environ["PATH"], "WHO": "x  y", "ARGOSY_AGENT_COMMAND": agent}
    done = subprocess.run(["bash", str(text)], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "it's x  y\n") and "a  b\n" in done.stderr


def test_a_rented_machine_belongs_to_one_replica() -> None:
    replica = ReplicaOf(service="a", revision=1, port=24007, written_port=8000)
    rented = a_claim(placements=())
    owned = a_claim(placements=(Placement(rank=0, node_id="n"),))
    assert (port_of(replica, rented), port_of(replica, owned)) == (8000, 24007)
    assert with_ports("x", replica, rented) == "x" != with_ports("x", replica, owned)
    assert with_ports("x", ReplicaOf(service="a", revision=1, port=24007), owned) == "x"
