"""A full disk lets through what ends something, and nothing else, until there is room again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from argosy.model.phases import Desired, WorkloadPhase
from argosy.store.ballast import BALLAST_FILE, Ballast, ends_something
from argosy.testing.builders import a_claim, a_cluster, a_job, an_attempt, changed

_FILLER = """
import asyncio, os, subprocess, sys
from pathlib import Path
from argosy.model.errors import ArgosyError
from argosy.model.phases import Desired, WorkloadPhase
from argosy.store import Store
from argosy.store.ballast import BALLAST_FILE
from argosy.testing.builders import a_cluster, a_job
from argosy.testing.builders import changed
from argosy.testing.conformance.store_subject import an_event
from argosy.testing.virtual_time import FixedClock, SimIds

folder = Path(sys.argv[1])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder]).returncode:
    sys.exit(77)

async def full(call):
    try:
        await call
    except ArgosyError as error:
        assert error.code == "disk-full", (error.code, error.what)
        return error.what
    raise AssertionError("written on a full disk")

async def main():
    store = await Store.open(f"sqlite://{folder}/argosy.db", ids=SimIds(), clock=FixedClock())
    (cluster,) = await store.commit([a_cluster()])
    jobs = await store.commit([a_job(number=n) for n in range(50)])
    with open(folder / "log", "wb", buffering=0) as log:  # a job fills the disk to the last byte
        try:
            while True:
                log.write(b"x" * 4096)
        except OSError:
            pass
    try:  # what the database's own files still hold is used up first
        for n in range(10_000):
            await store.commit([a_job(number=n, detail="x" * 50_000)])
    except ArgosyError as error:
        assert error.code == "disk-full"
    assert (folder / BALLAST_FILE).exists()
    # cancel and the end of every job, then `down`: all of it is written
    for job in jobs:
        (job,) = await store.commit([changed(job, desired=Desired.END)])
        await store.commit([changed(job, phase=WorkloadPhase.FINISHED)], events=[an_event(job.id)])
        told = await full(store.commit([a_job(number=1)]))
        assert "only what ends something is written" in told, told
    await store.commit([changed(cluster, desired=Desired.END)])
    assert not (folder / BALLAST_FILE).exists()
    assert len((await store.snapshot()).workloads) >= 1
    (folder / "log").unlink()
    await store.commit([a_job(number=99)])
    assert (folder / BALLAST_FILE).stat().st_size > 1 << 20
    await store.close()

asyncio.run(main())
"""


def test_what_ends_something_is_written_on_a_full_disk(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    command = [*unshare, sys.executable, "-c", _FILLER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if done.returncode == 77:
        pytest.skip("tmpfs cannot be mounted here")
    assert done.returncode == 0, done.stderr


def test_what_ends_something() -> None:
    job, claim = a_job(), a_claim()
    assert not ends_something((job, claim, an_attempt()))
    assert ends_something((job, changed(claim, desired=Desired.END)))
    assert ends_something((changed(job, phase=WorkloadPhase.FINISHED),))
    assert ends_something((changed(a_cluster(), desired=Desired.STOP),))


def test_the_room_is_taken_for_real_and_given_back_once(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / BALLAST_FILE, 1 << 20)
    assert ballast.keep() and ballast.keep()
    stat = os.stat(tmp_path / BALLAST_FILE)
    assert stat.st_size == 1 << 20 and stat.st_blocks * 512 >= 1 << 20 and stat.st_mode & 0o077 == 0
    assert ballast.release() and ballast.is_spent and not ballast.release()
    assert list(tmp_path.iterdir()) == []
    assert ballast.keep() and not ballast.is_spent
    nowhere = Ballast(tmp_path / "no" / "such", 1 << 20)
    assert not nowhere.keep()


def test_a_database_in_memory_keeps_nothing() -> None:
    ballast = Ballast(None)
    assert ballast.keep() and not ballast.release()
