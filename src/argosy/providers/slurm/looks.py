"""What became of attempts in native mode: one look at the cluster serves all claims that ask at the time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.model.ids import Clock
from argosy.providers.slurm import native_script
from argosy.providers.slurm.listing import SEPARATOR
from argosy.providers.slurm.runner import Runner
from argosy.providers.slurm.words import refusal

_GATHER_S: Final = 0.03  # so long who asks waits for others who do
_REST: Final = 0.5  # after a look that took a second, the next one begins half a second later


class RankSeen(msgspec.Struct, frozen=True):
    """One rank on the disk of the cluster."""

    size: int = 0  # of its output, in bytes
    exit_code: int | None = None
    changed_s: int = 0


class ClaimSeen(msgspec.Struct):
    """What one look found of one claim."""

    jobs: dict[str, tuple[str, str]] = {}  # attempt -> state, reason
    submitted: set[str] = set()  # attempts that Slurm has taken once
    ranks: dict[str, RankSeen] = {}
    over: set[str] = set()  # ranks that were forgotten
    logs: list[tuple[str, int, bytes]] = []  # rank, offset, bytes


class Looks:
    """Looks at one cluster, one at a time."""

    def __init__(self, name: str, runner: Runner, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._runner = runner
        self._asked: dict[str, dict[str, int]] = {}
        self._next: asyncio.Task[dict[str, ClaimSeen]] | None = None
        self._looking = asyncio.Lock()
        self._rested_s = 0.0

    async def of(self, claim_id: str, cursors: Mapping[str, int]) -> ClaimSeen:
        """Raises a border error. `cursors`: of its ranks, how many bytes of output are known."""
        known = self._asked.setdefault(claim_id, {})
        for rank_id, offset in cursors.items():
            known[rank_id] = min(offset, known.get(rank_id, offset))
        if self._next is None:
            self._next = asyncio.create_task(self._look())
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        seen = (await asyncio.shield(self._next)).get(claim_id, ClaimSeen())
        news = [
            (rank_id, max(offset, cursors[rank_id]), data[max(0, cursors[rank_id] - offset) :])
            for rank_id, offset, data in seen.logs
            if rank_id in cursors
        ]
        return msgspec.structs.replace(seen, logs=[each for each in news if each[2]])

    async def _look(self) -> dict[str, ClaimSeen]:
        async with self._looking:
            await asyncio.sleep(max(_GATHER_S, self._rested_s - self._clock.monotonic_s()))
            asked, self._asked, self._next = self._asked, {}, None
            began_s = self._clock.monotonic_s()
            data = native_script.look_data(asked)
            ran = await self._runner.run(native_script.look_script(), data=data, timeout_s=60)
            took_s = self._clock.monotonic_s() - began_s
            self._rested_s = began_s + took_s * (1 + _REST)
        if ran.status:
            raise refusal(ran.err, self._name)
        return parse_look(ran.out)


def parse_look(out: bytes) -> dict[str, ClaimSeen]:
    """By claim. `out`: what `native_script.look_script` prints."""
    found: dict[str, ClaimSeen] = {}
    tasks: dict[tuple[str, str], tuple[str, str]] = {}  # array, index -> claim, attempt
    arrays: set[str] = set()  # that Slurm has taken
    queue: list[list[str]] = []

    def claim(claim_id: str) -> ClaimSeen:
        if claim_id not in found:
            found[claim_id] = ClaimSeen(jobs={}, submitted=set(), ranks={}, over=set(), logs=[])
        return found[claim_id]

    rest = out
    while rest:
        line, _, rest = rest.partition(b"\n")
        words = line.decode("utf-8", "replace").split(SEPARATOR)
        if words[0] == "job" and len(words) == 5:
            queue.append(words)
        elif words[0] == "rank" and len(words) == 4:
            claim_id, rank_id = _rank_of(words[1])
            before = claim(claim_id).ranks.get(rank_id, RankSeen())
            claim(claim_id).ranks[rank_id] = RankSeen(int(words[2]), before.exit_code, int(words[3]))
        elif words[0] == "log" and len(words) == 4:
            claim_id, rank_id = _rank_of(words[1])
            size = int(words[3])
            claim(claim_id).logs.append((rank_id, int(words[2]), rest[:size]))
            rest = rest[size:]
        elif len(words) == 1 and line.startswith(b"../arrays/"):
            arrays.add(words[0].split("/")[2])
        elif len(words) == 1 and words[0].count("/") == 2:
            path, _, text = words[0].partition(":")
            claim_id, attempt, file = path.split("/")
            kind, _, rank = file.partition(".")
            if kind == "array":
                array, _, index = text.partition(" ")
                tasks[array, index] = claim_id, attempt
            elif kind == "job":
                claim(claim_id).submitted.add(attempt)
            elif kind == "over":
                claim(claim_id).over.add(f"{attempt}.{rank}")
            elif kind == "exit" and text.strip().isdigit():
                claim(claim_id).ranks[f"{attempt}.{rank}"] = RankSeen(0, int(text))
    for (array, _), (claim_id, attempt) in tasks.items():
        if array in arrays:
            claim(claim_id).submitted.add(attempt)
    for _, name, index, state, reason in queue:
        claim_id, attempt = tasks.get((name, index)) or (*name.partition(":")[::2],)
        claim(claim_id).jobs[attempt] = state, reason
    return found


def _rank_of(path: str) -> tuple[str, str]:
    """
    >>> _rank_of("clm-1/att-2/out.0")
    ('clm-1', 'att-2.0')
    """
    claim_id, attempt, file = path.split("/")
    return claim_id, f"{attempt}.{file.partition('.')[2]}"
