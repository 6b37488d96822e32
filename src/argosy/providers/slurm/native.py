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

from argosy.infra import border
from argosy.infra.agent_port import RankOrder
from argosy.model.facts import ClaimState, Device, NodeFacts, RankFact, RankPhase
from argosy.providers.slurm import native_script
from argosy.providers.slurm.array_script import wish_of
from argosy.providers.slurm.arrays import Arrays
from argosy.providers.slurm.looks import ClaimSeen, Looks, RankSeen
from argosy.providers.slurm.native_script import NativeClaim
from argosy.providers.slurm.runner import Runner
from argosy.providers.slurm.words import claim_state, end_text, pending_text, refusal

_NOT_HERE: Final = "commands run as batch jobs of Slurm here (native mode): {}"
_PATIENCE_S: Final = 4.0  # so long who orders a task of an array waits for its submission


class NativeNode:
    """The attempts of one claim, for all of its nodes. `infra.speaker.SpokenFor`."""

    cannot = _NOT_HERE

    def __init__(self, claim: NativeClaim, runner: Runner, looks: Looks, arrays: Arrays) -> None:
        self.claim = claim
        self._runner = runner
        self._looks = looks
        self._arrays = arrays
        self._refused: dict[str, str] = {}  # attempts that were refused when nobody waited, and why
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
                    await self._hand_in(attempt, ranks)

    async def _hand_in(self, attempt: str, ranks: Sequence[RankOrder]) -> None:
        """Submits by itself, or with others of its array: then it may take longer than this call."""
        wish = wish_of(ranks[0])
        if wish is None:
            await self._submit(attempt, ranks)
            self._handed_in(ranks)
            return
        going = asyncio.ensure_future(self._with_others(attempt, ranks))
        going.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._going.add(going)
        going.add_done_callback(self._going.discard)
        done, _ = await asyncio.wait({going}, timeout=_PATIENCE_S)
        for each in done:
            each.result()

    async def _with_others(self, attempt: str, ranks: Sequence[RankOrder]) -> None:
        wish = wish_of(ranks[0])
        assert wish is not None
        try:
            await asyncio.shield(await self._arrays.add(self.claim, attempt, ranks, wish))
        except border.BorderError as error:
            self._refused[attempt] = str(error)
            raise
        self._handed_in(ranks)

    def _handed_in(self, ranks: Sequence[RankOrder]) -> None:
        for each in ranks:
            self._orders.pop(each.id, None)

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
            self._arrays.drop(attempt)
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
        seen = await self._looks.of(self.claim.claim_id, cursors)
        read = {rank_id: offset + len(data) for rank_id, offset, data in seen.logs}
        facts = [
            self._fact(rank_id, seen, read.get(rank_id, cursors.get(rank_id, 0)))
            for rank_id in self._known(seen)
        ]
        return facts, seen.logs

    def _known(self, seen: ClaimSeen) -> list[str]:
        """What was written before the queue was read may be of a job that is not in it yet."""
        taken = [f"{attempt}.0" for attempt in (*seen.jobs, *sorted(seen.submitted))]
        on_disk = [
            rank_id
            for rank_id, rank in seen.ranks.items()
            if rank.exit_code is not None or _attempt_of(rank_id) in (*seen.jobs, *seen.submitted)
        ]
        every = dict.fromkeys((*self._orders, *taken, *on_disk, *self._stopped))
        return [each for each in every if each not in self._forgotten | seen.over]

    def _fact(self, rank_id: str, seen: ClaimSeen, read_bytes: int) -> RankFact:
        attempt = _attempt_of(rank_id)
        rank = seen.ranks.get(rank_id, RankSeen())
        state, reason = seen.jobs.get(attempt, ("", ""))
        is_on = claim_state(state) in (ClaimState.PENDING, ClaimState.HELD) if state else False

        def fact(phase: RankPhase, **more: Any) -> RankFact:  # Any: fields of the fact
            return RankFact(id=rank_id, phase=phase, log_bytes=rank.size, **more)

        if rank.exit_code is not None:
            if read_bytes < rank.size:
                return fact(RankPhase.RUNNING, started_ms=rank.changed_s * 1000)
            return fact(RankPhase.EXITED, exit_code=rank.exit_code, ended_ms=rank.changed_s * 1000)
        if attempt in self._refused:
            return fact(RankPhase.VANISHED, detail=self._refused[attempt])
        if rank_id in self._orders:
            return fact(RankPhase.PREPARING if rank_id in self._released else RankPhase.READY)
        if is_on and state == "PENDING":
            return fact(RankPhase.PREPARING, detail=pending_text(reason, ""))
        if is_on:
            return fact(RankPhase.RUNNING, started_ms=rank.changed_s * 1000)
        if rank_id in self._stopped:
            return fact(RankPhase.EXITED, exit_code=143)
        return fact(
            RankPhase.VANISHED, detail=end_text(state, reason) if state else "its job is not known any more"
        )


def _attempt_of(rank_id: str) -> str:
    return rank_id.rpartition(".")[0]
