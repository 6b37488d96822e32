"""Native mode: for sites that forbid resident agents. A claim holds nothing; each attempt of a job on it is
submitted as a batch job of its own, with the user's own commands.

`NativeNode` stands where a node's agent would (`infra.speaker`): it turns `prepare`, `run`, `stop` and
`watch` into `sbatch`, `scancel`, `squeue` and reading of output files. Trees, terminals and ports are refused
with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import RankOrder
from argosy.model.facts import ClaimState, Device, NodeFacts, RankFact, RankPhase
from argosy.providers.slurm import native_script
from argosy.providers.slurm.listing import SEPARATOR
from argosy.providers.slurm.native_script import NativeClaim
from argosy.providers.slurm.runner import Runner
from argosy.providers.slurm.words import claim_state, end_text, pending_text, refusal

_NOT_HERE: Final = "commands run as batch jobs of Slurm here (native mode): {}"


class _Look(msgspec.Struct):
    """What one look at a claim found."""

    jobs: dict[str, tuple[str, str]] = {}  # attempt -> state, reason
    ranks: dict[tuple[str, int], tuple[int, int | None, int]] = {}  # -> bytes, exit code, changed at (s)
    logs: list[tuple[str, int, int, bytes]] = []  # attempt, rank, offset, bytes


class NativeNode:
    """The attempts of one claim, for all of its nodes. `infra.speaker.SpokenFor`."""

    cannot = _NOT_HERE

    def __init__(self, claim: NativeClaim, runner: Runner) -> None:
        self.claim = claim
        self._runner = runner
        self._orders: dict[
            str, RankOrder
        ] = {}  # prepared and not yet submitted: in memory, as agents have them
        self._released: set[str] = set()  # ranks that were told to run
        self._stopped: set[str] = set()
        self._forgotten: set[str] = set()
        self._submitting = asyncio.Lock()
        self._going: set[asyncio.Task[None]] = set()

    def facts(self) -> NodeFacts:
        claim = self.claim
        model = claim.accelerator or ""
        return NodeFacts(
            hostname=claim.claim_id,
            cpus_milli=claim.cpus_milli,
            memory_bytes=claim.memory_bytes,
            devices=tuple(Device(index=index, model=model) for index in range(claim.devices)),
        )

    async def prepare(self, orders: Sequence[RankOrder]) -> None:
        for order in orders:
            if order.id not in self._stopped | self._forgotten:
                self._orders.setdefault(order.id, order)
        await self.run([order.id for order in orders if order.run_now])

    async def run(self, rank_ids: Sequence[str]) -> None:
        """Submits each attempt all of whose ranks are to run."""
        self._released.update(rank_ids)
        async with self._submitting:
            for attempt in {rank_id.rpartition(".")[0] for rank_id in rank_ids}:
                ranks = [self._orders[each] for each in self._orders if each.rpartition(".")[0] == attempt]
                ranks.sort(key=lambda each: int(each.id.rpartition(".")[2]))
                wanted = int(ranks[0].env.get("ARGOSY_NUM_NODES", "1")) if ranks else 0
                if ranks and len(ranks) == wanted and all(each.id in self._released for each in ranks):
                    await self._submit(attempt, ranks)
                    for each in ranks:
                        del self._orders[each.id]

    async def _submit(self, attempt: str, ranks: Sequence[RankOrder]) -> None:
        text = native_script.submit_script(self.claim, attempt, ranks)
        ran = await self._runner.run(text, data=native_script.submit_data(ranks), timeout_s=60)
        if ran.status:
            raise refusal(ran.err, self.claim.order.partition)

    async def stop(self, rank_ids: Sequence[str], grace_s: float) -> None:
        self._stopped.update(rank_ids)
        for rank_id in rank_ids:
            self._orders.pop(rank_id, None)
        for attempt in {rank_id.rpartition(".")[0] for rank_id in rank_ids}:
            text = native_script.stop_script(self.claim.claim_id, attempt, grace_s)
            task = asyncio.create_task(self._quietly(text, 60 + grace_s))
            self._going.add(task)
            task.add_done_callback(self._going.discard)

    async def _quietly(self, script: str, timeout_s: float) -> None:
        try:
            await self._runner.run(script, timeout_s=timeout_s)
        except border.BorderError:
            return  # whoever wants it stopped says it again

    async def forget(self, rank_ids: Sequence[str]) -> None:
        self._forgotten.update(rank_ids)
        pairs = [(attempt, int(rank)) for attempt, _, rank in (each.rpartition(".") for each in rank_ids)]
        await self._runner.run(native_script.forget_script(self.claim.claim_id, pairs))

    async def look(self, cursors: dict[str, int]) -> tuple[list[RankFact], list[tuple[str, int, bytes]]]:
        """Facts of every rank, and bytes of logs after `cursors`. An end is told with or after the last
        byte."""
        keys = {" ".join(each.rpartition(".")[::2]): offset for each, offset in cursors.items()}
        ran = await self._runner.run(native_script.look_script(self.claim.claim_id, keys), timeout_s=60)
        if ran.status:
            raise refusal(ran.err, self.claim.order.partition)
        seen = _parse_look(ran.out, self.claim.claim_id)
        logs = [(f"{attempt}.{rank}", offset, data) for attempt, rank, offset, data in seen.logs]
        read = {rank_id: offset + len(data) for rank_id, offset, data in logs}
        facts = [
            self._fact(rank_id, seen, read.get(rank_id, cursors.get(rank_id, 0)))
            for rank_id in self._known(seen)
        ]
        return facts, logs

    def _known(self, seen: _Look) -> list[str]:
        of_jobs = [f"{attempt}.0" for attempt in seen.jobs]
        on_disk = [f"{attempt}.{rank}" for attempt, rank in seen.ranks]
        every = dict.fromkeys((*self._orders, *of_jobs, *on_disk, *self._stopped))
        return [each for each in every if each not in self._forgotten]

    def _fact(self, rank_id: str, seen: _Look, read_bytes: int) -> RankFact:
        attempt, _, rank = rank_id.rpartition(".")
        size, code, changed_s = seen.ranks.get((attempt, int(rank)), (0, None, 0))
        state, reason = seen.jobs.get(attempt, ("", ""))
        is_on = claim_state(state) in (ClaimState.PENDING, ClaimState.HELD) if state else False

        def fact(phase: RankPhase, **more: Any) -> RankFact:  # Any: fields of the fact
            return RankFact(id=rank_id, phase=phase, log_bytes=size, **more)

        if code is not None:
            if read_bytes < size:
                return fact(RankPhase.RUNNING, started_ms=changed_s * 1000)
            return fact(RankPhase.EXITED, exit_code=code, ended_ms=changed_s * 1000)
        if rank_id in self._orders:
            return fact(RankPhase.READY)
        if is_on and state == "PENDING":
            return fact(RankPhase.READY, detail=pending_text(reason, ""))
        if is_on:
            return fact(RankPhase.RUNNING, started_ms=changed_s * 1000)
        if rank_id in self._stopped:
            return fact(RankPhase.EXITED, exit_code=143)
        return fact(
            RankPhase.VANISHED, detail=end_text(state, reason) if state else "its job is not known any more"
        )


def _parse_look(out: bytes, claim_id: str) -> _Look:
    seen = _Look(jobs={}, ranks={}, logs=[])
    rest = out
    while rest:
        line, _, rest = rest.partition(b"\n")
        words = line.decode("utf-8", "replace").split(SEPARATOR)
        if words[0] == "job" and len(words) == 5:
            seen.jobs[words[2].removeprefix(claim_id + ":")] = (words[3], words[4])
        elif words[0] == "rank" and len(words) == 6 and words[2].isdigit():
            code = int(words[4]) if words[4].strip().isdigit() else None
            seen.ranks[words[1], int(words[2])] = (int(words[3] or 0), code, int(words[5] or 0))
        elif words[0] == "log" and len(words) == 5:
            size = int(words[4])
            seen.logs.append((words[1], int(words[2]), int(words[3]), rest[:size]))
            rest = rest[size:]
    return seen
