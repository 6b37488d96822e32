"""A disk that a job's own log fills: the job ends with that reason, and everything can still be ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from e2e_house import House


@pytest.fixture
def small_house() -> Iterator[House]:
    house = House()
    house.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(house.state)]
    if os.getuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        house.close()
        pytest.skip("FULL DISK NOT TESTED: mounting a tmpfs needs root")
    yield house
    house.close()
    subprocess.run(["umount", "-l", str(house.state)], check=False)


def test_a_job_that_fills_the_disk_ends_with_that_reason(small_house: House) -> None:
    house = small_house
    house.run("launch", "-y", "-d", "-c", "c", "--", "yes argosy | head -c 60000000; sleep 1000")
    job = house.wait("the job ends", lambda: _ended(house))
    assert (job["status"], job["reason"]) == ("failed", "log-disk-full"), job
    house.run("down", "c", "-y")
    house.wait("the cluster is gone", lambda: house.cluster("c") is None)


def _ended(house: House) -> dict[str, Any] | None:
    (job,) = house.jobs("c")
    return job if job["status"] in ("failed", "succeeded") else None
