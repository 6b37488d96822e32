"""What a quarter of a real card is: memory that a program sees, what it is refused, and work that it gets
done.

    python benchmarks/gpu_share.py [--seconds 10] [--name gpu-share]

needs an NVIDIA card (Volta or newer, not in MIG mode, used by nobody else), its driver and
nvidia-cuda-mps-control; nothing else: the programs are `argosy.testing.cuda_program`, run as ranks of a real
agent. Writes every sample to results/<date>-<name>.json. Without a card it says so, writes nothing and ends
with 3.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import machine

from argosy.infra.agent_client import AgentClient, unix_channel
from argosy.infra.agent_port import RankOrder
from argosy.infra.boot import agent_command, agent_zipapp
from argosy.model.facts import Device, NodeFacts, RankFact, RankPhase
from argosy.model.offer import DeviceShare
from argosy.testing import cuda_program

WHOLE_MILLI = 1000
_ENDED = (RankPhase.EXITED, RankPhase.VANISHED)
_READY_S = 3.0  # that programs get to start and compile before their common clock runs


class Result:
    """What a program said, and how its rank ended."""

    def __init__(self, fact: RankFact, log: str) -> None:
        self.fact = fact
        self.log = log

    @property
    def said(self) -> dict[str, float]:
        """Its JSON object. Raises RuntimeError when it did not come so far."""
        for line in self.log.splitlines():
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"{self.fact.id}: {self.fact.detail or self.log.strip() or 'it said nothing'}")


class Card:
    """A real agent on this machine and the programs that it runs on one card."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="argosy-gpu-"))
        self._numbers = iter(range(1, 1_000_000))
        self.home = self._folder / "root" / "home"

    def __enter__(self) -> Card:
        environ = {**os.environ, "ARGOSY_SHARES_DIR": str(self._folder / "shares")}
        command = agent_command(
            agent_zipapp(self._folder), self._folder / "root", self._folder / "s", python=sys.executable
        )
        self._process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def shut() -> None:
            client = self._client()
            await client.shutdown()
            await client.close()

        try:
            asyncio.run(shut())
            self._process.wait(15)
        except (OSError, subprocess.TimeoutExpired):
            self._process.send_signal(signal.SIGKILL)
        time.sleep(1)  # its MPS daemon ends by itself
        shutil.rmtree(self._folder, ignore_errors=True)

    def _client(self) -> AgentClient:
        return AgentClient(lambda: unix_channel(self._folder / "s"))

    def facts(self) -> NodeFacts:
        async def ask() -> NodeFacts:
            client = self._client()
            try:
                return await client.node()
            finally:
                await client.close()

        return asyncio.run(ask())

    def share(self, device: Device, milli: int, mechanism: str) -> DeviceShare:
        return DeviceShare(
            index=device.index,
            milli=milli,
            mechanism=mechanism,
            memory_bytes=device.memory_bytes * milli // WHOLE_MILLI,
        )

    def run(self, programs: Sequence[tuple[DeviceShare, str]], limit_s: float = 120) -> list[Result]:
        """Run programs (shell text; `$CUDA` is the CUDA program) at once, each with its share, to their
        ends."""
        start = f'CUDA="{sys.executable} -I -S {cuda_program.__file__}"\n'
        orders = [
            RankOrder(
                id=f"p{next(self._numbers)}.0",
                run=start + text,
                run_now=True,
                devices=(share.index,),
                shares=(share,),
                tenant="benchmark",
            )
            for share, text in programs
        ]
        return asyncio.run(asyncio.wait_for(self._run(orders), limit_s))

    async def _run(self, orders: list[RankOrder]) -> list[Result]:
        client = self._client()
        logs = {order.id: b"" for order in orders}
        facts: dict[str, RankFact] = {}
        try:
            await client.prepare(orders)
            async for report in client.watch({}):
                for chunk in report.logs:
                    if chunk.rank_id in logs:
                        logs[chunk.rank_id] += chunk.data
                facts |= {fact.id: fact for fact in report.ranks}
                if all(order.id in facts and facts[order.id].phase in _ENDED for order in orders):
                    break
            return [Result(facts[order.id], logs[order.id].decode()) for order in orders]
        finally:
            await client.forget(list(logs))
            await client.close()

    def refuse_one_of_four(self, share: DeviceShare, size: int) -> list[Result]:
        """The first asks for `size` while three others hold and write half of their share."""
        end = next(self._numbers)
        greedy = f"until [ $(ls ../end{end}.* 2>/dev/null | wc -l) = 3 ]; do sleep 0.1; done; $CUDA fill {size}; touch ../end{end}"  # noqa: E501
        return self.run(
            [(share, greedy)] + [(share, f"$CUDA hold {share.memory_bytes // 2} ../end{end}")] * 3
        )

    def work(self, device: Device, mechanism: str, milli: int, count: int, seconds: float) -> list[float]:
        """Multiply-adds per second of each of `count` programs that work at the same time."""
        share = self.share(device, milli, mechanism)
        text = f"$CUDA work {seconds} {time.time() + _READY_S + count:.3f}"
        return [result.said["flop_per_s"] for result in self.run([(share, text)] * count)]


def usable_device(facts: NodeFacts) -> Device:
    """The first card that MPS can share. Raises RuntimeError."""
    cards = [device for device in facts.devices if not device.mig_profile]
    if not cards:
        raise RuntimeError("no NVIDIA card here")
    if "mps" not in facts.sharing:
        raise RuntimeError("the agent says that MPS cannot share these cards (docs/gpu-sharing.md says why)")
    return cards[0]


def measure(card: Card, device: Device, seconds: float) -> dict[str, object]:
    """Every figure, with all samples."""
    quarter = card.share(device, WHOLE_MILLI // 4, "mps")
    whole = card.share(device, WHOLE_MILLI, "")
    begun_s = time.monotonic()
    card.run([(quarter, "true")])
    first_s = time.monotonic() - begun_s
    too_much = quarter.memory_bytes * 3 // 2
    refused, *others = card.refuse_one_of_four(quarter, too_much)
    return {
        "memory_bytes": {
            "card": device.memory_bytes,
            "ordered": quarter.memory_bytes,
            "whole": card.run([(whole, "$CUDA info")])[0].said,
            "quarters": [result.said for result in card.run([(quarter, "$CUDA info")] * 4)],
        },
        "too_much": {
            "asked_bytes": too_much,
            "got": refused.said,
            "neighbours": [result.said for result in others],
        },
        "share_start_s": first_s,
        "flop_per_s": {
            "whole": [card.work(device, "", WHOLE_MILLI, 1, seconds) for _ in range(3)],
            "one_quarter_mps": [card.work(device, "mps", 250, 1, seconds) for _ in range(3)],
            "four_quarters_mps": [card.work(device, "mps", 250, 4, seconds) for _ in range(3)],
            "four_quarters_turns": [card.work(device, "", 250, 4, seconds) for _ in range(3)],
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure shares of a real card.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of work in each sample")
    parser.add_argument("--name", default="gpu-share", help="of the result file")
    options = parser.parse_args()
    with Card() as card:
        try:
            device = usable_device(card.facts())
        except RuntimeError as error:
            sys.stderr.write(f"not measured: {error}\n")
            return 3
        figures = measure(card, device, options.seconds)
    path = Path(__file__).with_name("results") / f"{machine.head()['date']}-{options.name}.json"
    card = {"name": device.name, "memory_bytes": device.memory_bytes}
    machine.write(path, card=card, seconds=options.seconds, figures=figures)
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
