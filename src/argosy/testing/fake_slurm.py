"""A strict stand-in for a Slurm cluster under virtual time: the driver's own bash scripts run against
commands that keep jobs in a file (`testing.fake_slurm_program`), and the jobs' nodes are machines of the
simulated world.

Before and after each script, and in its middle, the server may be killed; in the middle the script goes too,
as when the login node drops the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.ssh import Ran
from argosy.model.facts import NodeFacts
from argosy.model.units import GIB
from argosy.providers.slurm.listing import SEPARATOR
from argosy.testing import fake_slurm_program
from argosy.testing.faults import SimCrash
from argosy.testing.machines import Machine
from argosy.testing.world import World

_LIVE: Final = fake_slurm_program.LIVE
_AGE_S: Final = 120.0  # so long Slurm remembers what is over
_END_S: Final = 2.0  # so long a job that was cancelled holds its nodes
#: Quick, since it is asked most. Reads what `fake_slurm_program.table` wrote.
_SQUEUE: Final = r"""
name= states= job= format=
while [ $# -gt 0 ]; do
  case "$1" in
    -h|-r) ;;
    -u) shift;;
    -j) job=$2; shift;;
    -o) format=$2; shift;;
    --name=*) name=${1#*=};;
    --states=*) states=${1#*=};;
    *) echo "squeue: unrecognized option '$1'" >&2; exit 1;;
  esac
  shift
done
exec awk -F '\t' -v name="$name" -v states="$states" -v job="$job" -v format="$format" '
BEGIN { split("%i %j %T %r %K %N %k %D %P", code, " ") }
name != "" && $2 != name { next }
job != "" && $1 != job { next }
states == "" && $3 !~ /^(PENDING|RUNNING|COMPLETING)$/ { next }
states != "" && states != "all" && $3 != states { next }
{ line = format
  for (i = 1; i <= 9; i++) gsub(code[i], $i, line)
  gsub(/%[Se]/, "N/A", line); print line }' "$FAKE_SLURM/jobs.tsv"
"""


class FakeJob(msgspec.Struct, kw_only=True):
    """One job, as the file has it."""

    id: str
    name: str
    state: str
    reason: str
    comment: str
    count: int
    partition: str
    singleton: bool
    nodes: list[str]
    since: float  # when its state became what it is


class _State(msgspec.Struct, kw_only=True):
    jobs: list[FakeJob] = []
    last: int = 0
    now: float = 0.0
    partitions: dict[str, list[str]]
    refuses: dict[str, str] = {}  # by partition: what `sbatch` says
    sinfo: str = ""


class FakeSlurm:
    """`partitions`: names of their nodes."""

    def __init__(self, folder: Path, partitions: Mapping[str, Sequence[str]]) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        programs = folder / "bin"
        programs.mkdir()
        for name in ("sbatch", "scancel", "sinfo", "scontrol", "sacctmgr"):
            self._program(
                programs / name, f'exec {sys.executable} -I -S {fake_slurm_program.__file__} {name} "$@"'
            )
        self._program(programs / "squeue", _SQUEUE)
        self._program(programs / "sleep", "exit 0")
        self.environ = {
            "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(self.home), "USER": "root",
            "FAKE_SLURM": str(folder),
        }  # fmt: skip
        self._write(_State(partitions={name: list(nodes) for name, nodes in partitions.items()}))

    def _program(self, path: Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def _read(self) -> _State:
        return msgspec.json.decode((self.folder / "jobs.json").read_bytes(), type=_State)

    def _write(self, state: _State) -> None:
        lines = []
        busy = {node for job in state.jobs if job.state in ("RUNNING", "COMPLETING") for node in job.nodes}
        for name, nodes in state.partitions.items():
            for node in nodes:
                what = "allocated" if node in busy else "idle"
                words = (name, name, "1", what, "(null)", "4", "8192", "(null)", "infinite", "n/a",
                         "1-infinite", "up", node, "all")  # fmt: skip
                lines.append(SEPARATOR.join(words))
        state.sinfo = "".join(f"{line}\n" for line in lines)
        (self.folder / "jobs.json").write_bytes(msgspec.json.encode(state))
        (self.folder / "jobs.tsv").write_text(fake_slurm_program.table(msgspec.to_builtins(state.jobs)))

    # -- what tests ask and do ------------------------------------------------------------------------------

    def jobs(self) -> list[FakeJob]:
        """What holds or wants nodes."""
        return [job for job in self._read().jobs if job.state in _LIVE]

    def refuse(self, partition: str, text: str) -> None:
        state = self._read()
        state.refuses[partition] = text
        self._write(state)

    def preempt(self, claim_id: str) -> None:
        """A job of higher priority takes its nodes."""
        state = self._read()
        for job in state.jobs:
            if job.name == claim_id and job.state == "RUNNING":
                job.state, job.since = "PREEMPTED", state.now
        self._write(state)

    def tick(self, now_s: float) -> None:
        """What Slurm does by itself until now: jobs start, end, and are forgotten."""
        state = self._read()
        state.now = now_s
        for job in state.jobs:
            if job.state == "COMPLETING" and now_s - job.since >= _END_S:
                job.state, job.since = "CANCELLED", now_s
        state.jobs = [job for job in state.jobs if job.state in _LIVE or now_s - job.since < _AGE_S]
        for job in state.jobs:
            if job.state == "PENDING" and now_s > job.since:
                self._start(state, job)
        self._write(state)

    def _start(self, state: _State, job: FakeJob) -> None:
        same = [each for each in state.jobs if each.name == job.name and each.state in _LIVE]
        if job.singleton and same[0] is not job:
            job.reason = "Dependency"
            return
        busy = {node for each in state.jobs if each.state in ("RUNNING", "COMPLETING") for node in each.nodes}
        free = [node for node in state.partitions[job.partition] if node not in busy]
        if len(free) < job.count:
            job.reason = "Resources"
            return
        job.state, job.reason, job.nodes, job.since = "RUNNING", "None", free[: job.count], state.now


class SimRunner:
    """`slurm.runner.Runner` of the simulated world. Scripts run in place."""

    def __init__(self, world: World, slurm: FakeSlurm) -> None:
        self.world = world
        self.slurm = slurm

    async def run(self, script: str, *, data: bytes = b"", timeout_s: float = 30) -> Ran:
        point = _effect_of(script)
        if point:
            self.world.maybe_crash(f"before {point}")
        self.world.check_alive()
        await asyncio.sleep(self.world.dice("latency").uniform(0.01, 0.3))
        self.world.check_alive()
        self.slurm.tick(self.world.now_s)
        if point:
            try:
                self.world.maybe_crash(f"during {point}")
            except SimCrash:
                self._bash(script, data, {"FAKE_SLURM_CUT": "1"})
                raise
        done = self._bash(script, data, {})
        look(self.world, self.slurm)
        if point:
            self.world.maybe_crash(f"after {point}")
        return Ran(status=done.returncode, out=done.stdout, err=done.stderr.decode("utf-8", "replace"))

    def _bash(self, script: str, data: bytes, more: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
        """What it started and left goes with it."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            ["/bin/bash", "-c", script], env={**self.slurm.environ, **more}, start_new_session=True,
            stdin=pipe, stdout=pipe, stderr=pipe,
        )  # fmt: skip
        out, err = process.communicate(data, timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess([], process.returncode, out, err)

    async def open(self, command: str) -> Channel:
        raise border.Unreachable("simulated machines are reached through SimAgentDirectory")

    async def close(self) -> None:
        """Nothing is kept."""


def _effect_of(script: str) -> str:
    """What a script changes; "" for one that looks."""
    if "<<'ARGOSY-BATCH'" in script:
        return "slurm.submit"
    if "scancel" in script:
        return "slurm.release"
    return "slurm.install" if "-name 'agent-*.pyz'" in script else ""


def look(world: World, slurm: FakeSlurm) -> None:
    """Jobs that run have machines; when they end, these go."""
    slurm.tick(world.now_s)
    there = {
        f"{job.name}/{index}": f"{job.id}-{node}"
        for job in slurm.jobs()
        if job.state == "RUNNING"
        for index, node in enumerate(job.nodes)
    }
    for machine in [
        each for each in world.machines.values() if each.facts.hostname != there.get(each.address)
    ]:
        world.remove_machine(machine)
    for address, hostname in there.items():
        if address not in world.machines:
            claim_id, _, index = address.partition("/")
            facts = NodeFacts(
                hostname=hostname, arch="x86_64", cpus_milli=4000, memory_bytes=8 * GIB, agent_version="sim"
            )
            machine = Machine("slurm", claim_id, int(index), facts)
            world.add_machine(machine, world.dice("boots").uniform(0.1, 1.0))


async def keep_looking(world: World, slurm: FakeSlurm) -> None:
    while True:
        await asyncio.sleep(1.0)
        look(world, slurm)
