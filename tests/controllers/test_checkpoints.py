"""What a managed job keeps survives its nodes: the real shell, store, agents and files on this machine."""

from __future__ import annotations

import asyncio

import msgspec
from local_house import a_house

from argosy.controllers.view import Policy
from argosy.infra.system import SystemClock
from argosy.model.facts import Notice
from argosy.model.kinds.job import job_state
from argosy.model.phases import Outcome
from argosy.model.task import Task
from argosy.testing.builders import a_task

#: The first attempt keeps a step and waits to be lost; the second one finds it, or fails.
KEEPS = """cd "$ARGOSY_CHECKPOINT_DIR"
if [ -f model/step ]; then [ "$(cat latest/step)" = "$WANTED" ] && [ ! -e other.tmp ]; exit; fi
[ "$ARGOSY_ATTEMPT" = 1 ] || { echo nothing was put back; exit 3; }
mkdir model && echo 7 >model/step && echo half >other.tmp && ln -s model latest
trap 'echo 8 >model/step; exit 1' TERM
while :; do sleep 600 & wait; done
"""


def keeps(wanted: str) -> Task:
    return a_task(run=KEEPS, grace_s=5, envs={"WANTED": wanted})


def test_what_a_job_keeps_is_put_back_after_its_machine_was_lost() -> None:
    async def main() -> None:
        async with a_house(keeps("7"), Policy(copy_every_ms=200)) as house:
            await house.until(house.checkpoint)
            copied = await house.checkpoint()
            assert copied is not None
            assert copied.size_bytes == 2
            [claim] = (await house.store.snapshot()).claims.values()
            await house.provider.simulate_preemption(claim.id)
            await house.until(house.is_over)
            job = await house.job()
            assert (job.outcome, job_state(job).recoveries) == (Outcome.SUCCEEDED, 1), job.detail

    asyncio.run(main())


def test_what_a_program_writes_when_its_machine_is_taken_away_is_copied_before_that() -> None:
    """It is told by SIGTERM, and its machine is given back only when what it wrote then is here."""

    async def main() -> None:
        async with a_house(keeps("8"), Policy(copy_every_ms=3_600_000)) as house:
            await house.until(house.is_running)
            [node] = (await house.store.snapshot()).nodes.values()

            async def has_begun() -> bool:
                home = house.provider._home(node.claim_id, 0) / "home"
                return (home / "checkpoints" / "job-1" / "latest").exists()

            await house.until(has_begun)
            link = house.shell.observed.link(node.id)
            assert link is not None
            now_ms = SystemClock().now_ms()
            told = Notice(code="terminate", at_ms=now_ms + 60_000)
            facts = msgspec.structs.replace(link.facts, notice=told)
            house.shell.observed.set_node(node.id, facts, now_ms)
            house.shell.wake(node.id)
            await house.until(house.is_over)
            job = await house.job()
            assert (job.outcome, job_state(job).attempts) == (Outcome.SUCCEEDED, 2), job.detail

    asyncio.run(main())
