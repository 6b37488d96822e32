"""The tasks of `tests/spec/seeds` on a server with the machines that they ask for: each plans, and a dry run
takes it.

Their programs run too, against the same server: what they launch is queued, and nothing more.
"""

from __future__ import annotations

import os
import runpy
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.cli.main import run
from argosy.cli.session import Session
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.units import GIB
from argosy.testing.idle_server import IdleServer, StaticProvider

SEEDS = Path(__file__).parent.parent / "spec" / "seeds"
TASKS = sorted(path for path in SEEDS.glob("*.yaml") if not path.name.startswith("foreign-"))
PROGRAMS = sorted(path for path in SEEDS.glob("*.py") if not path.name.startswith("test_"))


def machine(
    provider: str, model: str, count: float, *, region: str = "us-west-2", spot: bool = False
) -> Offer:
    shape = Shape(
        instance_type=f"{model.lower()}-{count:g}",
        cpus_milli=96_000,
        memory_bytes=256 * GIB if model == "A100" and count == 4 else 1152 * GIB,
        accelerator=model,
        accelerators_milli=int(count * 1000),
        accelerator_memory_bytes=80 * GIB,
    )
    return Offer(
        provider=provider,
        region=region,
        shape=shape,
        capacity=Capacity.SPOT if spot else Capacity.ON_DEMAND,
        price_micro_usd=4_000_000 if spot else 10_000_000,
    )


def clouds() -> list[StaticProvider]:
    made = []
    for name, regions in (
        ("aws", ("us-west-2", "us-east-1", "eu-west-1")),
        ("gcp", ("us-central1",)),
        ("azure", ("eastus",)),
    ):
        offers = [
            machine(name, model, count, region=region, spot=spot)
            for region in regions
            for model in ("A100", "V100", "H100", "L4", "A10G")
            for count in (1, 2, 4, 8)
            for spot in (False, True)
        ]
        can = Capabilities(spot=True, multi_node=True, networks=name == "aws")
        made.append(StaticProvider(Manifest(name=name, title=name, capabilities=can), offers))
    own = Capabilities(owned=True, stop=True, multi_node=True, fractions=True)
    site = Offer(
        provider="ssh",
        region="site-7",
        shape=Shape(cpus_milli=48_000, memory_bytes=256 * GIB, accelerator="Jetson", accelerators_milli=8000),
        capacity=Capacity.OWNED,
        price_micro_usd=0,
    )
    lab = Offer(
        provider="ssh",
        region="lab",
        shape=Shape(
            cpus_milli=96_000, memory_bytes=512 * GIB, accelerator="A100", accelerators_milli=1000,
            accelerator_memory_bytes=80 * GIB,
        ),
        capacity=Capacity.OWNED,
        price_micro_usd=0,
    )  # fmt: skip
    made.append(StaticProvider(Manifest(name="ssh", title="own machines", capabilities=own), [site, lab]))
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[IdleServer]:
    with IdleServer(*clouds()) as running:
        (running.home / "catalog").mkdir()
        (running.home / "catalog" / "terms.toml").write_text(
            '[[place]]\ninfra = "ssh/site-7"\nbandwidth_mbps = 200\nlatency_ms = 30\npower_w = 60\n'
        )
        yield running


@pytest.fixture
def session(server: IdleServer) -> Iterator[Session]:
    with tempfile.TemporaryDirectory(prefix="ag", dir="/tmp", ignore_cleanup_errors=True) as name:
        for path in TASKS:
            shutil.copy(path, name)
        env = {"HOME": name, "ARGOSY_SERVER": f"unix://{server.socket}", "USER": "ada"}
        yield Session(env, cwd=Path(name), now_ms=lambda: 0)


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.name)
def test_a_task_plans_and_a_dry_run_takes_it(
    session: Session, capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    capsys.readouterr()
    assert run(["plan", path.name], session) == 0, capsys.readouterr().err
    plan = capsys.readouterr().out
    assert "  yes" in plan and "no driver for them" not in plan
    assert run(["launch", "--dryrun", path.name], session) == 0, capsys.readouterr().err
    dry = capsys.readouterr().out
    assert dry.endswith("\nNothing was launched (--dryrun).\n") and "  yes" in dry
    assert run(["offers", path.name], session) == 0


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_a_program_runs_to_its_end(server: IdleServer, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("ARGOSY_SERVER", f"unix://{server.socket}")
    monkeypatch.setenv("ARGOSY_HOME", str(server.home / "nowhere"))
    monkeypatch.chdir(SEEDS)
    assert os.environ["ARGOSY_SERVER"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is accepted and not executed yet
        made = runpy.run_path(str(path))
    if path.name in ("cheapest.py", "chain.py"):
        assert made["plan"].choices, "something can be launched"
    if path.name == "by_deadline.py":
        spot, balanced, urgent = (plan.choices[0].offer for plan in made["plans"])
        assert (spot.capacity, balanced.capacity, urgent.capacity) == (
            Capacity.SPOT,
            Capacity.SPOT,
            Capacity.ON_DEMAND,
        )
