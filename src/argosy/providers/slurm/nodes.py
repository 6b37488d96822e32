"""The nodes of one cluster: its version, partitions and kinds of nodes, and when a job would start there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from argosy.infra import border
from argosy.model.ids import Clock
from argosy.model.offer import Offer
from argosy.providers.slurm import script
from argosy.providers.slurm.listing import SINFO, NodeGroup, parse_records, parse_sinfo, parse_version
from argosy.providers.slurm.offers import Estimate, NodeKind, estimate_of, node_kinds, offers_of, test_options
from argosy.providers.slurm.runner import Runner
from argosy.providers.slurm.settings import ClusterSettings
from argosy.providers.slurm.words import refusal

_FRESH_S: Final = 5.0
_ESTIMATE_S: Final = 60.0  # an older estimate of a start is asked for again
_TAKEN_S: Final = 600.0  # so is whether a partition takes our jobs


class Nodes:
    """What `sinfo` says, kept for a few seconds, and what Slurm estimates, kept longer."""

    def __init__(self, name: str, runner: Runner, settings: ClusterSettings, clock: Clock) -> None:
        self._name = name
        self._runner = runner
        self._settings = settings
        self._clock = clock
        self._version: tuple[int, int] | None = None
        self._groups: list[NodeGroup] = []
        self._groups_s = float("-inf")
        self._looking = asyncio.Lock()
        self._estimates: dict[tuple[str, str], tuple[float, Estimate]] = {}

    async def version(self) -> tuple[int, int]:
        """Of Slurm here. Raises a border error."""
        if self._version is None:
            ran = await self._runner.run("command -v sbatch >/dev/null || exit 127; sinfo --version")
            if ran.status == 127:
                raise border.RequestRefused(
                    "infra",
                    f"Slurm is not installed on {self._settings.where}: there is no `sbatch` on the PATH",
                )
            self._version = parse_version(ran.out.decode("utf-8", "replace"))
        return self._version

    async def kinds(self, *, fresh_s: float = _FRESH_S) -> list[NodeKind]:
        """Kinds of nodes by partition, not older than `fresh_s` seconds. Raises a border error."""
        async with self._looking:
            if self._clock.monotonic_s() - self._groups_s > fresh_s:
                ran = await self._runner.run(f"sinfo -h -e -o '{SINFO}'")
                if ran.status:
                    raise refusal(ran.err, self._name)
                self._groups = parse_sinfo(ran.out.decode("utf-8", "replace"))
                self._groups_s = self._clock.monotonic_s()
            return node_kinds(self._groups)

    async def offers(self, provider: str) -> list[Offer]:
        kinds = await self.kinds(fresh_s=0.5)
        await self._estimate(kinds)
        return offers_of(
            kinds,
            provider=provider,
            cluster=self._name,
            named=self._settings.gres,
            now_ms=self._clock.now_ms(),
            estimates={key: told for key, (_, told) in self._estimates.items()},
        )

    async def _estimate(self, kinds: Sequence[NodeKind]) -> None:
        """Asks Slurm when a job on one node of each kind would start, and whether it is taken at all: now and
        then only, since each answer costs the controller a pass of its scheduler."""
        now_s, ours = self._clock.monotonic_s(), self._settings
        asked = []
        for kind in kinds:
            known = self._estimates.get((kind.partition, kind.type))
            lasts_s = _ESTIMATE_S if known and not kind.idle else _TAKEN_S
            if kind.is_up and kind.most and (known is None or now_s - known[0] > lasts_s):
                asked.append(kind)
        if not asked:
            return
        wishes = [test_options(kind, ours) for kind in asked]
        ran = await self._runner.run(script.probe_script(wishes))
        now, *lines = ran.out.decode("utf-8", "replace").splitlines() or ["now"]
        answers = {number: text for number, _, text in (line.partition(" ") for line in lines)}
        for number, kind in enumerate(asked):
            scope = f"{self._name}/{kind.partition}"
            told = estimate_of(answers.get(str(number), ""), now.removeprefix("now ").strip(), scope)
            self._estimates[kind.partition, kind.type] = (now_s, told)

    async def ours(self) -> list[str]:
        """What the user may name: accounts with their QoS where there is a database of them, and
        reservations."""
        ran = await self._runner.run(script.ours_script())
        text = ran.out.decode("utf-8", "replace")
        accounts, _, reservations = text.partition(script.RESERVATIONS)
        pairs = [line.split("|") for line in accounts.splitlines() if line.count("|") == 1]
        told = [f"account {name}" + (f" with QoS {qos}" if qos else "") for name, qos in pairs if name]
        for record in parse_records(reservations):
            users, until = record.get("Users", "(null)"), record.get("EndTime", "").replace("T", " ")[:16]
            line = f"reservation {record.get('ReservationName', '')}: {record.get('Nodes', '')} until {until}"
            line += f", {record.get('State', '').lower()}" + ("" if users == "(null)" else f", for {users}")
            told.append(line)
        return list(dict.fromkeys(told))
