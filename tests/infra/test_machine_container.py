"""The start script of containers, run for real: sshd with keys that were known before."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from argosy.infra.machine_container import ARGS, container_env, labels_in
from argosy.infra.machine_keys import Keys
from argosy.infra.machine_vendor import MachineOrder
from argosy.infra.machines import mark_in
from argosy.testing.builders import a_claim
from argosy.testing.ports import free_port

WHY = (
    "SSHD IS NOT STARTED AS IN A CONTAINER: needs root and sshd"
    if os.geteuid() != 0 or not shutil.which("sshd", path="/usr/sbin:/usr/bin")
    else ""
)


def an_order(folder: Path) -> tuple[MachineOrder, Keys]:
    keys, claim = Keys(folder, "x"), a_claim()
    order = MachineOrder(
        claim=claim, zone="", user_data="", opens=keys.opens(), host_secret=keys.host_secret(claim.id)
    )
    return order, keys


def test_marks_come_back(tmp_path: Path) -> None:
    order, _ = an_order(tmp_path)
    mark = mark_in(labels_in(container_env(order, 2)))
    assert mark is not None
    assert (mark.claim_id, mark.index, mark.count) == (order.claim.id, 2, order.claim.count)


def test_keys_stand_in_no_argument_and_no_text(tmp_path: Path) -> None:
    order, _ = an_order(tmp_path)
    assert "PRIVATE" not in repr(order)
    assert not [each for each in ARGS if "PRIVATE" in each or len(each) > 100]
    assert max(map(len, container_env(order, 0).values())) < 16_000  # providers cut longer ones


@pytest.mark.process
@pytest.mark.skipif(bool(WHY), reason=WHY)
def test_a_container_is_entered_with_its_own_environment(tmp_path: Path) -> None:
    order, keys = an_order(tmp_path / "keys")
    port = free_port()
    env = container_env(order, 0) | {
        "PATH": os.environ["PATH"] + ":/usr/sbin",
        "ARGOSY_SSH_DIR": str(tmp_path / "ssh"),
        "ARGOSY_SSH_PORT": str(port),
        "CUDA_HOME": "/usr/local/cuda with a space",
        "LD_LIBRARY_PATH": "/opt/lib",
    }
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {keys.host_key(order.claim.id)}\n")
    ssh = ["ssh", "-F", "/dev/null", "-i", str(keys.identity), "-p", str(port), "-o", "BatchMode=yes"]
    ssh += ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "root@127.0.0.1"]
    said = (tmp_path / "said").open("w")
    with subprocess.Popen(ARGS, env=env, stdout=said, stderr=said) as container:
        try:
            for _ in range(200):
                if socket.socket().connect_ex(("127.0.0.1", port)) == 0:
                    break
                time.sleep(0.05)
            told = subprocess.run(
                [*ssh, 'echo "$CUDA_HOME|$LD_LIBRARY_PATH|${ARGOSY_HOST_KEY:-none}|$(umask)"'],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            container.terminate()
    assert told.stdout == "/usr/local/cuda with a space|/opt/lib|none|0022\n", (
        told.stderr + (tmp_path / "said").read_text()
    )
